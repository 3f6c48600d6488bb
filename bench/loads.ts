/** What is asked of whom, and what is measured. */

import type { Generator, Seen } from "./generator.ts";
import * as gateways from "./gateways.ts";
import * as peers from "./peers.ts";
import type { Peer, Running, Setting } from "./peers.ts";
import { cores, coreTime, output, pinned } from "./process.ts";
import { type Ask, encodeRequest, MANY_HEADERS, type RequestBytes } from "./requests.ts";

/** What is measured. */
export type Metric =
  | "rate"
  | "throughput"
  | "events"
  | "p50"
  | "p99"
  | "cpu"
  | "busy"
  | "others"
  | "generator"
  | "memory"
  | "heap"
  | "buffers"
  | "resident"
  | "wall"
  | "processor";

/** One measurement of one peer. */
export type Sample = Partial<Record<Metric, number>>;

/** How a metric is shown, and which way is better. */
export const METRICS: Record<Metric, { label: string; more?: boolean; digits?: number }> = {
  rate: { label: "requests/s", more: true },
  throughput: { label: "MB/s", more: true },
  events: { label: "events/s", more: true },
  p50: { label: "median, µs" },
  p99: { label: "99%, µs" },
  cpu: { label: "CPU, µs each", digits: 1 },
  busy: { label: "its core, %" },
  others: { label: "other programs, %" },
  generator: { label: "generator, %" },
  memory: { label: "peak above idle, MiB", digits: 1 },
  heap: { label: "JS heap, KiB each", digits: 2 },
  buffers: { label: "buffers, KiB each", digits: 2 },
  resident: { label: "resident, KiB each", digits: 1 },
  wall: { label: "ms", digits: 1 },
  processor: { label: "CPU, ms", digits: 1 },
};

/** How long and how often. */
export interface Plan {
  generator: Generator;
  rounds: number;
  /** Of one measurement. */
  seconds: number;
}

/** One load: its first peer is the one that the others are compared with. */
export interface Load {
  /** As `--only` takes it. */
  key: string;
  title: string;
  setting: Setting;
  peers: Peer[];
  /** The first is the one that peers are compared by. */
  metrics: Metric[];
  /** Whether peers are not compared with the first: where the numbers are differences, near zero. */
  absolute?: boolean;
  /** How many turns each peer has in a round: more for what is over so soon that a disturbance hits one peer alone. */
  turns?: number;
  /** Whether each measurement has a new server: for what leaves traces. */
  fresh?: boolean;
  /** Throws if the peer's answer is not what it should be. */
  check?(running: Running, plan: Plan): Promise<void>;
  measure(running: Running, plan: Plan): Promise<Sample>;
}

const MIB = 1 << 20;
const LARGE = 1024 * MIB;
const STREAMS = 1000;
const IDLE_CONNECTIONS = 10_000;
/** How often a CGI script is started in one turn. */
const STARTS = 3;
const SERVERS: Peer[] = [
  peers.gatehouse,
  peers.denoServe,
  peers.go,
  peers.libfcgi,
  peers.phpOne,
  peers.nodeFastCGI,
  peers.naive,
];
const STREAMING: Peer[] = [peers.gatehouse, peers.denoServe, peers.go, peers.libfcgi];
/** How long to wait for what ends by itself, in seconds. */
const PATIENCE = 120;
/** How long a server is asked before it is measured, at least: until its code is compiled, in seconds. */
const WARM_UP = 0.5;

const encoded = new Map<string, RequestBytes>();

function bytesOf({ protocol }: Running, ask: Ask, keep: boolean): RequestBytes {
  const key = JSON.stringify([protocol, ask.path, ask.body, keep]);
  let bytes = encoded.get(key);
  if (bytes === undefined) {
    encoded.set(key, bytes = encodeRequest(protocol, ask, keep, peers.SCRIPT));
  }
  return bytes;
}

async function sum(running: Running, of: "processorTime" | "memory" | "peak"): Promise<number> {
  let sum = 0;
  for (const process of running.processes) sum += await process[of]();
  return sum;
}

function checkErrors(seen: Seen): void {
  if (seen.requests === 0 || seen.errors > 0) {
    throw new Error(`${seen.errors} of ${seen.requests + seen.errors} requests failed`);
  }
}

