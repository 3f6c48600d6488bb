/**
 * Sends many requests to a FastCGI server, directly and through a gateway, among clients that disconnect, close one
 * side, never read, send garbage or are slow: `deno task soak [--requests N] [--seed N] [--runtime node|bun]`. In the end
 * every handler must be settled, and descriptors, timers and the heap back where they were. On another runtime the server
 * is a process of its own, and its resident memory is printed.
 */
import { parseArgs } from "@std/cli/parse-args";
import { serveFastCGI } from "../fastcgi.ts";
import { fastCGIGateway, fetchFastCGI, type Gateway } from "../gateway.ts";
import { Random } from "../tests/fuzz/bytes.ts";
import { concat, pattern } from "../tests/testing/bytes.ts";
import { deadline } from "../tests/testing/deadline.ts";
import { FastCGIClient, request, variables } from "../tests/testing/fastcgi_client.ts";
import { beginRequest, params, stdin, stdinEnd } from "../tests/testing/fastcgi_records.ts";
import { app, handlers, type State, turn, waiting } from "./soak_app.ts";

/** How many clients there are at once. */
const CLIENTS = 32;
/** How many requests are sent before the base is measured. */
const WARM_UP = 5000;
/** How many lines of output there are while requests are sent. */
const REPORTS = 10;
/** How much more memory may be in use than at the base, in bytes. */
const HEAP_TOLERANCE = 8_000_000;
const SMALL_BODY = pattern(5000);
const LARGE_BODY = pattern(200_000);

const args = parseArgs(Deno.args, { string: ["requests", "seed", "runtime"] });
const requests = Number(args.requests ?? 100_000);
const seed = Number(args.seed ?? 1);

/** A server on another runtime. */
class OtherServer {
  readonly port: number;
  readonly #child: Deno.ChildProcess;

  private constructor(child: Deno.ChildProcess, port: number) {
    this.#child = child;
    this.port = port;
  }

  static async start(runtime: string): Promise<OtherServer> {
    const flags = runtime === "node" ? ["--expose-gc"] : [];
    const child = new Deno.Command(runtime, {
      args: [...flags, new URL("soak_app.ts", import.meta.url).pathname],
      stdin: "null",
      stdout: "piped",
    }).spawn();
    const { value = "" } = await child.stdout.pipeThrough(new TextDecoderStream()).getReader()
      .read();
    return new OtherServer(child, JSON.parse(value).port);
  }

  /** Returns its state, after a garbage collection if wanted. */
  async state(collect = false): Promise<State> {
    const path = collect ? "/state?gc" : "/state";
    const response = await fetchFastCGI(url(path), `127.0.0.1:${this.port}`, { log() {} });
    return await response.json();
  }

  /** Waits until it has no more descriptors than before, and all handlers have settled. */
  async quiet(descriptors: number): Promise<void> {
    const wait = async () => {
      while (true) {
        const state = await this.state();
        if (state.descriptors <= descriptors && state.started === state.settled) return;
        await new Promise((resolve) => setTimeout(resolve, 100));
      }
    };
    await deadline(wait(), "the end of all requests", 60_000).catch(({ message }) =>
      wrong.push(message)
    );
  }

  async stop(): Promise<void> {
    this.#child.kill("SIGKILL");
    await this.#child.status;
  }
}

/** The timers that neither have fired nor were cleared. */
const timers = new Set<unknown>();

function countTimers(): void {
  const { setTimeout, setInterval, clearTimeout, clearInterval } = globalThis;
  const clear = (timer?: number) => {
    timers.delete(timer);
    clearTimeout(timer);
    clearInterval(timer);
  };
  Object.assign(globalThis, {
    setTimeout(run: (...args: unknown[]) => void, ...rest: unknown[]) {
      const timer = setTimeout((...args: unknown[]) => {
        timers.delete(timer);
        run(...args);
      }, ...rest as [number]);
      timers.add(timer);
      return timer;
    },
    setInterval(...args: Parameters<typeof setInterval>) {
      const timer = setInterval(...args);
      timers.add(timer);
      return timer;
    },
    clearTimeout: clear,
    clearInterval: clear,
  });
}

let waits = 0;

const wrong: string[] = [];
/** How many requests of the current round have begun; 0 between rounds. */
let begun = 0;

/** What the requests of a round go to. */
interface Site {
  port: number;
  gateway: Gateway;
  random: Random;
}

function expect(what: string, isTrue: boolean): void {
  if (!isTrue) wrong.push(what);
}

