import { deadline, eventually } from "./deadline.ts";

/** Returns whether a process runs. */
export function isAlive(pid: number): boolean {
  try {
    Deno.kill(pid, "SIGCONT");
    return true;
  } catch {
    return false;
  }
}

/** Waits until a process has ended. */
export async function ended(pid: number): Promise<void> {
  await eventually(`the end of process ${pid}`, () => !isAlive(pid));
}

/** Sends SIGINT again and again until a promise is settled: the first one asks for the end, one a second later forces it. */
export async function interruptUntil(pid: number, end: Promise<unknown>): Promise<void> {
  const interrupt = () => {
    try {
      Deno.kill(pid, "SIGINT");
    } catch {
      // It has ended.
    }
  };
  interrupt();
  const timer = setInterval(interrupt, 1100);
  await deadline(end, "the end at SIGINT").finally(() => clearInterval(timer));
}

/** Suspends a process, and resolves when it stands still. Disposing of the result lets it go on. */
export async function suspend({ pid }: { pid: number }): Promise<Disposable> {
  Deno.kill(pid, "SIGSTOP");
  const check = async () => {
    for (;;) {
      const { stdout } = await new Deno.Command("cat", { args: [`/proc/${pid}/stat`] }).output();
      if (/ T /.test(new TextDecoder().decode(stdout))) return;
    }
  };
  await deadline(check(), `process ${pid} to stand still`);
  return { [Symbol.dispose]: () => Deno.kill(pid, "SIGCONT") };
}
