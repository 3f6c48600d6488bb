/**
 * Calls back at SIGTERM and SIGINT, instead of ending the process; a second one ends it.
 *
 * @returns Undoes it.
 */
export function onTermination(callback: () => void): () => void {
  const signals: Deno.Signal[] = Deno.build.os === "windows" ? ["SIGINT"] : ["SIGTERM", "SIGINT"];
  const remove = () => {
    for (const signal of signals) Deno.removeSignalListener(signal, terminate);
  };
  const terminate = () => {
    remove();
    callback();
  };
  for (const signal of signals) Deno.addSignalListener(signal, terminate);
  return remove;
}
