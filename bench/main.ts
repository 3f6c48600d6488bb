/**
 * The benchmarks: Gatehouse and every peer that is installed, in one run, one after the other in each round.
 *
 *   deno task bench [--quick] [--only LOAD,...] [--rounds N] [--seconds S] [--no-write] [--list]
 *
 * A whole run writes the tables of README.md and docs/benchmarks.md.
 */

import { parseArgs } from "node:util";
import { Generator } from "./generator.ts";
import { type Load, LOADS, middle, type Plan, type Sample } from "./loads.ts";
import { type Peer, type Running, Unavailable } from "./peers.ts";
import { cores, output } from "./process.ts";
import { loadTable, replaceSection, type Result } from "./report.ts";
import { readmeSection } from "./readme.ts";
import { targetsTable } from "./targets.ts";

const HELP = `Measures Gatehouse and every peer that is installed.

  --quick         two minutes instead of eight; for a look, not for a number
  --only LOADS    some loads only, by name or by how the name begins, separated by commas
  --rounds N      how often each peer has its turn; default 7
  --seconds S     how long a turn takes; default 0.7
  --no-write      leave README.md and docs/benchmarks.md as they are
  --list          list the loads`;

/** The names and versions of the software of those who take part; empty where it is told elsewhere. */
const versions = new Map<Peer, string>();
const missing = new Set<Peer>();

/** Readies a peer, once; tells whether it takes part. */
async function prepare(peer: Peer, directory: string): Promise<boolean> {
  if (versions.has(peer)) return true;
  if (missing.has(peer)) return false;
  try {
    versions.set(peer, await peer.prepare?.(directory) ?? "");
    return true;
  } catch (error) {
    missing.add(peer);
    console.log(`Without ${peer.name}: ${(error as Error).message}`);
    if (!(error instanceof Unavailable)) Deno.exitCode = 1;
    return false;
  }
}

async function stop(running: Running): Promise<void> {
  for (const process of running.processes.toReversed()) await process.stop();
  for (const process of running.behind ?? []) await process.stop();
}

/** Gives each peer its turn, round after round; those that fail take no further part. */
async function run(load: Load, plan: Plan, directory: string): Promise<Result> {
  const samples = new Map<Peer, Sample[]>();
  const servers = new Map<Peer, Running>();

  async function attempt(peer: Peer, action: () => Promise<void>): Promise<void> {
    try {
      await action();
    } catch (error) {
      console.error(`Without ${peer.name} in "${load.key}": ${(error as Error).message}`);
      for (const { complaints } of servers.get(peer)?.processes ?? []) console.error(complaints);
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
      // So that nobody always comes after the same one.
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

/** Where and with what it was measured. */
async function surroundings(plan: Plan, results: Result[]): Promise<string> {
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

/** How much else went on. */
function disturbance(results: Result[]): string {
  const samples = results.flatMap(({ samples }) => [...samples.values()].flat());
  const shares = samples.map(({ others = NaN }) => others).filter((share) => !Number.isNaN(share));
  if (shares.length === 0) return "";
  const share = Math.round(middle(shares));
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
    console.error(`There is no load "${unknown}": --list tells which there are`);
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
  const about = await surroundings(plan, results);
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
