/** The loads: requests, the peers that serve them, and what is measured. */

import * as deployed from "./deployed.ts";
import type { Generator, Report } from "./generator.ts";
import * as gateways from "./gateways.ts";
import * as peers from "./peers.ts";
import type { Peer, Running, Setting } from "./peers.ts";
import { cores, coreTime, output, pinned } from "./process.ts";
import { encodeRequest, MANY_HEADERS, type RequestBytes, type RequestSpec } from "./requests.ts";

/** A measured quantity. */
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
  | "processor"
  | "processes"
  | "shared";

/** One measurement of one peer. */
export type Sample = Partial<Record<Metric, number>>;

/** How each metric is shown, and whether more is better. */
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
  processes: { label: "processes" },
  shared: { label: "PSS of all, MiB", digits: 1 },
};

/** How long and how often to measure. */
export interface Plan {
  generator: Generator;
  rounds: number;
  /** The duration of one measurement. */
  seconds: number;
}

/** One load. The others are compared with its first peer. */
export interface Load {
  /** The name, which `--only` accepts. */
  key: string;
  title: string;
  setting: Setting;
  peers: Peer[];
  /** What is measured. The first metric is the one to compare peers by. */
  metrics: Metric[];
  /** Whether peers are not compared with the first, as the numbers are differences near zero. */
  absolute?: boolean;
  /** How many turns each peer has in a round. A short load has several, as a disturbance would hit one peer alone. */
  turns?: number;
  /** Whether each measurement has a new server, as it affects the next one. */
  fresh?: boolean;
  /** Throws if the peer's response is wrong. */
  check?(running: Running, plan: Plan): Promise<void>;
  measure(running: Running, plan: Plan): Promise<Sample>;
}

const MIB = 1 << 20;
const LARGE = 1024 * MIB;
const STREAMS = 1000;
const IDLE_CONNECTIONS = 10_000;
/** How many times a CGI script runs in one turn. */
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
/** The timeout of a load that ends by itself, in seconds. */
const TIMEOUT = 120;
/** The minimum time that a server gets requests before it is measured, so that its code is compiled, in seconds. */
const WARM_UP = 0.5;

const encoded = new Map<string, RequestBytes>();

function bytesOf({ protocol }: Running, spec: RequestSpec, keep: boolean): RequestBytes {
  const key = JSON.stringify([protocol, spec, keep]);
  let bytes = encoded.get(key);
  if (bytes === undefined) {
    encoded.set(key, bytes = encodeRequest(protocol, spec, keep, peers.SCRIPT));
  }
  return bytes;
}

async function sum(running: Running, of: "processorTime" | "memory" | "peak"): Promise<number> {
  let sum = 0;
  for (const process of running.processes) sum += await process[of]();
  return sum;
}

function checkErrors(report: Report): void {
  if (report.requests === 0 || report.errors > 0) {
    throw new Error(`${report.errors} of ${report.requests + report.errors} requests failed`);
  }
}

/** Sends one request and checks that the response contains a text. */
async function checkResponse(running: Running, spec: RequestSpec, expected: string): Promise<void> {
  const { head, body, times, tail } = bytesOf(running, spec, false);
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
  try {
    for (const part of [head, ...Array.from({ length: times }, () => body), tail]) {
      for (let at = 0; at < part.length;) at += await connection.write(part.subarray(at));
    }
  } catch {
    // A server that has ended: the response shows it.
  }
  await reading.finally(() => clearTimeout(timer));
  if (!text.toLowerCase().includes(expected.toLowerCase())) {
    throw new Error(
      `Cannot measure as the response must contain "${expected}": it is ${
        JSON.stringify(text.slice(0, 300))
      }`,
    );
  }
}

interface Steady {
  key: string;
  title: string;
  app: string;
  spec: RequestSpec;
  connections: number;
  expected: string;
  keep?: boolean;
  peers?: Peer[];
  metrics?: Metric[];
  unpinned?: boolean;
}

