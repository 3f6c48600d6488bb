/** Medians, ratios and tables of what was measured. */

import { type Load, type Metric, METRICS, middle, type Sample } from "./loads.ts";
import type { Peer } from "./peers.ts";

/** What was measured under one load: a sample of each peer in each round. */
export interface Result {
  load: Load;
  samples: Map<Peer, Sample[]>;
}

/** A median and how far the rounds were from it. */
export interface Spread {
  median: number;
  least: number;
  most: number;
}

/** The values of a metric, or of what is made of it. */
export function spreadOf(values: number[]): Spread {
  return { median: middle(values), least: Math.min(...values), most: Math.max(...values) };
}

/** A peer's metric over all rounds. */
export function measured({ samples }: Result, peer: Peer, metric: Metric): Spread | undefined {
  const values = samples.get(peer)?.map((sample) => sample[metric] ?? NaN) ?? [];
  return values.length === 0 || values.some(Number.isNaN) ? undefined : spreadOf(values);
}

/** A peer's metric, the load's first one's unless another is named, divided by another's of the same round. */
export function ratio(
  { load, samples }: Result,
  peer: Peer,
  metric: Metric,
  of: Peer = load.peers[0],
): Spread | undefined {
  const own = samples.get(of) ?? [];
  const other = samples.get(peer) ?? [];
  const values = own.slice(0, other.length).map((sample, round) =>
    (sample[metric] ?? NaN) / (other[round][metric] ?? NaN)
  );
  return values.length === 0 || values.some(Number.isNaN) ? undefined : spreadOf(values);
}

/** How many times as good the load's first peer is, by its first metric: above 1, it is better. */
export function advantage(
  result: Result,
  peer: Peer,
  metric = result.load.metrics[0],
): Spread | undefined {
  const found = ratio(result, peer, metric);
  if (found === undefined || METRICS[metric].more) return found;
  return { median: 1 / found.median, least: 1 / found.most, most: 1 / found.least };
}

/** A number with separators, or with as many digits as it needs to tell three. */
export function format(value: number, digits = 0): string {
  return value.toLocaleString("en-US", {
    minimumFractionDigits: digits,
    maximumFractionDigits: digits,
  });
}

export function formatRatio(value: number): string {
  return `${value.toFixed(value < 10 ? 2 : 1)}×`;
}

/** A Markdown table; its first column is text, the others are numbers. */
export function table(rows: string[][]): string {
  const widths = rows[0].map((_, column) => Math.max(3, ...rows.map((row) => row[column].length)));
  const line = (cells: string[]) => `| ${cells.join(" | ")} |`;
  const padded = rows.map((row) =>
    line(row.map((cell, i) => i === 0 ? cell.padEnd(widths[i]) : cell.padStart(widths[i])))
  );
  const rule = line(
    widths.map((width, i) => i === 0 ? "-".repeat(width) : "-".repeat(width - 1) + ":"),
  );
  return [padded[0], rule, ...padded.slice(1)].join("\n");
}

/** A load's table: all peers, all metrics, and how many times as good the first is. */
export function loadTable(result: Result): string {
  const { load, samples } = result;
  const [first] = load.metrics;
  const short = load.peers[0].short;
  const rows = [["", ...load.metrics.map((metric) => METRICS[metric].label)]];
  rows[0].splice(2, 0, "least to most", ...(load.absolute ? [] : [`${short} is`]));
  for (const peer of samples.keys()) {
    const row = [peer.name];
    for (const metric of load.metrics) {
      const { digits } = METRICS[metric];
      const spread = measured(result, peer, metric);
      row.push(spread === undefined ? "–" : format(spread.median, digits));
      if (metric !== first) continue;
      row.push(
        spread === undefined
          ? "–"
          : `${format(spread.least, digits)}–${format(spread.most, digits)}`,
      );
      if (load.absolute) continue;
      const times = peer === load.peers[0] ? undefined : advantage(result, peer);
      row.push(
        times === undefined
          ? ""
          : `${formatRatio(times.median)} (${formatRatio(times.least)}–${formatRatio(times.most)})`,
      );
    }
    rows.push(row);
  }
  return `${load.title}:\n\n${table(rows)}`;
}

/** Puts text between a file's markers. */
export async function replaceSection(file: URL, text: string): Promise<void> {
  const before = await Deno.readTextFile(file);
  const begin = "<!-- bench -->";
  const end = "<!-- /bench -->";
  const from = before.indexOf(begin);
  const to = before.indexOf(end);
  if (from < 0 || to < from) {
    throw new Error(
      `Cannot write ${file.pathname} as it must have ${begin} and ${end}: it has not`,
    );
  }
  await Deno.writeTextFile(
    file,
    `${before.slice(0, from + begin.length)}\n\n${text.trim()}\n\n${before.slice(to)}`,
  );
}
