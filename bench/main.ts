/**
 * Runs the benchmarks: Gatehouse and every installed peer, one after the other in each round.
 *
 *   deno task bench [--quick] [--only LOAD,...] [--rounds N] [--seconds S] [--no-write] [--list]
 *
 * A complete run writes the tables of README.md and docs/benchmarks.md.
 */

import { parseArgs } from "node:util";
import { Generator } from "./generator.ts";
import { type Load, LOADS, median, type Plan, type Sample } from "./loads.ts";
import { type Peer, type Running, Unavailable } from "./peers.ts";
import { cores, output } from "./process.ts";
import { loadTable, replaceSection, type Result } from "./report.ts";
import { readmeSection } from "./readme.ts";
import { targetsTable } from "./targets.ts";

const HELP = `Measures Gatehouse and every installed peer.

  --quick         two minutes instead of eight, with less accurate numbers
  --only LOADS    only these loads: names or beginnings of names, separated by commas
  --rounds N      how many turns each peer has; default 7
  --seconds S     the duration of a turn; default 0.7
  --no-write      do not change README.md and docs/benchmarks.md
  --list          list the loads`;

/** The name and version of each available peer's software, or an empty string if it is shown elsewhere. */
const versions = new Map<Peer, string>();
const missing = new Set<Peer>();

/** Prepares a peer, once. Returns whether it is available. */
async function prepare(peer: Peer, directory: string): Promise<boolean> {
  if (versions.has(peer)) return true;
  if (missing.has(peer)) return false;
  try {
    versions.set(peer, await peer.prepare?.(directory) ?? "");
    return true;
  } catch (error) {
    missing.add(peer);
    console.log(`Skipped ${peer.name}: ${(error as Error).message}`);
    if (!(error instanceof Unavailable)) Deno.exitCode = 1;
    return false;
  }
}

async function stop(running: Running): Promise<void> {
  for (const process of running.processes.toReversed()) await process.stop();
  for (const process of running.behind ?? []) await process.stop();
}

/** Gives each peer its turns, round after round. A peer that fails gets no more turns. */
async function run(load: Load, plan: Plan, directory: string): Promise<Result> {
  const samples = new Map<Peer, Sample[]>();
  const servers = new Map<Peer, Running>();

  async function attempt(peer: Peer, action: () => Promise<void>): Promise<void> {
    try {
      await action();
    } catch (error) {
      console.error(`Removed ${peer.name} from "${load.key}": ${(error as Error).message}`);
      for (const { errors } of servers.get(peer)?.processes ?? []) console.error(errors);
      Deno.exitCode = 1;
      samples.delete(peer);
    }
  }

  async function serverOf(peer: Peer): Promise<Running> {
    const running = servers.get(peer) ?? await peer.start(load.setting);
    servers.set(peer, running);
    return running;
  }

  async function end(peer: Peer): Promise<void> {
    const running = servers.get(peer);
    servers.delete(peer);
    if (running) await stop(running);
  }

  try {
    for (const peer of load.peers) {
      if (!await prepare(peer, directory)) continue;
      samples.set(peer, []);
      if (!load.fresh) await attempt(peer, async () => load.check?.(await serverOf(peer), plan));
    }
    for (let round = 0; round < plan.rounds * (load.turns ?? 1); round++) {
      const turns = [...samples.keys()];
      // No peer always follows the same one.
      turns.push(...turns.splice(0, round % Math.max(turns.length, 1)));
      for (const peer of turns) {
        await attempt(peer, async () => {
          samples.get(peer)!.push(await load.measure(await serverOf(peer), plan));
        });
        if (load.fresh) await end(peer);
      }
    }
  } finally {
    for (const peer of servers.keys()) await end(peer);
  }
  return { load, samples };
}

