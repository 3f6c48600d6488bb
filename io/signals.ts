/** Waits until a server has stopped. SIGTERM and SIGINT shut it down. */
export async function runUntilTerminated(
  server: { readonly finished: Promise<void>; shutdown(): Promise<void> },
): Promise<void> {
  // If shutdown() rejects, so does finished.
  const remove = onTermination(() => server.shutdown().catch(() => {}));
  try {
    await server.finished;
  } finally {
    remove();
  }
}

/**
 * Calls back once at SIGTERM or SIGINT instead of ending the process. A second SIGINT ends the process, so that a
 * user at a terminal need not wait. A second SIGTERM does not, as a supervisor may send one after the terminal's
 * SIGINT.
 *
 * @returns A function that removes the signal listeners.
 */
function onTermination(callback: () => void): () => void {
  let called = false;
  const call = () => {
    if (!called) callback();
    called = true;
  };
  const interrupt = () => {
    Deno.removeSignalListener("SIGINT", interrupt);
    call();
  };
  const hasSIGTERM = Deno.build.os !== "windows";
  Deno.addSignalListener("SIGINT", interrupt);
  if (hasSIGTERM) Deno.addSignalListener("SIGTERM", call);
  return () => {
    Deno.removeSignalListener("SIGINT", interrupt);
    if (hasSIGTERM) Deno.removeSignalListener("SIGTERM", call);
  };
}

/**
 * Calls back at SIGHUP instead of ending the process. At a terminal, where SIGHUP means that the terminal closes, it
 * still ends the process.
 *
 * @returns A disposable that removes the signal listener.
 */
export function onHangup(callback: () => void): Disposable {
  if (Deno.stdin.isTerminal()) return { [Symbol.dispose]() {} };
  Deno.addSignalListener("SIGHUP", callback);
  return { [Symbol.dispose]: () => Deno.removeSignalListener("SIGHUP", callback) };
}
