/** Runs a server until it stops. SIGTERM and SIGINT shut it down. */
export async function runUntilTerminated(
  server: { readonly finished: Promise<void>; shutdown(): Promise<void> },
): Promise<void> {
  // What shutdown() rejects with, finished does too.
  const remove = onTermination(() => server.shutdown().catch(() => {}));
  try {
    await server.finished;
  } finally {
    remove();
  }
}

/**
 * Calls back once at SIGTERM or SIGINT, instead of ending the process. A further SIGINT ends it: who waits at a terminal
 * may lose patience. A further SIGTERM does not: a supervisor may send one after the terminal's SIGINT.
 *
 * @returns Undoes it.
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
 * Calls back at SIGHUP instead of ending the process. At a terminal SIGHUP still ends it: it means that the terminal closes.
 *
 * @returns Undoes it.
 */
export function onHangup(callback: () => void): Disposable {
  if (Deno.stdin.isTerminal()) return { [Symbol.dispose]() {} };
  Deno.addSignalListener("SIGHUP", callback);
  return { [Symbol.dispose]: () => Deno.removeSignalListener("SIGHUP", callback) };
}
