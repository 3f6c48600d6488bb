/**
 * Lets tests that are written for Deno run on Node and Bun: what they use of `Deno`, on modules of `node:`. The code under
 * test has chosen its adapter before.
 */
import { runtime } from "../../io/runtime.ts";
import { connectNode, NodeConnection } from "../../io/node_socket.ts";
import { DIFFERENT } from "./different.ts";
import * as fs from "node:fs";
import { createServer, type Server } from "node:net";
import { tmpdir } from "node:os";
import { argv, env, exit } from "node:process";

if ("Deno" in globalThis) throw new Error("There must be no Deno global: there is one");

type Step = { name: string; fn: (t: Context) => unknown; ignore?: boolean };
interface Context {
  name: string;
  step(step: string | Step, fn?: Step["fn"]): Promise<boolean>;
}

const tests: Step[] = [];
const afterAll: (() => unknown)[] = [];
const counts = { passed: 0, failed: 0, skipped: 0 };

function register(first: string | Step, second?: Step["fn"] | object, third?: Step["fn"]): void {
  tests.push(
    typeof first === "string"
      ? { ...second, name: first, fn: (third ?? second) as Step["fn"] }
      : first,
  );
}

async function run({ name, fn, ignore }: Step, path = ""): Promise<boolean> {
  const title = path + name;
  const why = DIFFERENT[name];
  if (ignore || why !== undefined) {
    counts.skipped++;
    return true;
  }
  let passed = true;
  const step: Context["step"] = async (step, fn) => {
    const done = await run(
      typeof step === "string" ? { name: step, fn: fn! } : step,
      `${title} > `,
    );
    passed &&= done;
    return done;
  };
  try {
    await fn({ name, step });
    counts[passed ? "passed" : "failed"]++;
  } catch (error) {
    passed = false;
    counts.failed++;
    console.log(`FAILED: ${title}\n${(error as Error).stack ?? error}`);
  }
  return passed;
}

/** Runs all tests that are registered. */
export async function runAll(): Promise<void> {
  // Several processes share the tests.
  const [part, parts] = argv.slice(2).map(Number);
  for (const [at, test] of tests.entries()) {
    if (at % parts === part) await run(test);
  }
  for (const end of afterAll) await end();
  console.log(`${counts.passed} passed, ${counts.failed} failed, ${counts.skipped} skipped`);
  exit(counts.failed > 0 || counts.passed === 0 ? 1 : 0);
}

/** A listener that listens at once: node:net looks up the name of a host first. */
class Listener {
  readonly addr: object;
  #server: Server;
  #connections: NodeConnection[] = [];
  #waiting: (() => void) | undefined;
  #closed = false;

  constructor({ path }: { path?: string }) {
    this.#server = createServer({ allowHalfOpen: true, pauseOnConnect: true }, (socket) => {
      this.#connections.push(new NodeConnection(socket));
      this.#waiting?.();
    });
    this.#server.listen(path === undefined ? { port: 0 } : { path });
    const bound = this.#server.address();
    this.addr = typeof bound === "string"
      ? { transport: "unix", path: bound }
      : { transport: "tcp", hostname: "127.0.0.1", port: bound!.port };
  }

  async accept(): Promise<NodeConnection> {
    const { done, value } = await this.next();
    if (done) throw new Error("The listener is closed");
    return value;
  }

  async next(): Promise<IteratorResult<NodeConnection>> {
    while (!this.#closed || this.#connections.length > 0) {
      const value = this.#connections.shift();
      if (value !== undefined) return { done: false, value };
      await new Promise<void>((resolve) => this.#waiting = resolve);
    }
    return { done: true, value: undefined };
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  close(): void {
    this.#closed = true;
    this.#server.close();
    this.#waiting?.();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  ref(): void {
    this.#server.ref();
  }

  unref(): void {
    this.#server.unref();
  }
}

/** Classes of errors that tests throw, or look for. */
function errorWith(code: string): new (message?: string) => Error {
  return class extends Error {
    readonly code = code;
    static override [Symbol.hasInstance](value: unknown): boolean {
      return (value as { code?: unknown } | null)?.code === code;
    }
  };
}

/** A Request whose body may be a stream without `duplex`, as on Deno. */
class LaxRequest extends Request {
  constructor(input: RequestInfo | URL, init?: RequestInit) {
    super(input, init?.body ? { duplex: "half", ...init } as RequestInit : init);
  }
}

Object.assign(globalThis, {
  Request: LaxRequest,
  Deno: {
    test: Object.assign(register, {
      ignore: () => counts.skipped++,
      afterAll: (end: () => unknown) => afterAll.push(end),
    }),
    errors: {
      ...runtime.errors,
      BadResource: errorWith("EBADF"),
      BrokenPipe: errorWith("EPIPE"),
      ConnectionReset: errorWith("ECONNRESET"),
    },
    env: {
      get: (name: string) => env[name],
      set: (name: string, value: string) => void (env[name] = value),
      delete: (name: string) => void delete env[name],
    },
    listen: (options: { path?: string }) => new Listener(options),
    connect: (options: { path?: string; hostname?: string; port?: number }) =>
      connectNode(
        options.path === undefined
          ? { transport: "tcp", hostname: options.hostname ?? "127.0.0.1", port: options.port! }
          : { transport: "unix", path: options.path },
      ),
    makeTempDir: () => fs.promises.mkdtemp(`${tmpdir()}/gatehouse`),
    makeTempDirSync: () => fs.mkdtempSync(`${tmpdir()}/gatehouse`),
    remove: (path: string) => fs.promises.rm(path, { recursive: true }),
    writeTextFile: (path: string, text: string) => fs.promises.writeFile(path, text),
    writeTextFileSync: (path: string, text: string) => fs.writeFileSync(path, text),
    readTextFile: (path: string) => fs.promises.readFile(path, "utf8"),
    readTextFileSync: (path: string | URL) => fs.readFileSync(path, "utf8"),
    build: runtime.build,
    mainModule: runtime.mainModule,
    pid: runtime.pid,
    get exitCode() {
      return runtime.exitCode;
    },
    set exitCode(code: number) {
      runtime.exitCode = code;
    },
  },
});