/** Describes the machine, the software and the conditions of a run. */
async function describeRun(plan: Plan, results: Result[]): Promise<string> {
  let processor = Deno.build.arch as string;
  try {
    const info = await Deno.readTextFile("/proc/cpuinfo");
    processor = /model name\s*:\s*(.+)/.exec(info)?.[1] ?? processor;
  } catch {
    // Not Linux.
  }
  const system = (await output(["uname", "-sr"])).trim();
  const parts = [`Deno ${Deno.version.deno}`, ...new Set(versions.values().filter(Boolean))];
  return [
    `${processor}, ${navigator.hardwareConcurrency} cores, ${system}; ${parts.join(", ")}.`,
    cores
      ? "Each server has one core and the load generator another."
      : "Server and load generator share all cores: there is no `taskset`, or only one core.",
    `The load comes from \`bench/load.c\`; medians of ${plan.rounds} rounds.`,
    disturbance(results),
  ].filter(Boolean).join(" ");
}

/** Describes how much other programs disturbed the run. */
function disturbance(results: Result[]): string {
  const samples = results.flatMap(({ samples }) => [...samples.values()].flat());
  const shares = samples.map(({ others = NaN }) => others).filter((share) => !Number.isNaN(share));
  if (shares.length === 0) return "";
  const share = Math.round(median(shares));
  const generator = Math.round(Math.max(...samples.map(({ generator = 0 }) => generator)));
  return `The generator used at most ${generator}% of its core; in the median turn other programs used ${share}% of the server's${
    share > 3 ? ": the machine was busy, so only ratios and CPU times are meaningful." : "."
  }`;
}

function chooseLoads(only: string | undefined): Load[] {
  if (only === undefined) return LOADS;
  const names = only.split(",");
  const unknown = names.find((name) => !LOADS.some(({ key }) => key.startsWith(name)));
  if (unknown !== undefined) {
    console.error(`There is no load "${unknown}": --list lists all`);
    Deno.exit(2);
  }
  return LOADS.filter(({ key }) => names.some((name) => key.startsWith(name)));
}

const { values: options } = parseArgs({
  args: Deno.args,
  options: {
    quick: { type: "boolean", default: false },
    only: { type: "string" },
    rounds: { type: "string" },
    seconds: { type: "string" },
    "no-write": { type: "boolean", default: false },
    list: { type: "boolean", default: false },
    help: { type: "boolean", default: false },
  },
});
if (options.help || options.list) {
  console.log(options.list ? LOADS.map(({ key }) => key).join("\n") : HELP);
  Deno.exit();
}

const loads = chooseLoads(options.only);
const directory = await Deno.makeTempDir({ prefix: "gatehouse-bench-" });
try {
  const generator = await Generator.create(directory);
  const { quick } = options;
  const plan: Plan = {
    generator,
    rounds: Number(options.rounds ?? (quick ? 3 : 7)),
    seconds: Number(options.seconds ?? (quick ? 0.2 : 0.7)),
  };
  const results: Result[] = [];
  for (const load of loads) {
    const result = await run(load, plan, directory);
    results.push(result);
    console.log(`\n${loadTable(result)}`);
  }
  const about = await describeRun(plan, results);
  const targets = targetsTable(results);
  if (targets !== undefined) console.log(`\nTargets:\n\n${targets}`);
  console.log(`\n${about}`);
  if (!quick && options.only === undefined && !options["no-write"]) {
    const root = new URL("..", import.meta.url);
    const tables = results.map(loadTable).join("\n\n");
    await replaceSection(new URL("README.md", root), readmeSection(results, about));
    await replaceSection(
      new URL("docs/benchmarks.md", root),
      `${about}\n\n### Targets\n\n${targets}\n\n### All loads\n\n${tables}`,
    );
    await output([Deno.execPath(), "fmt", "-q", "README.md", "docs/benchmarks.md"], { cwd: root });
    console.log("\nWrote README.md and docs/benchmarks.md");
  }
} finally {
  await Deno.remove(directory, { recursive: true });
}
