/** Runs the load generator, load.c. */

import { cores, output, pinned, Process, which } from "./process.ts";
import type { Protocol, RequestBytes } from "./requests.ts";

/** What the generator sends, and how. */
export interface Run {
  protocol: Protocol;
  port: number;
  request: RequestBytes;
  connections: number;
  /** How long it sends requests, in seconds. */
  seconds: number;
  /** How many responses end the run. @default Infinity */
  maxResponses?: number;
  /** Whether a connection carries many requests. @default true */
  keep?: boolean;
}

/** What the generator measured. */
export interface Report {
  requests: number;
  errors: number;
  /** How often the server closed a connection despite a request to keep it open. */
  reopened: number;
  seconds: number;
  /** The bytes in the responses. */
  content: number;
  /** The tildes in the responses, one for each event. */
  events: number;
  /** The median latency, and the 99th percentile, in microseconds. */
  p50: number;
  p99: number;
  /** The share of its core that the generator used. */
  busy: number;
}

/** Connections that stay open. */
export interface OpenConnections {
  /** Resolves when the run is over. */
  report(): Promise<Report>;
  stop(): Promise<void>;
}

/** Sends requests to one server after the other. */
export class Generator {
  /** A program that runs another many times and measures it, start.c. */
  readonly starter: string;
  #command: string[];
  #directory: string;
  #files = new Map<RequestBytes, string>();

  private constructor(command: string[], starter: string, directory: string) {
    this.#command = command;
    this.starter = starter;
    this.#directory = directory;
  }

  /** @param directory A directory for its files, which the caller removes. */
  static async create(directory: string): Promise<Generator> {
    const compiler = which("cc", "gcc", "clang");
    if (compiler === undefined || Deno.build.os !== "linux") {
      throw new Error(
        "Cannot measure as the load generator needs Linux and a C compiler. On Debian: apt-get install gcc libc6-dev",
      );
    }
    const compile = (name: string) =>
      output([compiler, "-O2", "-o", `${directory}/${name}`, `${import.meta.dirname}/${name}.c`]);
    await Promise.all([compile("load"), compile("start")]);
    return new Generator([`${directory}/load`], `${directory}/start`, directory);
  }

  /** Sends requests, and returns the measurements. */
  async run(run: Run): Promise<Report> {
    return JSON.parse(await output(pinned(cores?.load, await this.#arguments(run, false))));
  }

  /** Sends one request on each connection and keeps all open. Resolves when each has got a part of a response. */
  async keepOpen(run: Run): Promise<OpenConnections> {
    const process = new Process(await this.#arguments(run, true), {
      core: cores?.load,
      stdout: "piped",
    });
    const word = await process.nextLine();
    if (word !== "open") {
      throw new Error(
        `Cannot open connections as the generator must print "open": it printed ${word}`,
      );
    }
    return {
      report: async () => JSON.parse(await process.nextLine()),
      stop: () => process.stop(),
    };
  }

  async #arguments(run: Run, keepOpen: boolean): Promise<string[]> {
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
      run.maxResponses ?? 0,
      run.keep === false ? 0 : 1,
      keepOpen ? 1 : 0,
      path,
      whole ? head.length + body.length + tail.length : head.length,
      whole ? 0 : body.length,
      times,
    ].map(String);
  }
}