const connect = async ({ port }: Site) =>
  new FastCGIClient(await Deno.connect({ hostname: "127.0.0.1", port }));
const post = (path: string, length: number) =>
  variables({ REQUEST_METHOD: "POST", REQUEST_URI: path, CONTENT_LENGTH: String(length) });
const url = (path: string) => `http://localhost${path}`;
const never = (error: unknown) => void error;

/** The kinds of clients: how often each comes, and what it does. Each sends one request. */
const KINDS: Record<string, [weight: number, run: (site: Site) => Promise<void>]> = {
  "gateway": [50, async ({ gateway }) => {
    const response = await gateway(new Request(url("/ok")));
    expect("a response through the gateway", await response.text() === "ok");
  }],
  "gateway, body": [10, async ({ gateway, random }) => {
    const body = random.below(10) === 0 ? LARGE_BODY : SMALL_BODY;
    const path = random.pick(["/echo", "/pipe"]);
    const response = await gateway(new Request(url(path), { method: "POST", body }));
    expect("an echo through the gateway", (await response.bytes()).length === body.length);
  }],
  "gateway, stream": [4, async ({ gateway }) => {
    const response = await gateway(new Request(url("/stream")));
    expect("a stream through the gateway", (await response.bytes()).length === 5000);
  }],
  "gateway, error": [2, async ({ gateway }) => {
    const response = await gateway(new Request(url("/throws")));
    await response.text();
    expect("an error through the gateway", response.status === 500);
  }],
  "gateway, canceled": [4, async ({ gateway }) => {
    const { body } = await gateway(new Request(url("/large")));
    await body!.cancel();
  }],
  "gateway, aborted": [4, async ({ gateway }) => {
    const controller = new AbortController();
    const arrived = Promise.withResolvers<void>();
    waiting.set(String(waits), arrived.resolve);
    const path = `/wait?${waits++}`;
    const response = gateway(new Request(url(path), { signal: controller.signal }));
    // Not before: Deno.connect (2.9.6) leaves its socket open if its signal aborts just as it connects.
    if (other === undefined) await arrived.promise;
    else for (let i = 0; i < 3; i++) await turn();
    controller.abort();
    await (await response).body?.cancel();
  }],
  "direct": [10, async (site) => {
    using client = await connect(site);
    await client.send(request({ body: SMALL_BODY, variables: post("/echo", SMALL_BODY.length) }));
    const { body, end } = await client.response();
    expect("a direct response", body.length === SMALL_BODY.length && end?.protocolStatus === 0);
  }],
  "slow upload": [4, async (site) => {
    using client = await connect(site);
    await client.send(beginRequest(1), params(1, post("/echo", 3000)));
    for (let i = 0; i < 3; i++) {
      await client.send(stdin(1, new Uint8Array(1000)));
      await turn();
    }
    await client.send(stdinEnd(1));
    expect("a slow upload", (await client.response()).body.length === 3000);
  }],
  "disconnects": [4, async (site) => {
    using client = await connect(site);
    const whole = request({ variables: post(site.random.pick(["/wait", "/echo"]), 9) });
    await client.send(whole.slice(0, site.random.below(whole.length)));
    if (site.random.below(2) === 0) await turn();
  }],
  "disconnects while the app runs": [2, async (site) => {
    using client = await connect(site);
    await client.send(request({ variables: { REQUEST_URI: "/wait" } }));
    await turn();
    await turn();
  }],
  "closes one side": [2, async (site) => {
    using client = await connect(site);
    const whole = concat([beginRequest(1), params(1, post("/echo", 9)), stdinEnd(1)]);
    await client.send(site.random.below(2) === 0 ? whole : whole.slice(0, -8));
    await client.conn.closeWrite!();
    await client.end();
  }],
  "never reads": [2, async (site) => {
    using client = await connect(site);
    for (let id = 1; id <= 4; id++) {
      await client.send(request({ id, keep: true, variables: { REQUEST_URI: "/large" } }));
    }
    // It counts as one request; the others are a surplus.
    await turn();
  }],
  "garbage": [2, async (site) => {
    using client = await connect(site);
    const whole = request({ variables: post("/echo", 9) });
    for (let i = 0; i < 5; i++) whole[site.random.below(whole.length)] = site.random.below(256);
    await client.send(whole);
    await client.conn.closeWrite!();
    await client.end().catch(never);
  }],
};
const BAG = Object.entries(KINDS).flatMap(([name, [weight]]) => Array<string>(weight).fill(name));

