/** Creates the README's section about speed. */

import { METRICS } from "./loads.ts";
import * as peers from "./peers.ts";
import { advantage, format, formatRatio, measured, type Result, table } from "./report.ts";

const COLUMNS = [
  peers.denoServe,
  peers.go,
  peers.libfcgi,
  peers.phpOne,
  peers.nodeFastCGI,
  peers.naive,
];
const ROWS: [key: string, title: string][] = [
  ["hello-1", "hello, 1 connection"],
  ["hello-16", "hello, 16 connections"],
  ["hello-256", "hello, 256 connections"],
  ["headers", "20 header fields, 3 cookies"],
  ["echo", "POST 1 KiB, echo"],
  ["post", "POST 1 MiB, into a buffer"],
  ["post-chunks", "POST 1 MiB, by for await"],
  ["new", "a connection each"],
  ["up", "POST 1 GiB, into a buffer"],
  ["up-chunks", "POST 1 GiB, by for await"],
  ["down", "GET 1 GiB"],
];

function value(
  result: Result,
  unit: string,
  metric = result.load.metrics[0],
  peer = result.load.peers[0],
) {
  const spread = measured(result, peer, metric);
  return spread === undefined ? "–" : `${format(spread.median, METRICS[metric].digits)} ${unit}`;
}

export function readmeSection(results: Result[], about: string): string {
  const find = (key: string) => results.find(({ load }) => load.key === key);
  const rows = [["", "Gatehouse", ...COLUMNS.map(({ short }) => short)]];
  for (const [key, title] of ROWS) {
    const result = find(key);
    if (result === undefined) continue;
    const times = COLUMNS.map((peer) => {
      const spread = advantage(result, peer);
      return spread === undefined ? "–" : formatRatio(spread.median);
    });
    rows.push([title, value(result, METRICS[result.load.metrics[0]].label), ...times]);
  }
  return `## Speed

FastCGI on one core. The columns after Gatehouse's own give its speed relative to a peer's: 2.00× is twice as fast.
The peers are \`Deno.serve\` (over HTTP, without a web server in front), Go's \`net/http/fcgi\`, libfcgi in C, PHP-FPM with
one child, node-fastcgi, and a naive responder on Deno.

${table(rows)}

${[nginxText(find("nginx")), cgiText(find("cgi")), memoryText(find)].filter(Boolean).join(" ")}

${about} \`deno task bench\` runs all benchmarks; [docs/benchmarks.md](docs/benchmarks.md) has all results.`;
}

function nginxText(result: Result | undefined): string | undefined {
  const spread = result && advantage(result, peers.nginxDeno);
  return spread &&
    `Through nginx, Gatehouse serves ${
      formatRatio(spread.median)
    } as many requests as \`Deno.serve\` behind \`proxy_pass\`.`;
}

function cgiText(result: Result | undefined): string | undefined {
  if (result === undefined) return undefined;
  const others = [peers.cgiBare, peers.cgiPython, peers.cgiPerlModule, peers.cgiPHP, peers.cgiNode]
    .filter((peer) => measured(result, peer, "wall") !== undefined)
    .map((peer) => `${peer.name} ${value(result, "ms", "wall", peer)}`);
  const bundled = measured(result, peers.cgiBundled, "wall") === undefined
    ? ""
    : `, ${value(result, "ms", "wall", peers.cgiBundled)} bundled`;
  return `A CGI script takes ${value(result, "ms")} from start to exit${bundled}; ${
    others.join(", ")
  }.`;
}

function memoryText(find: (key: string) => Result | undefined): string | undefined {
  const [up, chunks, down, idle] = ["up", "up-chunks", "down", "idle"].map(find);
  if (!up || !chunks || !down || !idle) return undefined;
  return `An upload of 1 GiB takes ${
    value(up, "MiB", "memory")
  } of memory if it is read into one buffer and ${
    value(chunks, "MiB", "memory")
  } in chunks, a download ${value(down, "MiB", "memory")}; an idle connection takes ${
    value(idle, "KiB", "heap")
  } of JavaScript heap and ${value(idle, "KiB", "buffers")} of buffers.`;
}
