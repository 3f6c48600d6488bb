/** Calculates medians and ratios of measurements, and formats them as tables. */

import { type Load, median, type Metric, METRICS, type Sample } from "./loads.ts";
import type { Peer } from "./peers.ts";

/** The measurements of one load: the samples of each peer, one for each turn. */
export interface Result {
  load: Load;
  samples: Map<Peer, Sample[]>;
}

/** A median, and the range of the rounds. */
export interface Spread {
  median: number;
  least: number;
  most: number;
}

/** Returns the median and range of values. */
export function spreadOf(values: number[]): Spread {
  return { median: median(values), least: Math.min(...values), most: Math.max(...values) };
}

/** Returns a peer's metric over all rounds, or undefined if it was not measured. */
export function measured({ samples }: Result, peer: Peer, metric: Metric): Spread | undefined {
  const values = samples.get(peer)?.map((sample) => sample[metric] ?? NaN) ?? [];
  return values.length === 0 || values.some(Number.isNaN) ? undefined : spreadOf(values);
}

/**
 * Returns the metric of a peer divided by that of another in the same round.
 *
 * @param peer The peer whose metric is the divisor.
 * @param of The peer whose metric is divided. @default the first peer of the load
 */
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

/** Returns how many times as good as a peer the load's first peer is. Above 1 the first is better. */
export function advantage(
  result: Result,
  peer: Peer,
  metric = result.load.metrics[0],
): Spread | undefined {
  const found = ratio(result, peer, metric);
  if (found === undefined || METRICS[metric].more) return found;
  return { median: 1 / found.median, least: 1 / found.most, most: 1 / found.least };
}

/** Formats a number with separators and a fixed number of decimals. */
export function format(value: number, digits = 0): string {
  return value.toLocaleString("en-US", {
    minimumFractionDigits: digits,
    maximumFractionDigits: digits,
  });
}

export function formatRatio(value: number): string {
  return `${value.toFixed(value < 10 ? 2 : 1)}×`;
}

/** Formats a Markdown table. The first column is text, the others are numbers. */
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

/** Formats the table of a load: all peers, all metrics, and how many times as good the first peer is. */
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

/** Replaces the text between the markers of a file. */
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
