import { fetchFastCGI } from "../../gateway.ts";
import { Daemon, ROOT } from "./daemon.ts";
import { deadline } from "./deadline.ts";

/**
 * A worker that responds with its process id. `/die` ends it, `/slow` waits until a file exists, `/loop` never returns to
 * the event loop, and `/grow` takes 200 MiB of memory.
 */
export const WORKER = `
import { serve } from "${ROOT}mod.ts";
const directory = Deno.args[0];
await serve(async (request) => {
  const { pathname } = new URL(request.url);
  if (pathname === "/die") Deno.exit(3);
  if (pathname === "/slow") {
    Deno.writeTextFileSync(directory + "/begun", String(Deno.pid));
    while (!await Deno.stat(directory + "/go").catch(() => null)) {
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
  }
  if (pathname === "/grow") globalThis.taken = new Uint8Array(200 * 2 ** 20).fill(1);
  if (pathname === "/loop") {
    console.error("loops " + Deno.pid + ".");
    for (;;);
  }
  return new Response(String(Deno.pid));
});
`;
const SUPERVISOR = `
import { prefork } from "${ROOT}prefork.ts";
const [directory, listen, flags, options] = Deno.args;
await prefork({
  listen,
  workers: 2,
  command: ["run", "--no-prompt", ...flags.split(" "), directory + "/worker.ts", directory],
  onListen: (addr) => console.error("listening", JSON.stringify(addr)),
  ...JSON.parse(options, (_, value) => value === "Infinity" ? Infinity : value),
});
console.error("all ended");
`;

/** A program that calls `prefork()`, with two workers. */
export interface Fleet extends AsyncDisposable {
  daemon: Daemon;
  directory: string;
  /** Its address, or "" if it does not listen. */
  address: string;
}

/** How to start a {@linkcode Fleet}. */
export interface FleetOptions {
  /** The source of the worker, which has the directory as its argument. @default WORKER */
  worker?: string;
  /** The permissions of the program, given the path of its Unix socket. @default --allow-all */
  permissions?: (socket: string) => string[];
  /** The flags of a worker's `deno run`. @default reading, writing and the environment */
  flags?: string;
  /** Options of `prefork()`, other than its defaults here. "Infinity" is the number. */
  options?: Record<string, unknown>;
  /** Variables of its environment. */
  env?: Record<string, string>;
  /** The Deno to run it with. */
  deno?: string;
  /** Whether it leads a process group of its own. */
  detached?: boolean;
}

/** Starts a program with workers and waits until one serves. */
export async function startFleet(transport: string, given: FleetOptions = {}): Promise<Fleet> {
  const {
    worker = WORKER,
    permissions = () => ["--allow-all"],
    flags = "--allow-read --allow-write --allow-env",
    options = {},
    env,
    deno,
    detached,
  } = given;
  const directory = await Deno.makeTempDir();
  await Deno.writeTextFile(`${directory}/worker.ts`, worker);
  await Deno.writeTextFile(`${directory}/supervisor.ts`, SUPERVISOR);
  const listen = transport === "unix" ? `unix:${directory}/app.sock` : "127.0.0.1:0";
  const daemon = new Daemon(
    [
      ...permissions(`${directory}/app.sock`),
      `${directory}/supervisor.ts`,
      directory,
      listen,
      flags,
      JSON.stringify(options),
    ],
    { detached, env },
    "run",
    deno,
  );
  // Without a worker that serves, it exits before it listens.
  const address = await addressOf(daemon).catch(() => "");
  return {
    daemon,
    directory,
    address,
    async [Symbol.asyncDispose]() {
      await daemon.stop();
      await Deno.remove(directory, { recursive: true });
    },
  };
}

async function addressOf(daemon: Daemon): Promise<string> {
  await daemon.says("listening {");
  const addr = JSON.parse(/listening (\{.*)/.exec(daemon.log)![1]);
  return addr.path ? `unix:${addr.path}` : `${addr.hostname}:${addr.port}`;
}

/** Returns the text of a response, which is a worker's process id. */
export async function request(fleet: Fleet, path = "/"): Promise<string> {
  const response = await deadline(
    fetchFastCGI(`http://localhost${path}`, fleet.address as "unix:", { log: () => {} }),
    `a response to ${path}; the log: ${fleet.daemon.log}`,
  );
  return await response.text();
}

/** Sends requests until `count` workers have responded. Returns their process ids. */
export async function workers(
  fleet: Fleet,
  count: number,
  without: string[] = [],
): Promise<string[]> {
  const seen = new Set<string>();
  const requesting = (async () => {
    while (seen.size < count) {
      const pids = await Promise.all(Array.from({ length: 8 }, () => request(fleet)));
      for (const pid of pids) if (!without.includes(pid)) seen.add(pid);
    }
  })();
  await deadline(requesting, `responses of ${count} workers; the log: ${fleet.daemon.log}`, 30_000);
  return [...seen];
}

/** Makes a worker loop. @returns Its process id. */
export async function loop(fleet: Fleet): Promise<number> {
  const before = fleet.daemon.log.length;
  const address = fleet.address as "unix:";
  fetchFastCGI("http://localhost/loop", address, { log: () => {} }).catch(() => {});
  await fleet.daemon.says("loops", fleet.daemon.log.split("loops").length);
  return Number(/loops (\d+)\./.exec(fleet.daemon.log.slice(before))![1]);
}

/** Makes a worker wait in the middle of a request, until `finish()` is called. */
export async function slowRequest(
  fleet: Fleet,
): Promise<{ response: Promise<string>; pid: number; finish(): Promise<void> }> {
  const response = request(fleet, "/slow");
  const begun = async () => {
    while (true) {
      const text = await Deno.readTextFile(`${fleet.directory}/begun`).catch(() => "");
      if (text !== "") return Number(text);
      await request(fleet);
    }
  };
  return {
    response,
    pid: await deadline(begun(), "the slow request to begin"),
    finish: () => Deno.writeTextFile(`${fleet.directory}/go`, ""),
  };
}
