/** Starts, measures and ends the processes under load. */

const LINUX = Deno.build.os === "linux";
const START_TIMEOUT = 20_000;
const POLL = 20;
/** How long no process may have been added for their number to be final, in milliseconds. */
const SETTLED = 1000;
/** Ticks of /proc/PID/stat per second, on all usual Linux systems. */
const TICKS = 100;

/** Runs a command and returns its output. */
export async function output(
  command: string[],
  options: Deno.CommandOptions = {},
): Promise<string> {
  const [name, ...args] = command;
  const { success, stdout, stderr } = await new Deno.Command(name, {
    stdin: "null",
    ...options,
    args,
  }).output();
  if (!success) {
    throw new Error(`Cannot run ${name}: ${new TextDecoder().decode(stderr).trim().slice(0, 500)}`);
  }
  return new TextDecoder().decode(stdout);
}

/** Returns the path of the first installed program. */
export function which(...names: string[]): string | undefined {
  const directories = [...(Deno.env.get("PATH") ?? "").split(":"), "/usr/sbin", "/usr/local/sbin"];
  for (const name of names) {
    for (const directory of directories) {
      try {
        if (Deno.statSync(`${directory}/${name}`).isFile) return `${directory}/${name}`;
      } catch {
        // It does not exist.
      }
    }
  }
  return undefined;
}

/** The cores of the server and of the load, or undefined if there are no two or no `taskset`. */
export const cores: { server: number; load: number } | undefined = chooseCores();

function chooseCores(): { server: number; load: number } | undefined {
  if (!LINUX || which("taskset") === undefined) return;
  const status = Deno.readTextFileSync("/proc/self/status");
  const allowed = /Cpus_allowed_list:\s*(\S+)/.exec(status)?.[1].split(",").flatMap((range) => {
    const [from, to = from] = range.split("-").map(Number);
    return Array.from({ length: to - from + 1 }, (_, i) => from + i);
  }) ?? [];
  if (allowed.length < 2) return;
  const server = allowed[0];
  return { server, load: allowed.find((core) => !siblings(server).includes(core)) ?? allowed[1] };
}

/** Returns the logical processors on the same core as this one, itself included. */
function siblings(core: number): number[] {
  try {
    const path = `/sys/devices/system/cpu/cpu${core}/topology/thread_siblings_list`;
    return Deno.readTextFileSync(path).trim().split(/[,-]/).map(Number);
  } catch {
    return [core];
  }
}

/** Returns the time that all programs have used on the server's core, in microseconds, or NaN if there is none. */
export function coreTime(): number {
  if (cores === undefined) return NaN;
  const line = new RegExp(`^cpu${cores.server} (.*)$`, "m").exec(
    Deno.readTextFileSync("/proc/stat"),
  );
  const [user, nice, system, _idle, _wait, _irq, _softirq, steal] = line![1].split(" ").map(Number);
  return (user + nice + system + steal) / TICKS * 1e6;
}

/** A command line that runs on one processor. */
export function pinned(core: number | undefined, command: string[]): string[] {
  return core === undefined ? command : ["taskset", "-c", String(core), ...command];
}

/** A port that nobody listens on. */
export function freePort(): number {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const { port } = listener.addr;
  listener.close();
  return port;
}

/** A process and its children. */
export class Process {
  readonly pid: number;
  /** The end of what it wrote to stderr. */
  errors = "";
  #child: Deno.ChildProcess;
  #ended = false;
  #lines: ReadableStreamDefaultReader<string> | undefined;
  /** The process and its children. Found once, after the warm-up: it starts no more of them later. */
  #family: Promise<number[]> | undefined;

