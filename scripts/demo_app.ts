/**
 * The demonstration: the examples as CGI scripts and as daemons over FastCGI, SCGI and HTTP, behind one handler.
 *
 * @module
 */

import { type Address, cgiGateway, fastCGIGateway, scgiGateway } from "../gateway.ts";
import {
  type Example,
  exampleCard,
  EXAMPLES,
  type Measurement,
  pageEnd,
  pageHead,
  pathOf,
  type Transport,
  TRANSPORTS,
} from "./demo_page.ts";

const ROOT = new URL("..", import.meta.url).pathname;
const SAMPLES = 3;
/** The client of a measurement. */
const INFO: Deno.ServeHandlerInfo = {
  remoteAddr: { transport: "tcp", hostname: "127.0.0.1", port: 0 },
  completed: Promise.resolve(),
};
type Upstream = (request: Request, info: Deno.ServeHandlerInfo) => Promise<Response> | Response;

/** The demonstration, while its daemons run. */
export class Demo implements AsyncDisposable {
  readonly #directory = Deno.makeTempDirSync({ prefix: "gatehouse-demo-" });
  readonly #secret: string = crypto.randomUUID();
  readonly #daemons: Deno.ChildProcess[] = [];
  readonly #upstreams = new Map<string, Upstream>();

  private constructor() {}

  /** Starts the daemons, and resolves when all of them listen. */
  static async start(): Promise<Demo> {
    const demo = new Demo();
    try {
      await demo.#start();
    } catch (error) {
      await demo[Symbol.asyncDispose]();
      throw error;
    }
    return demo;
  }

  async #start(): Promise<void> {
    const scripts = cgiGateway({
      root: `${ROOT}examples`,
      basePath: "/cgi",
      permissions: { "/": this.#permissions() },
      env: this.#environment(),
      allowedHosts: [],
    });
    const starts: Promise<void>[] = [];
    for (const example of EXAMPLES) {
      this.#upstreams.set(pathOf("CGI", example), scripts);
      for (const transport of TRANSPORTS) {
        if (transport !== "CGI") starts.push(this.#startDaemon(example, transport));
      }
    }
    await Promise.all(starts);
  }

  /** Each example runs with these permissions. */
  #permissions(): string[] {
    return ["--allow-env", `--allow-read=${this.#directory}`, `--allow-write=${this.#directory}`];
  }

  /** The whole environment of the examples, without variables of the shell that they could show. */
  #environment(): Record<string, string> {
    return {
      PATH: "/usr/local/bin:/usr/bin:/bin",
      DENO_DIR: cacheDirectory(),
      NO_COLOR: "1",
      GUESTBOOK: `${this.#directory}/guestbook.db`,
      SESSION_SECRET: this.#secret,
    };
  }

  async #startDaemon(example: Example, transport: Exclude<Transport, "CGI">): Promise<void> {
    const mount = pathOf(transport, example);
    const importMap = Deno.env.get("GATEHOUSE_IMPORT_MAP");
    const protocol = transport.toLowerCase();
    const listen = transport === "HTTP"
      ? "127.0.0.1:0"
      : `unix:${this.#directory}/${example.name}.${protocol}.sock`;
    const daemon = new Deno.Command(Deno.execPath(), {
      cwd: ROOT,
      args: [
        "run",
        "--no-prompt",
        ...(importMap ? [`--import-map=${importMap}`] : []),
        ...this.#permissions().map((flag) =>
          flag.startsWith("--allow-read") ? "--allow-read" : flag
        ),
        "--allow-net",
        "cli.ts",
        "serve",
        `examples/${example.name}.ts`,
        "--protocol",
        protocol,
        "--base-path",
        mount,
        "--listen",
        listen,
      ],
      clearEnv: true,
      env: this.#environment(),
      stdin: "null",
      stderr: "piped",
    }).spawn();
    this.#daemons.push(daemon);
    const address = await addressOf(daemon);
    if (transport === "HTTP") {
      this.#upstreams.set(mount, (request) => forward(request, address));
      return;
    }
    const createGateway = transport === "FastCGI" ? fastCGIGateway : scgiGateway;
    this.#upstreams.set(mount, createGateway(address as Address, { allowedHosts: [] }));
  }

  /** Responds with the page, or passes the request to the example that the path names. */
  readonly fetch = async (
    request: Request,
    info: Deno.ServeHandlerInfo = INFO,
  ): Promise<Response> => {
    const { pathname, origin } = new URL(request.url);
    if (pathname === "/") return this.#page(origin);
    const mount = /^\/[a-z]+\/[a-z]+\.ts(?=\/|$)/.exec(pathname)?.[0];
    const upstream = this.#upstreams.get(mount ?? "");
    return await upstream?.(request, info) ?? new Response("Not found\n", { status: 404 });
  };

  /** Streams the page: each example appears as soon as it is measured. */
  #page(origin: string): Response {
    const page = ReadableStream.from(this.#parts(origin));
    return new Response(page.pipeThrough(new TextEncoderStream()), {
      headers: {
        "content-type": "text/html; charset=utf-8",
        "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'",
        "cache-control": "no-store",
      },
    });
  }

  async *#parts(origin: string): AsyncGenerator<string> {
    yield pageHead();
    for (const example of EXAMPLES) {
      const measurements = {} as Record<Transport, Measurement>;
      for (const transport of TRANSPORTS) {
        const target = pathOf(transport, example) + (example.measured ?? example.path);
        measurements[transport] = await this.#measure(origin + target);
      }
      yield exampleCard(example, measurements);
    }
    yield pageEnd();
  }

  /** Returns the median time of some requests after a first one. */
  async #measure(url: string): Promise<Measurement> {
    const times: number[] = [];
    for (let i = 0; i <= SAMPLES; i++) {
      const start = performance.now();
      const response = await this.fetch(new Request(url));
      await response.arrayBuffer();
      if (!response.ok) return { failure: `${response.status} ${response.statusText}`.trim() };
      if (i > 0) times.push(performance.now() - start);
    }
    return times.sort((a, b) => a - b)[SAMPLES >> 1];
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const daemon of this.#daemons) {
      try {
        daemon.kill("SIGTERM");
      } catch {
        // It has ended.
      }
    }
    await Promise.all(this.#daemons.map((daemon) => daemon.status));
    await Deno.remove(this.#directory, { recursive: true });
  }
}

/** Forwards a request to an HTTP daemon. */
async function forward(request: Request, address: string): Promise<Response> {
  const { host, pathname, search } = new URL(request.url);
  const headers = new Headers(request.headers);
  headers.set("host", host);
  return await fetch(`http://${address}${pathname}${search}`, {
    method: request.method,
    headers,
    body: request.body,
    redirect: "manual",
    signal: request.signal,
  });
}

/** Waits for the line on stderr with the address of a daemon. */
async function addressOf(daemon: Deno.ChildProcess): Promise<string> {
  let text = "";
  const decoder = new TextDecoder();
  for await (const chunk of daemon.stderr.values({ preventCancel: true })) {
    text += decoder.decode(chunk, { stream: true });
    const address = / on (\S+)/.exec(text)?.[1];
    if (address !== undefined) {
      daemon.stderr.pipeTo(Deno.stderr.writable, { preventClose: true }).catch(() => {});
      return address;
    }
  }
  throw new Error(`Cannot start a daemon of the demonstration: ${text}`);
}

function cacheDirectory(): string {
  const { stdout } = new Deno.Command(Deno.execPath(), { args: ["info", "--json"] }).outputSync();
  return JSON.parse(new TextDecoder().decode(stdout)).denoDir;
}
