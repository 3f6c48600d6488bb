/** Runs the load generator, load.c. */

import { cores, output, pinned, Process, which } from "./process.ts";
import type { Protocol, RequestBytes } from "./requests.ts";

/** What is to be asked, and how. */
export interface Run {
  protocol: Protocol;
  port: number;
  request: RequestBytes;
  connections: number;
  /** How long, in seconds. */
  seconds: number;
  /** How many answers are enough. @default Infinity */
  most?: number;
  /** Whether a connection is for many requests. @default true */
  keep?: boolean;
}

/** What the generator saw. */
export interface Seen {
  requests: number;
  errors: number;
  /** How often the server closed a connection that it was asked to keep. */
  reopened: number;
  seconds: number;
  /** Bytes of answers. */
  content: number;
  /** Tildes in them. */
  events: number;
  /** Latency, in microseconds. */
  p50: number;
  p99: number;
  /** The share of its processor that it took. */
  busy: number;
}

/** Connections that stay open. */
export interface Held {
  /** Resolves when the time is over. */
  seen(): Promise<Seen>;
  stop(): Promise<void>;
}

/** Asks one server after the other. */
export class Generator {
  /** A program that runs another many times, and times it. */
  readonly starter: string;
  #command: string[];
  #directory: string;
  #files = new Map<RequestBytes, string>();

  private constructor(command: string[], starter: string, directory: string) {
    this.#command = command;
    this.starter = starter;
    this.#directory = directory;
  }

  /** @param directory Where it may leave files. */
  static async create(directory: string): Promise<Generator> {
    const compiler = which("cc", "gcc", "clang");
    if (compiler === undefined || Deno.build.os !== "linux") {
      throw new Error(
        "Cannot measure as the load generator needs Linux and a C compiler: apt-get install gcc libc6-dev",
      );
    }
    const compile = (name: string) =>
      output([compiler, "-O2", "-o", `${directory}/${name}`, `${import.meta.dirname}/${name}.c`]);
    await Promise.all([compile("load"), compile("start")]);
    return new Generator([`${directory}/load`], `${directory}/start`, directory);
  }

  /** Asks, and tells what was seen. */
  async run(run: Run): Promise<Seen> {
    return JSON.parse(await output(pinned(cores?.load, await this.#arguments(run, false))));
  }

  /** Asks once on each connection, and leaves all open; resolves when all have got something. */
  async hold(run: Run): Promise<Held> {
    const process = new Process(await this.#arguments(run, true), {
      core: cores?.load,
      stdout: "piped",
    });
    const word = await process.nextLine();
    if (word !== "open") throw new Error(`it must say that all are open: it said ${word}`);
    return {
      seen: async () => JSON.parse(await process.nextLine()),
      stop: () => process.stop(),
    };
  }

  async #arguments(run: Run, hold: boolean): Promise<string[]> {
    const { head, body, times, tail } = run.request;
    let path = this.#files.get(run.request);
    if (path === undefined) {
      path = `${this.#directory}/request-${this.#files.size}`;
      this.#files.set(run.request, path);
      await Deno.writeFile(path, new Blob([head, body, tail] as BlobPart[]).stream());
    }
    const whole = times === 1;
    return [
      ...this.#command,
      run.protocol,
      run.port,
      run.connections,
      run.seconds,
      run.most ?? 0,
      run.keep === false ? 0 : 1,
      hold ? 1 : 0,
      path,
      whole ? head.length + body.length + tail.length : head.length,
      whole ? 0 : body.length,
      times,
    ].map(String);
  }
}