/** Creates a load of many small requests for a fixed time. */
function steady(load: Steady): Load {
  const { key, title, app, spec, connections, expected, unpinned, keep = true } = load;
  return {
    key,
    title,
    setting: { app, unpinned },
    peers: load.peers ?? SERVERS,
    metrics: load.metrics ?? ["rate", "p50", "p99", "cpu", "busy"],
    async check(running, plan) {
      await checkResponse(running, spec, expected);
      await this.measure(running, { ...plan, seconds: Math.max(plan.seconds, WARM_UP) });
    },
    async measure(running, { generator, seconds }) {
      const before = await sum(running, "processorTime");
      const allBefore = coreTime();
      const report = await generator.run({
        protocol: running.protocol,
        port: running.port,
        request: bytesOf(running, spec, keep),
        connections,
        seconds,
        keep,
      });
      const allTook = coreTime() - allBefore;
      const took = await sum(running, "processorTime") - before;
      checkErrors(report);
      return {
        rate: report.requests / report.seconds,
        throughput: report.requests * (spec.body ?? 0) / report.seconds / 1e6,
        p50: report.p50,
        p99: report.p99,
        cpu: took / report.requests,
        busy: took / report.seconds / 1e4,
        generator: report.busy * 100,
        others: unpinned ? NaN : Math.max(allTook - took, 0) / report.seconds / 1e4,
      };
    },
  };
}

/** Creates a load of one request with a large request or response body. */
function large(
  key: string,
  title: string,
  app: string,
  specFor: (bytes: number) => RequestSpec,
  among: Peer[] = STREAMING,
  bytes = LARGE,
): Load {
  return {
    key,
    title,
    setting: { app, unpinned: among === LARGE_GATEWAYS },
    peers: among,
    metrics: ["throughput", "memory", "busy"],
    fresh: true,
    async measure(running, { generator }) {
      const run = (spec: RequestSpec) =>
        generator.run({
          protocol: running.protocol,
          port: running.port,
          request: bytesOf(running, spec, true),
          connections: 1,
          seconds: TIMEOUT,
          maxResponses: 1,
        });
      // Code that the first request loads counts as idle memory.
      await run(specFor(MIB));
      for (const process of running.processes) await process.forgetPeak();
      const idle = await sum(running, "memory");
      const before = await sum(running, "processorTime");
      const report = await run(specFor(bytes));
      checkErrors(report);
      if (app === "download" && report.content < LARGE) {
        throw new Error(
          `Cannot measure as the response must have ${LARGE} bytes: it has ${report.content}`,
        );
      }
      const took = await sum(running, "processorTime") - before;
      return {
        throughput: bytes / report.seconds / 1e6,
        memory: (await sum(running, "peak") - idle) / MIB,
        busy: took / report.seconds / 1e4,
      };
    },
  };
}

const upload = (body: number) => ({ path: "/upload", body });
const form = (body: number) => ({ path: "/form", body, form: true });
/** The length of a large file in a form, which is in memory as a whole. */
const LARGE_FORM = 64 * MIB;
/** Peers that upload to what Deno offers. */
const ON_DENO: Peer[] = [peers.gatehouse, peers.denoServe];

/** Returns the memory usage of a peer on Deno after a garbage collection. */
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

/** Creates a load of CGI scripts. */
function scripts(key: string, title: string, peers: Peer[]): Load {
  const run = async ({ command, env, user }: Running, prefix: string[]) => {
    const id = String(user);
    const as = user === undefined
      ? []
      : ["setpriv", `--reuid=${id}`, `--regid=${id}`, "--clear-groups"];
    return await output([...as, ...prefix, ...command!], { env });
  };
  return {
    key,
    title,
    turns: 5,
    setting: { app: "hello" },
    peers,
    metrics: ["wall", "processor"],
    async check(running) {
      const text = await run(running, []);
      if (!text.endsWith("Hello, world") && !text.endsWith("Hello, world\n")) {
        throw new Error(
          `Cannot measure as the script must print "Hello, world": it prints ${
            JSON.stringify(text.slice(0, 200))
          }`,
        );
      }
    },
    async measure(running, { generator: { starter } }) {
      const text = await run(running, pinned(cores?.server, [starter, String(STARTS)]));
      const runs = text.trim().split("\n").map((line) => line.split(" ").map(Number));
      return {
        wall: median(runs.map(([wall]) => wall)),
        processor: median(runs.map(([_, cpu]) => cpu)),
      };
    },
  };
}

const hello = { app: "hello", spec: { path: "/hello" }, expected: "Hello, world" };

/** What a proxy says of the client. */
const PROXIED: [name: string, value: string][] = [
  ["x-forwarded-for", "203.0.113.9"],
  ["x-forwarded-proto", "https"],
  ["x-forwarded-host", "www.example.org"],
];

