/** The performance targets of Gatehouse: ratios within one run, and limits. */

import * as deployed from "./deployed.ts";
import * as gateways from "./gateways.ts";
import type { Metric } from "./loads.ts";
import * as peers from "./peers.ts";
import { advantage, measured, ratio, type Result, spreadOf, table } from "./report.ts";

interface Target {
  text: string;
  load: string;
  metric: Metric;
  /** The peer that is measured. @default the first peer of the load */
  of?: peers.Peer;
  /** The peer to compare with, if the target is a ratio. */
  peer?: peers.Peer;
  /** The peer whose metric is subtracted, if the target is a difference. */
  beyond?: peers.Peer;
  /** The peer whose metric is subtracted from that of `peer`, if the target is a ratio of differences. */
  peerBeyond?: peers.Peer;
  /** What is divided by instead: another metric of its own. */
  over?: Metric;
  least?: number;
  most?: number;
  digits?: number;
}

const TARGETS: Target[] = [
  { text: "hello, requests: Go", load: "hello-16", metric: "rate", peer: peers.go, least: 5 },
  {
    text: "hello, requests: PHP-FPM",
    load: "hello-16",
    metric: "rate",
    peer: peers.phpOne,
    least: 6,
  },
  {
    text: "hello, requests: Deno.serve",
    load: "hello-16",
    metric: "rate",
    peer: peers.denoServe,
    least: 0.8,
  },
  {
    text: "256 connections, requests: Deno.serve",
    load: "hello-256",
    metric: "rate",
    peer: peers.denoServe,
    least: 0.75,
  },
  {
    text: "the same, 99%",
    load: "hello-256",
    metric: "p99",
    peer: peers.denoServe,
    most: 2,
  },
  {
    text: "one connection, latency: Go",
    load: "hello-1",
    metric: "p50",
    peer: peers.go,
    most: 1.15,
  },
  {
    text: "20 header fields, requests: Deno.serve",
    load: "headers",
    metric: "rate",
    peer: peers.denoServe,
    least: 0.85,
  },
  { text: "the same: Go", load: "headers", metric: "rate", peer: peers.go, least: 2 },
  {
    text: "POST 1 MiB into a buffer, throughput: Go",
    load: "post",
    metric: "throughput",
    peer: peers.go,
    least: 1.3,
  },
  {
    text: "POST 1 MiB by for await, throughput: Go",
    load: "post-chunks",
    metric: "throughput",
    peer: peers.go,
    least: 0.8,
  },
  {
    text: "the same: Deno.serve",
    load: "post-chunks",
    metric: "throughput",
    peer: peers.denoServe,
    least: 1,
  },
  {
    text: "POST 1 MiB piped to a file, throughput: Deno.serve",
    load: "file",
    metric: "throughput",
    peer: peers.denoServe,
    least: 0.5,
  },
  {
    text: "a form with a file of 1 MiB, CPU: Deno.serve",
    load: "form",
    metric: "cpu",
    peer: peers.denoServe,
    most: 1,
  },
  {
    text: "a form with a file of 64 MiB, memory: Deno.serve",
    load: "up-form",
    metric: "memory",
    peer: peers.denoServe,
    most: 1,
  },
  {
    text: "access log in JSON, µs of CPU a line",
    load: "access-log",
    metric: "cpu",
    of: peers.jsonAccessLog,
    beyond: peers.gatehouse,
    most: 3,
  },
  ...[1, 2, 3].flatMap((i): Target[] => [
    {
      text: `FastCGI, ${peers.fastCGIOptions[i].short}, CPU per request: without`,
      load: "options",
      metric: "cpu",
      of: peers.fastCGIOptions[i],
      peer: peers.fastCGIOptions[0],
      most: i === 3 ? 1.05 : 1.15,
    },
    {
      text: `HTTP, ${peers.httpOptions[i].short}, CPU per request: without`,
      load: "options-http",
      metric: "cpu",
      of: peers.httpOptions[i],
      peer: peers.httpOptions[0],
      most: 1.3,
    },
  ]),
  {
    text: "serveHTTP() without options, CPU per request: Deno.serve",
    load: "hono",
    metric: "cpu",
    of: deployed.honoHTTP,
    peer: deployed.honoDeno,
    most: 1.05,
  },
  {
    text: "telemetry, CPU that it adds: Deno.serve",
    load: "telemetry",
    metric: "cpu",
    of: peers.tracedGatehouse,
    beyond: peers.gatehouse,
    peer: peers.tracedDenoServe,
    peerBeyond: peers.denoServe,
    most: 1,
  },
  {
    text: "inherited socket, CPU per request: its own socket",
    load: "inherited",
    metric: "cpu",
    peer: peers.gatehouse,
    most: 1.1,
  },
  {
    text: "the same, 99%",
    load: "inherited",
    metric: "p99",
    peer: peers.gatehouse,
    most: 1.2,
  },
  {
    text: "2 workers on 2 cores, new connections, requests: one process",
    load: "workers-compute-new",
    metric: "rate",
    peer: peers.gatehouse,
    least: 1.8,
  },
  {
    text: "2 workers on 2 cores, requests: one process",
    load: "workers-compute",
    metric: "rate",
    peer: peers.gatehouse,
    least: 1.8,
  },
  {
    text: "the same through nginx, 4 clients",
    load: "workers-nginx",
    metric: "rate",
    peer: peers.nginxGatehouse,
    least: 1.6,
  },
  {
    text: "all options, 2 workers, nginx, requests: deno serve --parallel",
    load: "deployed",
    metric: "rate",
    peer: deployed.deployedDeno,
    least: 0.9,
  },
  { text: "2 workers, processes", load: "memory", metric: "processes", most: 3 },
  {
    text: "the same, on an inherited socket",
    load: "memory",
    metric: "processes",
    of: peers.twoWorkersInherited,
    most: 3,
  },
  { text: "1 GiB up, MiB above idle", load: "up", metric: "memory", most: 16 },
  { text: "the same by for await", load: "up-chunks", metric: "memory", most: 80 },
  { text: "1 GiB down, MiB above idle", load: "down", metric: "memory", most: 48 },
  {
    text: "idle connection, KiB of JS heap beyond a bare one",
    load: "idle",
    metric: "heap",
    beyond: peers.ceiling,
    most: 4,
  },
  {
    text: "through nginx, requests: proxy_pass to Deno.serve",
    load: "nginx",
    metric: "rate",
    peer: peers.nginxDeno,
    least: 1,
  },
  {
    text: "CGI as deployed, CPU: without a cache",
    load: "cgi-deployed",
    metric: "processor",
    peer: peers.cgiDeployed.find(({ name }) => name === "bundled, no cache"),
    most: 0.65,
  },
  {
    text: "CGI, CPU: deno run of new Response",
    load: "cgi",
    metric: "processor",
    of: peers.cgiGatehouseOnly,
    peer: peers.cgiFloor,
    most: 1.2,
  },
  {
    text: "the same, bundled",
    load: "cgi",
    metric: "processor",
    of: peers.cgiOnlyBundled,
    peer: peers.cgiFloor,
    most: 1.05,
  },
  {
    text: "CGI, time: Python wsgiref",
    load: "cgi",
    metric: "wall",
    peer: peers.cgiPython,
    most: 0.6,
  },
  {
    text: "serveCGI(), bundled, time: Python wsgiref",
    load: "cgi",
    metric: "wall",
    of: peers.cgiOnlyBundled,
    peer: peers.cgiPython,
    most: 0.6,
  },
  {
    text: "gateway, FastCGI hello, requests: Caddy",
    load: "gateway-fastcgi-16",
    metric: "rate",
    peer: gateways.fastCGICaddy,
    least: 4,
  },
  {
    text: "the same: nginx",
    load: "gateway-fastcgi-16",
    metric: "rate",
    peer: gateways.fastCGINginx,
    least: 0.7,
  },
  {
    text: "gateway, one connection, latency: nginx",
    load: "gateway-fastcgi-1",
    metric: "p50",
    peer: gateways.fastCGINginx,
    most: 1.5,
  },
  {
    text: "gateway, PHP-FPM, requests: Caddy",
    load: "gateway-php",
    metric: "rate",
    peer: gateways.phpCaddy,
    least: 1.2,
  },
  {
    text: "the same: nginx",
    load: "gateway-php",
    metric: "rate",
    peer: gateways.phpNginx,
    least: 0.6,
  },
  {
    text: "the same, 99%: nginx",
    load: "gateway-php",
    metric: "p99",
    peer: gateways.phpNginx,
    most: 1.5,
  },
  {
    text: "gateway, CGI program, requests: Go",
    load: "gateway-cgi",
    metric: "rate",
    peer: gateways.cgiGo,
    least: 0.7,
  },
  {
    text: "the same, 99%: its median",
    load: "gateway-cgi",
    metric: "p99",
    over: "p50",
    most: 3,
  },
  {
    text: "gateway, 1 GiB up, MiB above idle",
    load: "gateway-up",
    metric: "memory",
    most: 48,
  },
  {
    text: "the same, throughput: Caddy",
    load: "gateway-up",
    metric: "throughput",
    peer: gateways.fastCGICaddy,
    least: 0.7,
  },
  {
    text: "gateway, 1 GiB down, MiB above idle",
    load: "gateway-down",
    metric: "memory",
    most: 48,
  },
  {
    text: "the same, throughput: Caddy",
    load: "gateway-down",
    metric: "throughput",
    peer: gateways.fastCGICaddy,
    least: 0.7,
  },
];

