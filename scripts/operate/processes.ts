/** Programs and what they take, from `/proc`. */

/** A line that a program has written, and when, in the time of `performance.now()`. */
export interface Line {
  at: number;
  text: string;
}

/** A program that runs until it is stopped, and the lines that it has written to stderr. */
export class Operated {
  readonly child: Deno.ChildProcess;
  readonly lines: Line[] = [];
  /** How it ended. */
  status: Deno.CommandStatus | undefined;

  constructor(command: string, args: string[], env: Record<string, string> = {}) {
    this.child = new Deno.Command(command, {
      args,
      env: { NO_COLOR: "1", ...env },
      stdin: "null",
      stdout: "null",
      stderr: "piped",
    }).spawn();
    this.child.status.then((status) => this.status = status);
    this.#read();
  }

  async #read(): Promise<void> {
    let rest = "";
    for await (const part of this.child.stderr.pipeThrough(new TextDecoderStream())) {
      const lines = (rest + part).split("\n");
      rest = lines.pop()!;
      for (const text of lines) this.lines.push({ at: performance.now(), text });
    }
  }

  /** Waits for its end, and kills it after a while. */
  async stop(signal: Deno.Signal, ms: number): Promise<void> {
    const kill = (signal: Deno.Signal) => this.status ?? this.child.kill(signal);
    kill(signal);
    const timer = setTimeout(() => kill("SIGKILL"), ms);
    await this.child.status;
    clearTimeout(timer);
  }
}

/** What a process takes. */
export interface Use {
  pid: number;
  /** In bytes. */
  rss: number;
  descriptors: number;
}

/** Returns what a process takes; undefined if it has ended. */
export function useOf(pid: number): Use | undefined {
  try {
    const status = Deno.readTextFileSync(`/proc/${pid}/status`);
    if (/^State:\s+Z/m.test(status)) return undefined;
    const rss = Number(/^VmRSS:\s+(\d+) kB/m.exec(status)?.[1] ?? 0) * 1024;
    return { pid, rss, descriptors: [...Deno.readDirSync(`/proc/${pid}/fd`)].length };
  } catch {
    return undefined;
  }
}

/** Returns the process ids of the children of a process. */
export function childrenOf(pid: number): number[] {
  const threads = [...Deno.readDirSync(`/proc/${pid}/task`)].map(({ name }) => name);
  return threads.flatMap((thread) => {
    try {
      const children = Deno.readTextFileSync(`/proc/${pid}/task/${thread}/children`);
      return children.split(" ").filter((word) => word !== "").map(Number);
    } catch {
      // The thread has ended.
      return [];
    }
  });
}

/** Returns how many of some processes are zombies. */
export function zombies(pids: number[]): number {
  return pids.filter((pid) => {
    try {
      return /^State:\s+Z/m.test(Deno.readTextFileSync(`/proc/${pid}/status`));
    } catch {
      return false;
    }
  }).length;
}