/** Asks once, and looks for a text in the answer. */
async function checkAnswer(running: Running, ask: Ask, expected: string): Promise<void> {
  const { head, body, times, tail } = bytesOf(running, ask, false);
  const connection = await Deno.connect({ hostname: "127.0.0.1", port: running.port });
  const timer = setTimeout(() => connection.close(), 10_000);
  let text = "";
  const reading = (async () => {
    for await (const chunk of connection.readable) {
      for (let at = 0; at < chunk.length; at += 8192) {
        text += String.fromCharCode(...chunk.subarray(at, at + 8192));
      }
    }
  })();
  for (const part of [head, ...Array.from({ length: times }, () => body), tail]) {
    for (let at = 0; at < part.length;) at += await connection.write(part.subarray(at));
  }
  await reading;
  clearTimeout(timer);
  if (!text.toLowerCase().includes(expected.toLowerCase())) {
    throw new Error(
      `its answer must have "${expected}": it is ${JSON.stringify(text.slice(0, 300))}`,
    );
  }
}

interface Steady {
  key: string;
  title: string;
  app: string;
  ask: Ask;
  connections: number;
  expected: string;
  keep?: boolean;
  peers?: Peer[];
  metrics?: Metric[];
  unpinned?: boolean;
}

/** A load that goes on for as long as it may. */
function steady(load: Steady): Load {
  const { key, title, app, ask, connections, expected, unpinned, keep = true } = load;
  return {
    key,
    title,
    setting: { app, unpinned },
    peers: load.peers ?? SERVERS,
    metrics: load.metrics ?? ["rate", "p50", "p99", "cpu", "busy"],
    async check(running, plan) {
      await checkAnswer(running, ask, expected);
      await this.measure(running, { ...plan, seconds: Math.max(plan.seconds, WARM_UP) });
    },
    async measure(running, { generator, seconds }) {
      const before = await sum(running, "processorTime");
      const allBefore = coreTime();
      const seen = await generator.run({
        protocol: running.protocol,
        port: running.port,
        request: bytesOf(running, ask, keep),
        connections,
        seconds,
        keep,
      });
      const allTook = coreTime() - allBefore;
      const took = await sum(running, "processorTime") - before;
      checkErrors(seen);
      return {
        rate: seen.requests / seen.seconds,
        throughput: seen.requests * (ask.body ?? 0) / seen.seconds / 1e6,
        p50: seen.p50,
        p99: seen.p99,
        cpu: took / seen.requests,
        busy: took / seen.seconds / 1e4,
        generator: seen.busy * 100,
        others: unpinned ? NaN : Math.max(allTook - took, 0) / seen.seconds / 1e4,
      };
    },
  };
}

/** One request with much to send or to get. */
function large(
  key: string,
  title: string,
  app: string,
  askFor: (bytes: number) => Ask,
  among: Peer[] = STREAMING,
): Load {
  return {
    key,
    title,
    setting: { app, unpinned: among !== STREAMING },
    peers: among,
    metrics: ["throughput", "memory", "busy"],
    fresh: true,
    async measure(running, { generator }) {
      const run = (ask: Ask) =>
        generator.run({
          protocol: running.protocol,
          port: running.port,
          request: bytesOf(running, ask, true),
          connections: 1,
          seconds: PATIENCE,
          most: 1,
        });
      // So that what is loaded at the first request counts as idle.
      await run(askFor(MIB));
      for (const process of running.processes) await process.forgetPeak();
      const idle = await sum(running, "memory");
      const before = await sum(running, "processorTime");
      const seen = await run(askFor(LARGE));
      checkErrors(seen);
      if (app === "download" && seen.content < LARGE) {
        throw new Error(`it must send ${LARGE} bytes: it sent ${seen.content}`);
      }
      const took = await sum(running, "processorTime") - before;
      return {
        throughput: LARGE / seen.seconds / 1e6,
        memory: (await sum(running, "peak") - idle) / MIB,
        busy: took / seen.seconds / 1e4,
      };
    },
  };
}

const upload = (body: number) => ({ path: "/upload", body });

/** What a peer on Deno holds after a collection. */
async function memoryOf({ processes: [process] }: Running): Promise<Deno.MemoryUsage> {
  process.kill("SIGUSR1");
  return JSON.parse(await process.nextLine());
}