/** Sends so many requests, then stops server and gateway. */
async function round(
  count: number,
  report: (sent: number) => void | Promise<void>,
): Promise<Map<string, number>> {
  const random = new Random(seed);
  const sent = new Map<string, number>();
  const log = () => {};
  const server = other === undefined
    ? serveFastCGI(app, Deno.listen({ hostname: "127.0.0.1", port: 0 }), { log, logTo: "log" })
    : undefined;
  const port = other?.port ?? (server!.addr as Deno.NetAddr).port;
  const gateway = fastCGIGateway(`127.0.0.1:${port}`, { log });
  begun = 0;
  const client = async () => {
    while (begun < count) {
      if (++begun % Math.ceil(count / REPORTS) === 0) await report(begun);
      const name = random.pick(BAG);
      sent.set(name, (sent.get(name) ?? 0) + 1);
      try {
        await deadline(KINDS[name][1]({ port, gateway, random }), name, 60_000);
      } catch (error) {
        const { name: kind, message } = error as Error;
        // The server may close a connection that a faulty client still writes to.
        const faulty = !/^(?:gateway|direct|slow)/.test(name);
        if (!faulty || message.startsWith("Waited")) wrong.push(`${name}: ${kind}: ${message}`);
      }
    }
  };
  await Promise.all(Array.from({ length: CLIENTS }, client));
  gateway[Symbol.dispose]();
  if (server !== undefined) await deadline(server.shutdown(), "the server's end", 60_000);
  await other?.quiet(idle!.descriptors);
  begun = 0;
  return sent;
}

interface Measures {
  descriptors: number;
  timers: number;
  heap: number;
}

/** Counts with `ls`, since only --allow-all permits a process to read its own directory of /proc. */
function countDescriptors(): number {
  const { stdout } = new Deno.Command("ls", { args: [`/proc/${Deno.pid}/fd`] }).outputSync();
  return new TextDecoder().decode(stdout).trim().split("\n").length;
}

async function measure(): Promise<Measures> {
  if (other !== undefined) return { timers: 0, ...await other.state(true) };
  const { gc } = globalThis as { gc?: () => void };
  for (let i = 0; i < 5; i++) {
    await turn();
    gc?.();
  }
  return {
    descriptors: countDescriptors(),
    timers: timers.size,
    heap: Deno.memoryUsage().heapUsed + Deno.memoryUsage().external,
  };
}

countTimers();
addEventListener("unhandledrejection", (event) => {
  // Those of this module are not the server's.
  if (begun === 0) return;
  event.preventDefault();
  wrong.push(`an unhandled rejection: ${event.reason}`);
});
const other = args.runtime === undefined ? undefined : await OtherServer.start(args.runtime);
const idle = await other?.state();
await round(Math.min(WARM_UP, requests), () => {});
const base = await measure();
const start = performance.now();
let peak = 0;
const sent = await round(requests, async (count) => {
  const rss = (await other?.state())?.resident ?? Deno.memoryUsage().rss;
  peak = Math.max(peak, rss);
  console.log(`${count} requests, ${Math.round(rss / 1e6)} MB resident, ${wrong.length} failures`);
});
const seconds = (performance.now() - start) / 1000;
const end = await measure();
if (other !== undefined) {
  Object.assign(handlers, await other.state());
  await other.stop();
}

for (const [name, count] of [...sent].sort()) console.log(`  ${name.padEnd(32)} ${count}`);
console.log(`${requests} requests in ${seconds.toFixed(1)} s, seed ${seed}`);
console.log(`handlers: ${handlers.started} started, ${handlers.settled} settled`);
console.log(`descriptors: ${base.descriptors} before, ${end.descriptors} after`);
console.log(`timers: ${base.timers} before, ${end.timers} after`);
const megabytes = (bytes: number) => (bytes / 1e6).toFixed(1);
console.log(
  `heap: ${megabytes(base.heap)} MB before, ${megabytes(end.heap)} MB after; ` +
    `peak of resident memory ${megabytes(peak)} MB`,
);
expect("all handlers are settled", handlers.started === handlers.settled);
expect("descriptors are back at their base", end.descriptors <= base.descriptors);
expect("timers are back at their base", end.timers <= base.timers);
expect("the heap is back at its base", end.heap - base.heap < HEAP_TOLERANCE);
if (wrong.length > 0) {
  const counts = new Map<string, number>();
  for (const line of wrong) counts.set(line, (counts.get(line) ?? 0) + 1);
  console.error(`\n${wrong.length} failures:`);
  for (const [line, count] of counts) console.error(`  ${count} x ${line}`);
  Deno.exit(1);
}