/** Formats the targets whose loads have run. Returns undefined if there are none. */
export function targetsTable(results: Result[]): string | undefined {
  const rows = [["", "target", "measured", "least to most", "by CPU time", ""]];
  for (const target of TARGETS) {
    const result = results.find(({ load }) => load.key === target.load);
    const spread = result && valueOf(target, result);
    if (result === undefined || spread === undefined) continue;
    const { least = -Infinity, most = Infinity } = target;
    rows.push([
      target.text,
      target.least !== undefined ? `≥ ${least}` : `≤ ${most}`,
      spread.median.toFixed(2),
      `${spread.least.toFixed(2)}–${spread.most.toFixed(2)}`,
      byProcessorTime(target, result),
      spread.median >= least && spread.median <= most ? "met" : "missed",
    ]);
  }
  return rows.length > 1 ? table(rows) : undefined;
}

/** Returns the ratio by processor time per request, which is meaningful on a busy machine too. */
function byProcessorTime({ peer, metric }: Target, result: Result): string {
  if (peer === undefined || metric !== "rate" && metric !== "throughput") return "";
  return advantage(result, peer, "cpu")?.median.toFixed(2) ?? "";
}

function valueOf({ of, peer, beyond, peerBeyond, over, metric }: Target, result: Result) {
  const own = of ?? result.load.peers[0];
  if (peer !== undefined && beyond !== undefined && peerBeyond !== undefined) {
    const added = difference(result, own, beyond, metric);
    const peerAdded = difference(result, peer, peerBeyond, metric);
    return spreadOf(added.map((value, round) => value / (peerAdded[round] ?? NaN)));
  }
  if (peer !== undefined) return ratio(result, peer, metric, own);
  if (over !== undefined) {
    return spreadOf(
      (result.samples.get(own) ?? []).map((sample) => sample[metric]! / sample[over]!),
    );
  }
  if (beyond === undefined) return measured(result, own, metric);
  const base = measured(result, beyond, metric)?.median;
  const samples = result.samples.get(own);
  return base === undefined || samples === undefined
    ? undefined
    : spreadOf(samples.map((sample) => sample[metric]! - base));
}

/** Returns what a peer's metric has beyond that of another in the same round. */
function difference(
  { samples }: Result,
  of: peers.Peer,
  beyond: peers.Peer,
  metric: Metric,
): number[] {
  const base = samples.get(beyond) ?? [];
  return (samples.get(of) ?? [])
    .map((sample, round) => (sample[metric] ?? NaN) - (base[round]?.[metric] ?? NaN));
}
