/** How long after the first SIGINT another one forces the end, in milliseconds. */
const FORCE_AFTER = 1000;
/** The exit code of a program that SIGINT ends. */
const INTERRUPTED = 130;

/** Waits until a server has stopped. SIGTERM and SIGINT shut it down. */
export async function runUntilTerminated(
  server: { readonly finished: Promise<void>; shutdown(): Promise<void> },
): Promise<void> {
  // If shutdown() rejects, so does finished.
  using _ = onTermination(() => server.shutdown().catch(() => {}));
  await server.finished;
}

/**
 * Calls back once at SIGTERM or SIGINT instead of ending the process. A SIGINT at least a second after the first forces
 * the end, so that a user at a terminal need not wait: a terminal sends it to all processes of a program, so only the one
 * that the user started obeys. A second SIGTERM does not, as a supervisor may send one after the terminal's SIGINT.
 *
 * @param force Ends the process at once. Default: exits it.
 * @returns A disposable that removes the signal listeners.
 */
export function onTermination(
  stop: () => void,
  force: () => void = () => Deno.exit(INTERRUPTED),
): Disposable {
  let stopped = false;
  let interrupted = Infinity;
  const terminate = () => {
    if (!stopped) stop();
    stopped = true;
  };
  const interrupt = async () => {
    const now = performance.now();
    interrupted = Math.min(interrupted, now);
    terminate();
    if (now - interrupted >= FORCE_AFTER && !await hasSupervisor()) force();
  };
  const hasSIGTERM = Deno.build.os !== "windows";
  Deno.addSignalListener("SIGINT", interrupt);
  if (hasSIGTERM) Deno.addSignalListener("SIGTERM", terminate);
  return {
    [Symbol.dispose]() {
      Deno.removeSignalListener("SIGINT", interrupt);
      if (hasSIGTERM) Deno.removeSignalListener("SIGTERM", terminate);
    },
  };
}

/** Returns whether another process of the program started this one, rather than the user. */
async function hasSupervisor(): Promise<boolean> {
  const { default: process } = await import("node:process");
  return process.send !== undefined;
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