const download = (bytes: number) => ({ path: `/download?bytes=${bytes}` });
const LARGE_GATEWAYS = [gateways.fastCGI, gateways.fastCGICaddy];

/** Gateways share all cores with the application and the load generator, as they would on a small server. */
function gateway(load: Omit<Steady, "app" | "expected" | "unpinned"> & { peers: Peer[] }): Load {
  const metrics: Metric[] = ["rate", "p50", "p99", "cpu"];
  return steady({ ...load, app: "hello", expected: "Hello, world", unpinned: true, metrics });
}

const hello = { app: "hello", ask: { path: "/hello" }, expected: "Hello, world" };

/** All loads, in the order in which they run. */
export const LOADS: Load[] = [
  ...[16, 1, 256].map((connections) =>
    steady({
      ...hello,
      key: `hello-${connections}`,
      title: `Hello, ${connections} ${connections === 1 ? "connection" : "connections"}`,
      connections,
      peers: [...SERVERS, peers.ceiling],
    })
  ),
  steady({
    key: "headers",
    title: "20 header fields and 3 cookies each way, 16 connections",
    app: "headers",
    ask: { path: "/headers", headers: MANY_HEADERS },
    expected: "X-Answer-19",
    connections: 16,
  }),
  steady({
    key: "echo",
    title: "POST 1 KiB and get it back, 16 connections",
    app: "echo",
    ask: { path: "/echo", body: 1024 },
    expected: "x".repeat(1024),
    connections: 16,
  }),
  steady({
    key: "post",
    title: "POST 1 MiB, read into one buffer, 4 connections",
    app: "upload",
    ask: { path: "/upload", body: MIB },
    expected: String(MIB),
    connections: 4,
    peers: SERVERS.filter((peer) => peer !== peers.naive),
    metrics: ["throughput", "p50", "p99", "cpu", "busy"],
  }),
  steady({
    key: "post-chunks",
    title: "POST 1 MiB, read in chunks, 4 connections",
    app: "chunks",
    ask: { path: "/upload", body: MIB },
    expected: String(MIB),
    connections: 4,
    peers: [peers.gatehouse, peers.denoServe, peers.naive, peers.go],
    metrics: ["throughput", "p50", "p99", "cpu", "busy"],
  }),
  steady({
    ...hello,
    key: "new",
    title: "Hello, a new connection for each request, 16 at once",
    connections: 16,
    keep: false,
    peers: [...SERVERS, peers.ceiling],
  }),
  steady({
    ...hello,
    key: "nginx",
    title: "Hello, through nginx on the same core, 16 connections",
    connections: 16,
    peers: [
      peers.nginxGatehouse,
      peers.nginxDeno,
      peers.nginxCeiling,
      peers.nginxGo,
      peers.nginxPHP,
    ],
  }),
  steady({
    ...hello,
    key: "scgi",
    title: "Hello, SCGI, which has a new connection for each request, 16 at once",
    connections: 16,
    keep: false,
    peers: [peers.gatehouseSCGI, peers.gatehouse, peers.denoServe],
  }),
  steady({
    ...hello,
    key: "workers",
    title: "Hello, all cores for server and load, 64 connections",
    connections: 64,
    unpinned: true,
    peers: [peers.prefork(2), peers.prefork(1), peers.go],
  }),
  large("up", "POST 1 GiB in one request, read into one buffer", "upload", upload),
  large("up-chunks", "POST 1 GiB in one request, read in chunks", "chunks", upload),
  large(
    "down",
    "GET 1 GiB in one request",
    "download",
    download,
  ),
  ...[16, 1].map((connections) =>
    gateway({
      key: `gateway-fastcgi-${connections}`,
      title: `Gateways, hello by FastCGI, ${connections} ${
        connections === 1 ? "connection" : "connections"
      }`,
      ask: hello.ask,
      connections,
      peers: [
        gateways.fastCGI,
        gateways.fastCGINginx,
        gateways.fastCGICaddy,
        gateways.fastCGILighttpd,
      ],
    })
  ),
  gateway({
    key: "gateway-php",
    title: "Gateways, hello by PHP-FPM with 4 children, 16 connections",
    ask: { path: "/php.php" },
    connections: 16,
    peers: [gateways.php, gateways.phpNginx, gateways.phpCaddy],
  }),
  gateway({
    key: "gateway-scgi",
    title: "Gateways, hello by SCGI, 16 connections",
    ask: hello.ask,
    connections: 16,
    peers: [gateways.scgi, gateways.scgiNginx, gateways.scgiLighttpd],
  }),
  gateway({
    key: "gateway-cgi",
    title: "Gateways, a CGI program in C, 4 connections",
    ask: hello.ask,
    connections: 4,
    peers: [gateways.cgi, gateways.cgiGo, gateways.cgiLighttpd],
  }),
  large(
    "gateway-up",
    "Gateways, POST 1 GiB in one request by FastCGI",
    "upload",
    upload,
    LARGE_GATEWAYS,
  ),
  large(
    "gateway-down",
    "Gateways, GET 1 GiB in one request by FastCGI",
    "download",
    download,
    LARGE_GATEWAYS,
  ),
  {
    key: "events",
    title: "1,000 open streams of server-sent events, 10 events a second on each",
    setting: { app: "events" },
    peers: [peers.gatehouse, peers.denoServe, peers.go],
    metrics: ["cpu", "events", "resident"],
    fresh: true,
    async measure(running, { generator, seconds }) {
      const idle = await sum(running, "memory");
      const held = await generator.hold({
        protocol: running.protocol,
        port: running.port,
        request: bytesOf(running, { path: "/events" }, true),
        connections: STREAMS,
        seconds: Math.max(seconds * 2, 1),
      });
      const before = await sum(running, "processorTime");
      const seen = await held.seen();
      const took = await sum(running, "processorTime") - before;
      const memory = await sum(running, "memory");
      await held.stop();
      return {
        cpu: took / seen.events,
        events: seen.events / seen.seconds,
        resident: (memory - idle) / 1024 / STREAMS,
      };
    },
  },
  {
    key: "idle",
    title: "10,000 idle connections, of which each has had an answer",
    absolute: true,
    setting: { app: "hello", reportMemory: true },
    peers: [peers.gatehouse, peers.denoServe, peers.ceiling],
    metrics: ["heap", "buffers", "resident"],
    fresh: true,
    async measure(running, { generator }) {
      const run = {
        protocol: running.protocol,
        port: running.port,
        request: bytesOf(running, hello.ask, true),
        connections: 64,
        seconds: 0.2,
      };
      // So that what is compiled for the first requests counts as idle.
      await generator.run(run);
      const idle = await memoryOf(running);
      const held = await generator.hold({
        ...run,
        connections: IDLE_CONNECTIONS,
        seconds: PATIENCE,
      });
      const full = await memoryOf(running);
      await held.stop();
      const each = (of: (usage: Deno.MemoryUsage) => number) =>
        (of(full) - of(idle)) / 1024 / IDLE_CONNECTIONS;
      return {
        heap: each((usage) => usage.heapUsed),
        buffers: each((usage) => usage.external),
        resident: each((usage) => usage.rss),
      };
    },
  },
  {
    key: "cgi",
    title: "A CGI script that says hello, from its start to its end",
    turns: 5,
    setting: { app: "hello" },
    peers: [
      peers.cgiGatehouse,
      peers.cgiGatehouseOnly,
      peers.cgiBundled,
      peers.cgiOnlyBundled,
      peers.cgiBare,
      peers.cgiWebAPI,
      peers.cgiPython,
      peers.cgiPerl,
      peers.cgiPerlModule,
      peers.cgiPHP,
      peers.cgiNode,
    ],
    metrics: ["wall", "processor"],
    async check({ command, env }) {
      const text = await output(command!, { env });
      if (!text.endsWith("Hello, world") && !text.endsWith("Hello, world\n")) {
        throw new Error(`it must say hello: it says ${JSON.stringify(text.slice(0, 200))}`);
      }
    },
    async measure({ command, env }, { generator: { starter } }) {
      const text = await output(
        pinned(cores?.server, [starter, String(STARTS), ...command!]),
        { env },
      );
      const runs = text.trim().split("\n").map((line) => line.split(" ").map(Number));
      return {
        wall: middle(runs.map(([wall]) => wall)),
        processor: middle(runs.map(([_, cpu]) => cpu)),
      };
    },
  },
];

/** The median. */
export function middle(values: number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const half = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2;
}