/** All loads, in the order that they run in. */
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
    ...hello,
    key: "access-log",
    title: "Hello with an access log in a file, 16 connections",
    connections: 16,
    peers: [
      peers.gatehouse,
      peers.commonAccessLog,
      peers.combinedAccessLog,
      peers.jsonAccessLog,
    ],
  }),
  ...[peers.fastCGIOptions, peers.httpOptions].map((options, i) =>
    steady({
      ...hello,
      key: i === 0 ? "options" : "options-http",
      title: `Hello with options, through a proxy over ${
        i === 0 ? "FastCGI" : "HTTP"
      }, 16 connections`,
      spec: { path: "/hello", headers: PROXIED },
      connections: 16,
      peers: options,
    })
  ),
  steady({
    ...hello,
    key: "telemetry",
    title: "Hello with telemetry, 16 connections",
    connections: 16,
    peers: [peers.gatehouse, peers.tracedGatehouse, peers.denoServe, peers.tracedDenoServe],
  }),
  steady({
    key: "headers",
    title: "20 header fields and 3 cookies each way, 16 connections",
    app: "headers",
    spec: { path: "/headers", headers: MANY_HEADERS },
    expected: "X-Field-19",
    connections: 16,
  }),
  steady({
    key: "echo",
    title: "POST 1 KiB and get it back, 16 connections",
    app: "echo",
    spec: { path: "/echo", body: 1024 },
    expected: "x".repeat(1024),
    connections: 16,
  }),
  steady({
    key: "post",
    title: "POST 1 MiB, read into one buffer, 4 connections",
    app: "upload",
    spec: { path: "/upload", body: MIB },
    expected: String(MIB),
    connections: 4,
    peers: SERVERS.filter((peer) => peer !== peers.naive),
    metrics: ["throughput", "p50", "p99", "cpu", "busy"],
  }),
  steady({
    key: "post-chunks",
    title: "POST 1 MiB, read by `for await`, 4 connections",
    app: "chunks",
    spec: { path: "/upload", body: MIB },
    expected: String(MIB),
    connections: 4,
    peers: [peers.gatehouse, peers.denoServe, peers.naive, peers.go, peers.byteStream],
    metrics: ["throughput", "p50", "p99", "cpu", "busy"],
  }),
  steady({
    key: "file",
    title: "POST 1 MiB, piped to a file, 4 connections",
    app: "file",
    spec: { path: "/file", body: MIB },
    expected: String(MIB),
    connections: 4,
    peers: ON_DENO,
    metrics: ["throughput", "p50", "p99", "cpu", "busy"],
  }),
  steady({
    key: "form",
    title: "POST a form with a file of 1 MiB, read by `formData()`, 4 connections",
    app: "form",
    spec: form(MIB),
    expected: String(MIB),
    connections: 4,
    peers: ON_DENO,
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
  ...[true, false].map((keep) =>
    steady({
      ...hello,
      key: keep ? "inherited" : "inherited-new",
      title: `Hello, on an inherited socket, ${
        keep ? "16 connections" : "a new connection for each request, 16 at once"
      }`,
      connections: 16,
      keep,
      peers: [peers.oneWorker, peers.gatehouse],
    })
  ),
  steady({
    ...hello,
    key: "workers",
    title: "Hello, all cores for server and load, 64 connections",
    connections: 64,
    unpinned: true,
    peers: [peers.twoWorkers, peers.oneWorker, peers.go],
  }),
  steady({
    key: "workers-compute",
    title: "A millisecond of computing, all cores for server and load, 16 connections at once",
    app: "compute",
    spec: { path: "/compute" },
    expected: "computed",
    connections: 16,
    unpinned: true,
    peers: [peers.twoWorkers, peers.gatehouse],
  }),
  steady({
    key: "workers-nginx",
    title: "A millisecond of computing, through nginx, all cores, 4 connections",
    app: "compute",
    spec: { path: "/compute" },
    expected: "computed",
    connections: 4,
    unpinned: true,
    peers: [peers.nginxWorkers, peers.nginxGatehouse],
  }),
  steady({
    ...hello,
    key: "hono",
    title: "Hono over HTTP without options, 16 connections",
    connections: 16,
    peers: [deployed.honoHTTP, deployed.honoDeno],
  }),
  steady({
    ...hello,
    key: "deployed",
    title: "Hono with an access log in JSON, through nginx, all cores, 16 connections",
    spec: { path: "/hello", headers: PROXIED },
    connections: 16,
    unpinned: true,
    peers: [deployed.deployedServe, deployed.deployedDeno],
  }),
  steady({
    key: "workers-compute-new",
    title: "A millisecond of computing, a new connection for each request, 16 at once",
    app: "compute",
    spec: { path: "/compute" },
    expected: "computed",
    connections: 16,
    keep: false,
    unpinned: true,
    peers: [peers.twoWorkers, peers.gatehouse],
  }),
  {
    key: "memory",
    title: "Memory of workers, with shared pages divided by those who share them (PSS)",
    absolute: true,
    setting: { app: "hello", unpinned: true },
    peers: [peers.twoWorkers, peers.twoWorkersInherited, peers.oneWorker, peers.gatehouse],
    metrics: ["shared", "processes"],
    fresh: true,
    async measure(running, { generator, seconds }) {
      await checkResponse(running, hello.spec, hello.expected);
      await generator.run({
        protocol: running.protocol,
        port: running.port,
        request: bytesOf(running, hello.spec, true),
        connections: 16,
        seconds: Math.max(seconds, WARM_UP),
      });
      const { processes, bytes } = await running.processes[0].sharedMemory();
      return { processes, shared: bytes / MIB };
    },
  },
  large("up", "POST 1 GiB in one request, read into one buffer", "upload", upload),
  large("up-chunks", "POST 1 GiB in one request, read by `for await`", "chunks", upload),
  large("up-file", "POST 1 GiB in one request, piped to a file", "file", upload, ON_DENO),
  large(
    "up-form",
    "POST a form with a file of 64 MiB, read by `formData()`",
    "form",
    form,
    ON_DENO,
    LARGE_FORM,
  ),
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
      spec: hello.spec,
      connections,
      peers: [
        gateways.fastCGI,
        gateways.fastCGIKept,
        gateways.fastCGINginx,
        gateways.fastCGICaddy,
        gateways.fastCGILighttpd,
        gateways.fastCGIConn,
      ],
    })
  ),
  gateway({
    key: "gateway-php",
    title: "Gateways, hello by PHP-FPM with 4 children, 16 connections",
    spec: { path: "/php.php" },
    connections: 16,
    peers: [gateways.php, gateways.phpNginx, gateways.phpCaddy],
  }),
  gateway({
    key: "gateway-scgi",
    title: "Gateways, hello by SCGI, 16 connections",
    spec: hello.spec,
    connections: 16,
    peers: [gateways.scgi, gateways.scgiNginx, gateways.scgiLighttpd],
  }),
  gateway({
    key: "gateway-cgi",
    title: "Gateways, a CGI program in C, 4 connections",
    spec: hello.spec,
    connections: 4,
    peers: [
      gateways.cgi,
      gateways.cgiGo,
      gateways.cgiLighttpd,
      gateways.cgiCommand,
      gateways.cgiCommandGroup,
    ],
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
      const open = await generator.keepOpen({
        protocol: running.protocol,
        port: running.port,
        request: bytesOf(running, { path: "/events" }, true),
        connections: STREAMS,
        seconds: Math.max(seconds * 2, 1),
      });
      const before = await sum(running, "processorTime");
      const report = await open.report();
      const took = await sum(running, "processorTime") - before;
      const memory = await sum(running, "memory");
      await open.stop();
      return {
        cpu: took / report.events,
        events: report.events / report.seconds,
        resident: (memory - idle) / 1024 / STREAMS,
      };
    },
  },
  {
    key: "idle",
    title: "10,000 idle connections, each after one response",
    absolute: true,
    setting: { app: "hello", reportMemory: true },
    peers: [peers.gatehouse, peers.denoServe, peers.ceiling],
    metrics: ["heap", "buffers", "resident"],
    fresh: true,
    async measure(running, { generator }) {
      const run = {
        protocol: running.protocol,
        port: running.port,
        request: bytesOf(running, hello.spec, true),
        connections: 64,
        seconds: 0.2,
      };
      // Code that the first requests compile counts as idle memory.
      await generator.run(run);
      const idle = await memoryOf(running);
      const open = await generator.keepOpen({
        ...run,
        connections: IDLE_CONNECTIONS,
        seconds: TIMEOUT,
      });
      const full = await memoryOf(running);
      await open.stop();
      const each = (of: (usage: Deno.MemoryUsage) => number) =>
        (of(full) - of(idle)) / 1024 / IDLE_CONNECTIONS;
      return {
        heap: each((usage) => usage.heapUsed),
        buffers: each((usage) => usage.external),
        resident: each((usage) => usage.rss),
      };
    },
  },
  scripts("cgi", "A CGI script that says hello, from its start to its end", [
    peers.cgiGatehouse,
    peers.cgiGatehouseOnly,
    peers.cgiBundled,
    peers.cgiOnlyBundled,
    peers.cgiFloor,
    peers.cgiBare,
    peers.cgiWebAPI,
    peers.cgiPython,
    peers.cgiPerl,
    peers.cgiPerlModule,
    peers.cgiPHP,
    peers.cgiNode,
  ]),
  scripts(
    "cgi-deployed",
    "The same with serveCGI(), run by a user who may write nothing",
    peers.cgiDeployed,
  ),
];

/** Returns the median. */
export function median(values: number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const half = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2;
}