  /** @param options.stdout "piped" to be read by nextLine(). */
  constructor(
    command: string[],
    options: { core?: number; stdout?: "piped"; env?: Record<string, string> } = {},
  ) {
    const [name, ...args] = pinned(options.core, command);
    this.#child = new Deno.Command(name, {
      args,
      env: options.env,
      stdin: "null",
      stdout: options.stdout ?? "null",
      stderr: "piped",
    }).spawn();
    this.pid = this.#child.pid;
    this.#child.status.then(() => this.#ended = true);
    this.#listen();
    if (options.stdout === "piped") this.#lines = linesOf(this.#child.stdout).getReader();
  }

  async #listen(): Promise<void> {
    for await (const text of this.#child.stderr.pipeThrough(new TextDecoderStream())) {
      this.errors = (this.errors + text).slice(-1000);
    }
  }

  /** Waits until it accepts connections. */
  async listening(port: number): Promise<this> {
    const deadline = performance.now() + START_TIMEOUT;
    while (performance.now() < deadline && !this.#ended) {
      try {
        (await Deno.connect({ hostname: "127.0.0.1", port })).close();
        return this;
      } catch {
        await new Promise((resolve) => setTimeout(resolve, POLL));
      }
    }
    const fault = this.#ended ? "it ended at once" : `it did not listen in ${START_TIMEOUT} ms`;
    await this.stop();
    throw new Error(`Cannot start server as ${fault}: ${this.errors}`);
  }

  /** Returns the next line that it prints. */
  async nextLine(): Promise<string> {
    const { value, done } = await this.#lines!.read();
    if (done) throw new Error("Cannot read a line as the process must print one: it ended");
    return value;
  }

  kill(signal: Deno.Signal): void {
    try {
      this.#child.kill(signal);
    } catch {
      // It has ended.
    }
  }

  async stop(): Promise<void> {
    this.kill("SIGTERM");
    const timer = setTimeout(() => this.kill("SIGKILL"), 3000);
    await this.#child.status;
    clearTimeout(timer);
    await this.#lines?.cancel();
  }

  /** Returns the processor time of the process and its children, in microseconds. */
  async processorTime(): Promise<number> {
    let sum = 0;
    for (const pid of await this.#members()) sum += await processorTime(pid);
    return sum;
  }

  /** Returns the resident memory of the process and its children, in bytes. Pages that a fork shares count twice. */
  async memory(): Promise<number> {
    return await this.#sum("VmRSS", "rss");
  }

  /**
   * Returns the memory of the process and its children, in bytes, with shared pages divided by those who share them. Waits
   * until it starts no more of them.
   */
  async sharedMemory(): Promise<{ processes: number; bytes: number }> {
    let members: number[] = [];
    for (let before = 0; members.length === 0 || members.length !== before;) {
      before = members.length;
      await new Promise((resolve) => setTimeout(resolve, SETTLED));
      members = await familyOf(this.pid);
    }
    const bytes = LINUX
      ? members.reduce((sum, pid) => {
        const text = Deno.readTextFileSync(`/proc/${pid}/smaps_rollup`);
        return sum + Number(/^Pss:\s+(\d+)/m.exec(text)![1]) * 1024;
      }, 0)
      : NaN;
    return { processes: members.length, bytes };
  }

  /** Returns the peak memory since {@linkcode forgetPeak}, in bytes, or NaN on systems other than Linux. */
  async peak(): Promise<number> {
    return LINUX ? await this.#sum("VmHWM", "rss") : NaN;
  }

  async forgetPeak(): Promise<void> {
    if (!LINUX) return;
    for (const pid of await this.#members()) Deno.writeTextFileSync(`/proc/${pid}/clear_refs`, "5");
  }

  async #sum(field: string, column: string): Promise<number> {
    let sum = 0;
    for (const pid of await this.#members()) {
      const kibibytes = LINUX
        ? new RegExp(`${field}:\\s+(\\d+)`).exec(Deno.readTextFileSync(`/proc/${pid}/status`))?.[1]
        : await ps(pid, column);
      sum += Number(kibibytes) * 1024;
    }
    return sum;
  }

  #members(): Promise<number[]> {
    return this.#family ??= familyOf(this.pid);
  }
}

async function familyOf(root: number): Promise<number[]> {
  const text = await output(["ps", "-A", "-o", "pid=,ppid="]);
  const children = Map.groupBy(
    text.trim().split("\n").map((line) => line.trim().split(/\s+/).map(Number)),
    ([_, parent]) => parent,
  );
  const family = [root];
  for (const pid of family) family.push(...(children.get(pid) ?? []).map(([child]) => child));
  return family;
}

function linesOf(stream: ReadableStream<Uint8Array<ArrayBuffer>>): ReadableStream<string> {
  let rest = "";
  return stream.pipeThrough(new TextDecoderStream()).pipeThrough(
    new TransformStream({
      transform(text, controller) {
        const lines = (rest + text).split("\n");
        rest = lines.pop()!;
        for (const line of lines) controller.enqueue(line);
      },
    }),
  );
}

async function processorTime(pid: number): Promise<number> {
  if (LINUX) return threadTime(pid) ?? tickTime(pid);
  // [[dd-]hh:]mm:ss[.ff]
  const [seconds, minutes, hours = 0, days = 0] = (await ps(pid, "time")).split(/[:-]/)
    .reverse().map(Number);
  return (((days * 24 + hours) * 60 + minutes) * 60 + seconds) * 1e6;
}

/** Returns the time of all threads that run, to the nanosecond, or undefined if the kernel does not count it. */
function threadTime(pid: number): number | undefined {
  let sum = 0;
  try {
    for (const { name } of Deno.readDirSync(`/proc/${pid}/task`)) {
      const [nanoseconds] = Deno.readTextFileSync(`/proc/${pid}/task/${name}/schedstat`).split(" ");
      sum += Number(nanoseconds);
    }
  } catch {
    return undefined;
  }
  return sum / 1000;
}

function tickTime(pid: number): number {
  const stat = Deno.readTextFileSync(`/proc/${pid}/stat`);
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return (Number(fields[11]) + Number(fields[12])) / TICKS * 1e6;
}

async function ps(pid: number, column: string): Promise<string> {
  return (await output(["ps", "-o", `${column}=`, "-p", String(pid)])).trim();
}
