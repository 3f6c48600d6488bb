import { exit } from "./exit.ts";
import { thisProcess } from "./node_process.ts";
import { denoOnly, runtime, type RuntimeSignal } from "../io/runtime.ts";

/** How long after the first SIGINT another one forces the end, in milliseconds. */
const FORCE_AFTER = 1000;
/** The exit code of a program that SIGINT ends. */
const INTERRUPTED = 130;
/** The exit code of a program that SIGTERM ends. */
const TERMINATED = 143;

/** Waits until a server has stopped. SIGTERM and SIGINT shut it down. */
export async function runUntilTerminated(
  server: { readonly finished: Promise<void>; shutdown(): Promise<void> },
): Promise<void> {
  // If shutdown() rejects, so does finished.
  using _ = onTermination(() => server.shutdown().catch(() => {}));
  await server.finished;
}

/** Options of {@linkcode onTermination}. */
export interface TerminationOptions {
  /** Ends the process at once. @default exits it with 130 */
  force?: () => void;
  /** Whether SIGHUP, which a terminal sends when it closes, counts as SIGTERM. @default false */
  hangup?: boolean;
}

/**
 * Calls back once at SIGTERM or SIGINT instead of ending the process. A SIGINT at least a second after the first forces
 * the end, so that a user at a terminal need not wait: a terminal sends it to all processes of a program, so only the one
 * that the user started obeys. A second SIGTERM does not, as a supervisor may send one after the terminal's SIGINT.
 *
 * @returns A disposable that removes the signal listeners.
 */
export function onTermination(
  stop: () => void,
  { force = () => exit(INTERRUPTED), hangup = false }: TerminationOptions = {},
): Disposable {
  let stopped = false;
  let interrupted = Infinity;
  const terminate = () => {
    if (!stopped) stop();
    stopped = true;
  };
  const interrupt = () => {
    const now = performance.now();
    interrupted = Math.min(interrupted, now);
    terminate();
    if (now - interrupted >= FORCE_AFTER && !hasSupervisor()) force();
  };
  const terminating: RuntimeSignal[] = hangup ? ["SIGHUP"] : [];
  if (runtime.build.os !== "windows") terminating.push("SIGTERM");
  // Spawners send SIGUSR1 for the same. Node would open its inspector, as Deno does whatever listens, and Bun would end.
  if (denoOnly === undefined && runtime.build.os !== "windows") terminating.push("SIGUSR1");
  runtime.addSignalListener("SIGINT", interrupt);
  for (const signal of terminating) runtime.addSignalListener(signal, terminate);
  starting?.[Symbol.dispose]();
  starting = undefined;
  return {
    [Symbol.dispose]() {
      runtime.removeSignalListener("SIGINT", interrupt);
      for (const signal of terminating) runtime.removeSignalListener(signal, terminate);
    },
  };
}

/** The listeners of a process that starts. */
let starting: Disposable | undefined;

/**
 * Lets SIGTERM and SIGINT end this process while it starts, up to {@linkcode onTermination}, even if it is process 1, that
 * of a container: the system drops the signals of that process that it does not listen to.
 */
export function endWhileStarting(): void {
  if (runtime.pid !== 1) return;
  const codes = { SIGTERM: TERMINATED, SIGINT: INTERRUPTED };
  const listeners = Object.entries(codes).map(([signal, code]) =>
    [signal as RuntimeSignal, () => exit(code)] as const
  );
  for (const [signal, exit] of listeners) runtime.addSignalListener(signal, exit);
  starting = {
    [Symbol.dispose]() {
      for (const [signal, exit] of listeners) runtime.removeSignalListener(signal, exit);
    },
  };
}

/** Returns whether another process of the program started this one, rather than the user. */
function hasSupervisor(): boolean {
  return thisProcess().send !== undefined;
}

/**
 * Calls back at SIGHUP instead of ending the process. At a terminal, where SIGHUP means that the terminal closes, it
 * still ends the process.
 *
 * @returns A disposable that removes the signal listener.
 */
export function onHangup(callback: () => void): Disposable {
  if (runtime.stdin.isTerminal()) return { [Symbol.dispose]() {} };
  runtime.addSignalListener("SIGHUP", callback);
  return { [Symbol.dispose]: () => runtime.removeSignalListener("SIGHUP", callback) };
}
