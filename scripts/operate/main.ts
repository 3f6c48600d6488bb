/**
 * Operates a site for an hour: two workers behind nginx, with an app that uses SQLite, streams, takes uploads, fails,
 * leaks and loops. Meanwhile workers get SIGKILL and SIGHUP, nginx restarts and reloads, and the logs are rotated:
 * `deno task operate [--minutes N] [--rate N] [--seed N]`.
 *
 * No request that may be repeated may be lost before its response has begun, no POST may have its effect twice, each
 * other loss must have a reason, and memory and descriptors must stay as they are.
 */
import { parseArgs } from "@std/cli/parse-args";
import { DatabaseSync } from "node:sqlite";
import { Random } from "../../tests/fuzz/bytes.ts";
import { pattern } from "../../tests/testing/bytes.ts";
import { CHUNKS } from "./app.ts";
import { type Outcome, type Received, send, type Sent } from "./client.ts";
import {
  account,
  describe,
  type Entry,
  type Event,
  isIdempotent,
  type Loss,
  lossOf,
  triesOf,
} from "./ledger.ts";
import { type Use, useOf, zombies } from "./processes.ts";
import { MAX_MEMORY, Site } from "./site.ts";

const SECOND = 1000;
const MINUTE = 60 * SECOND;
/** How often each thing happens, in milliseconds. */
const KILL = 10 * SECOND;
const RELOAD = 30 * SECOND;
const NGINX_RELOAD = 70 * SECOND;
const ROTATION = 100 * SECOND;
const NGINX_RESTART = 4 * MINUTE;
const LOOP = 5 * MINUTE;
/** Just after a reload, as the next one ends a worker that loops, too. */
const FIRST_LOOP = 34 * SECOND;
const SAMPLE = 5 * SECOND;
/** The most requests at once: a loop makes some wait. */
const MAX_CONCURRENT = 300;
/** How long a client that cannot connect tries again, and how often, in milliseconds. */
const RECONNECT = { limit: 30 * SECOND, delay: 50 };
/** How many of the notes are read again. */
const MAX_NOTES = 1000;
/** How much more a process may take in the last quarter than in the first. */
const GROWTH = { rss: 24 * 2 ** 20, descriptors: 4 };

const args = parseArgs(Deno.args, { string: ["minutes", "rate", "seed"] });
const duration = Number(args.minutes ?? 60) * MINUTE;
const rate = Number(args.rate ?? 80);
const random = new Random(Number(args.seed ?? 1));

const site = new Site();
const events: Event[] = [];
const losses: Loss[] = [];
const faults: string[] = [];
function fault(what: string): void {
  console.log(`FAULT: ${what}`);
  faults.push(what);
}
const counts = new Map<string, number>();
const count = (what: string, by = 1) => counts.set(what, (counts.get(what) ?? 0) + by);
const wait = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));
const UPLOAD = pattern(1_500_000);

/** The worker of each request that got a whole response. */
const served = new Map<number, number>();
/** What the client knows of each effect, and the notes that it has written. */
const effects = new Map<string, "done" | "unknown">();
const notes = new Set<string>();
let number = 0;

/** A kind of request: how often it comes, what is sent, and whether a response is right. */
interface Kind {
  weight: number;
  create(number: number): Sent;
  check(response: Received, sent: Sent): boolean | Promise<boolean>;
}

const noteOf = (id: string) => `note ${id}`;
const text = (body: Uint8Array) => new TextDecoder().decode(body);
const idOf = ({ path }: Sent) => new URL(path, "http://localhost").searchParams.get("id")!;

const KINDS: Kind[] = [
  {
    weight: 35,
    create: (n) => ({ method: "GET", path: `/hello?n=${n}` }),
    check: ({ status, body }) => status === 200 && text(body) === "hello\n",
  },
  {
    weight: 10,
    create: (n) => ({ method: "GET", path: `/slow?n=${n}` }),
    check: ({ status, body }) => status === 200 && text(body) === "slow\n",
  },
  {
    weight: 12,
    create: (n) => {
      const known = [...notes];
      return { method: "GET", path: `/note?id=${known[random.below(known.length)] ?? ""}&n=${n}` };
    },
    check: ({ status, body }, sent) => {
      const id = idOf(sent);
      return id === "" ? status === 404 : status === 200 && text(body) === noteOf(id);
    },
  },
  {
    weight: 8,
    create: (n) => {
      const body = new TextEncoder().encode(noteOf(String(n)));
      return { method: "PUT", path: `/note?id=${n}&n=${n}`, body };
    },
    check: ({ status }, sent) => {
      if (status === 200) notes.add(idOf(sent));
      if (notes.size > MAX_NOTES) notes.delete(notes.values().next().value!);
      return status === 200;
    },
  },
  {
    weight: 12,
    create: (n) => {
      effects.set(String(n), "unknown");
      return { method: "POST", path: `/effect?id=${n}&n=${n}`, body: pattern(500) };
    },
    check: ({ status }, sent) => {
      if (status === 201) effects.set(idOf(sent), "done");
      return status === 201;
    },
  },
  {
    weight: 4,
    create: (n) => ({
      method: "PUT",
      path: `/upload?n=${n}`,
      body: UPLOAD.slice(0, random.below(UPLOAD.length)),
    }),
    check: async ({ status, body }, sent) => {
      const digest = await crypto.subtle.digest("SHA-256", sent.body!);
      return status === 200 && text(body) === new Uint8Array(digest).toHex();
    },
  },
  {
    weight: 15,
    create: (n) => ({ method: "GET", path: `/stream?n=${n}` }),
    check: ({ status, body }) => status === 200 && body.length === CHUNKS * 1000,
  },
  {
    weight: 1,
    create: (n) => ({ method: "GET", path: `/fail?n=${n}` }),
    check: ({ status }) => status === 500,
  },
  {
    weight: 3,
    create: (n) => ({ method: "GET", path: `/leak?n=${n}` }),
    check: ({ status }) => status === 200,
  },
];
const BAG = KINDS.flatMap((kind) => Array<Kind>(kind.weight).fill(kind));

/** Sends a request as a browser does: again if nginx could not be reached, or, if it may be, if nginx did not respond. */
async function sendPatiently(sent: Sent): Promise<Outcome> {
  const end = performance.now() + RECONNECT.limit;
  for (;;) {
    const outcome = await send(site.port, sent);
    const again = outcome.kind === "refused" || outcome.kind === "reset" && isIdempotent(sent);
    if (!again || performance.now() > end) return outcome;
    count(`sent again: ${outcome.kind} while nginx restarted`);
    await wait(RECONNECT.delay);
  }
}

/** Sends a request and enters what becomes of it. */
async function perform(kind: Kind): Promise<void> {
  const n = ++number;
  const sent = kind.create(n);
  const begin = performance.now();
  const outcome = await sendPatiently(sent);
  const entry: Entry = { sent, outcome, begin, end: performance.now() };
  count("requests");
  if (isIdempotent(sent)) count("idempotent requests");
  count(`outcome: ${outcome.kind}`);
  if (outcome.kind === "response" && outcome.worker !== undefined) served.set(n, outcome.worker);
  if (outcome.kind === "response" && await kind.check(outcome, sent)) return;
  if (outcome.kind === "response" && outcome.status < 500) {
    fault(
      `a wrong response: ${outcome.status} ${text(outcome.body.slice(0, 100))}, ${sent.path}`,
    );
    return;
  }
  // The event that explains it is perhaps in a log that has yet to be read.
  await wait(3 * SECOND);
  readSupervisor();
  const loss = lossOf(entry, events);
  losses.push(loss);
  const at = Math.round((entry.end - started) / SECOND);
  const took = Math.round(entry.end - entry.begin);
  console.log(
    `${at} s: ${describe(loss)} after ${took} ms: ${loss.reason ?? "NOT EXPLAINED"}${
      loss.counts ? " (LOST)" : ""
    }; ${sent.path}`,
  );
}

let linesRead = 0;
/** Takes from the supervisor's log which workers it has killed or replaced. */
function readSupervisor(): void {
  for (const { at, text } of site.app.lines.slice(linesRead)) {
    linesRead++;
    const pid = Number(/^Worker (\d+)/.exec(text)?.[1]);
    if (/is killed.* event loop/.test(text)) {
      count("workers killed as they looped");
      events.push({ kind: "timeout", from: at, to: at, pid });
    } else if (text.includes(" is killed")) {
      count("workers killed as they did not end or start in time");
      events.push({ kind: "late end", from: at, to: at, pid });
    } else if (text.includes("is replaced as it must take")) count("workers replaced: memory");
    else if (text.includes("is replaced as it has begun")) count("workers replaced: requests");
    else if (text.startsWith("Reload failed")) count("reloads that a SIGKILL made fail");
    else if (/^Worker \d+ ended|^Worker \d+ has blocked|^Workers: |^Serving /.test(text)) {
      continue;
    } else if (/^\s+at |^$|^Error: meant to fail/.test(text)) continue;
    else count(`other lines of the log: ${text.replaceAll(/\d+/g, "N").slice(0, 120)}`);
  }
}

interface Sample {
  supervisor: Use;
  parent: Use;
  nginx: Use;
  workers: Use[];
  zombies: number;
}
const samples: Sample[] = [];

function sample(): void {
  readSupervisor();
  const { supervisor, workers } = site;
  const uses = [supervisor, site.app.child.pid, site.nginx.child.pid].map((pid) =>
    pid === undefined ? undefined : useOf(pid)
  );
  const [ofSupervisor, parent, nginx] = uses;
  if (ofSupervisor === undefined || parent === undefined) {
    return void fault("the supervisor or its parent has ended");
  }
  // nginx does not run for a moment when it restarts.
  if (nginx === undefined) return;
  const found = workers.map(useOf).filter((use) => use !== undefined);
  samples.push({
    supervisor: ofSupervisor,
    parent,
    nginx,
    workers: found,
    zombies: zombies(workers),
  });
}

const killed = new Set<number>();
/** Kills a worker, but not one that loops: --worker-timeout must end it. */
function killWorker(): void {
  const { looping } = site;
  const workers = site.workers.filter((pid) =>
    !killed.has(pid) && pid !== looping && useOf(pid) !== undefined
  );
  if (workers.length === 0) return;
  const pid = random.pick(workers);
  killed.add(pid);
  const at = performance.now();
  try {
    Deno.kill(pid, "SIGKILL");
  } catch {
    return;
  }
  count("workers killed by SIGKILL");
  events.push({ kind: "kill", from: at, to: at, pid });
}

async function restartNginx(): Promise<void> {
  const event: Event = { kind: "nginx restart", from: performance.now(), to: Infinity };
  events.push(event);
  count("restarts of nginx");
  await site.restartNginx();
  await site.ready();
  event.to = performance.now();
}

async function loop(): Promise<void> {
  count("loops");
  const outcome = await send(site.port, { method: "POST", path: "/loop" });
  const status = outcome.kind === "response" ? outcome.status : 0;
  count(`loops that ended with ${status || outcome.kind}`);
}

/** Calls a function at intervals until the end. What it rejects with is a fault. */
function every(ms: number, what: string, run: () => unknown, first: number = ms): () => void {
  const safely = async () => {
    try {
      await run();
    } catch (error) {
      fault(`${what}: ${error}`);
    }
  };
  let timer = setTimeout(() => {
    safely();
    timer = setInterval(safely, ms);
  }, first);
  return () => {
    clearTimeout(timer);
    clearInterval(timer);
  };
}

await site.ready();
const started = performance.now();
const pending = new Set<Promise<unknown>>();
const track = (promise: Promise<unknown>) => {
  pending.add(promise);
  promise.finally(() => pending.delete(promise));
};
let restarting: Promise<void> | undefined;
const stops = [
  every(KILL, "a kill", killWorker),
  every(RELOAD, "a reload", () => {
    count("reloads of the workers (SIGHUP)");
    site.app.child.kill("SIGHUP");
  }),
  every(NGINX_RELOAD, "a reload of nginx", async () => {
    await restarting;
    count("reloads of nginx");
    site.nginx.child.kill("SIGHUP");
  }),
  every(ROTATION, "a rotation", async () => {
    await restarting;
    count("rotations of the logs (SIGHUP, too)");
    site.rotate();
  }),
  every(NGINX_RESTART, "a restart of nginx", () => restarting = restartNginx(), 2 * MINUTE),
  every(LOOP, "a loop", () => track(loop()), FIRST_LOOP),
  every(SAMPLE, "a sample", sample),
  every(MINUTE, "a report", () => {
    const minutes = Math.round((performance.now() - started) / MINUTE);
    const lost = losses.filter(({ counts }) => counts).length;
    console.log(
      `${minutes} min: ${number} requests, ${losses.length} losses, ${lost} of them count, ${faults.length} faults`,
    );
  }),
];
while (performance.now() - started < duration) {
  const due = (performance.now() - started) / SECOND * rate;
  let sentNow = 0;
  for (; sentNow < due - number - (counts.get("left out") ?? 0); sentNow++) {
    if (pending.size < MAX_CONCURRENT) track(perform(random.pick(BAG)));
    else count("left out");
  }
  await wait(SECOND / rate);
}
for (const stop of stops) stop();
await restarting;
await Promise.all(pending);
const code = await site.stop();
readSupervisor();

/** Compares the effects that the app has stored with the responses that the client got. */
function checkEffects(): void {
  using database = new DatabaseSync(`${site.directory}/data.sqlite`);
  const rows = database.prepare("SELECT id, count FROM effects").all() as {
    id: string;
    count: number;
  }[];
  const kept = new Map(rows.map(({ id, count }) => [id, count]));
  for (const [id, state] of effects) {
    const times = kept.get(id) ?? 0;
    count(`POSTs: ${state === "done" ? "201" : "failed"}, with the effect ${times} times`);
    if (times > 1) fault(`POST ${id} had its effect ${times} times`);
    if (times === 0 && state === "done") fault(`POST ${id} had status 201 and no effect`);
  }
}

/** Checks that nginx's rotated logs have a line for each request that it responded to. */
function checkLog(): void {
  const lines = site.readLog("access").filter((line) => line.includes("n=")).length;
  const least = (counts.get("outcome: response") ?? 0) + (counts.get("outcome: cut") ?? 0);
  const most = number + [...counts].filter(([name]) => name.startsWith("sent again: reset"))
    .reduce((sum, [, count]) => sum + count, 0);
  count("lines in the access logs", lines);
  if (lines < least || lines > most) {
    fault(`the access logs have ${lines} lines: wanted ${least} to ${most}`);
  }
}

/** Checks that the app's rotated access logs have a line for each response, unless its worker was killed. */
function checkAppLog(): void {
  const logged = new Set<number>();
  for (const line of site.readLog("app")) {
    try {
      const n = /[?&]n=(\d+)/.exec(JSON.parse(line).url ?? "")?.[1];
      if (n !== undefined) logged.add(Number(n));
    } catch {
      fault(`a line of the app's access log is no JSON: ${line.slice(0, 100)}`);
    }
  }
  const killed = new Set(events.map(({ pid }) => pid));
  const missing = [...served].filter(([n]) => !logged.has(n));
  const unexplained = missing.filter(([, worker]) => !killed.has(worker));
  count("requests in the app's access logs", logged.size);
  count(
    "responses without such a line, as their worker was killed",
    missing.length - unexplained.length,
  );
  if (unexplained.length > 0) fault(`the app's access logs lack ${unexplained.length} lines`);
}

const median = (values: number[]) => values.sort((a, b) => a - b)[values.length >> 1] ?? 0;
const MiB = (bytes: number) => `${(bytes / 2 ** 20).toFixed(1)} MiB`;

/** Compares what the processes take in the first and in the last quarter. */
function checkUse(): void {
  const quarter = Math.floor(samples.length / 4);
  const first = samples.slice(0, quarter);
  const last = samples.slice(-quarter);
  const compare = (name: string, pick: (sample: Sample) => Use, growth = GROWTH.rss) => {
    const [before, after] = [first, last].map((some) => ({
      rss: median(some.map((sample) => pick(sample).rss)),
      descriptors: median(some.map((sample) => pick(sample).descriptors)),
    }));
    console.log(
      `  ${name.padEnd(24)} ${MiB(before.rss)} and ${before.descriptors} descriptors at first, ` +
        `${MiB(after.rss)} and ${after.descriptors} at last`,
    );
    if (after.rss - before.rss > growth) fault(`the memory of ${name} grows`);
    if (after.descriptors - before.descriptors > GROWTH.descriptors) {
      fault(`the descriptors of ${name} grow`);
    }
  };
  const sum = (uses: Use[]): Use => ({
    pid: 0,
    rss: uses.reduce((sum, { rss }) => sum + rss, 0),
    descriptors: uses.reduce((sum, { descriptors }) => sum + descriptors, 0),
  });
  compare("the command", ({ parent }) => parent);
  compare("the supervisor", ({ supervisor }) => supervisor);
  compare("nginx's master", ({ nginx }) => nginx);
  // They leak until they are replaced.
  compare("all workers", ({ workers }) => sum(workers), MAX_MEMORY * 2 ** 19);
  const all = samples.flatMap(({ workers }) => workers);
  const peak = Math.max(...all.map(({ rss }) => rss));
  const descriptors = Math.max(...all.map(({ descriptors }) => descriptors));
  console.log(`  a worker                 at most ${MiB(peak)} and ${descriptors} descriptors`);
  const most = Math.max(...samples.map(({ zombies }) => zombies));
  console.log(`  zombies                  at most ${most} at once`);
}

console.log(`\n${duration / MINUTE} minutes, ${rate} requests per second wanted:`);
checkEffects();
checkLog();
checkAppLog();
for (const [name, value] of [...counts].sort()) {
  console.log(`  ${String(value).padStart(8)} ${name}`);
}
console.log(`What they take (workers are replaced beyond ${MAX_MEMORY} MiB):`);
checkUse();
const grouped = Map.groupBy(
  losses,
  (loss) => `${loss.counts ? "LOST: " : ""}${describe(loss)}: ${loss.reason ?? "NOT EXPLAINED"}`,
);
console.log(`Losses: ${losses.length}`);
for (const [name, { length }] of [...grouped].sort()) {
  console.log(`  ${String(length).padStart(8)} ${name}`);
}
/** Says of each lost request which workers it met, and how they ended. */
function explainLost(): void {
  const lost = losses.filter(({ counts }) => counts);
  if (lost.length === 0) return;
  const begun = site.begun();
  const lines = site.readLog("access");
  for (const loss of lost) {
    const { path } = loss.entry.sent;
    const line = lines.find((line) => line.split(" ")[1] === path);
    const tries = line === undefined ? undefined : triesOf(line);
    const n = Number(new URL(path, "http://localhost").searchParams.get("n"));
    console.log(
      `           ${path}: ${
        tries === undefined
          ? "not in nginx's log"
          : account(loss, tries, begun.get(n) ?? [], events)
      }`,
    );
  }
}
explainLost();
const errors = site.readLog("error").filter((line) => !line.includes("meant to fail"))
  .map((line) =>
    line.replace(/^\S+ \S+ (\[\w+\]) \S+ (\*\d+ )?/, "$1 ").replace(/, client: .*/, "")
      .replaceAll(/\d+/g, "N")
  );
console.log("nginx's error log:");
for (const [name, { length }] of Map.groupBy(errors, (line) => line)) {
  console.log(`  ${String(length).padStart(8)} ${name.slice(0, 160)}`);
}
if (code !== 0) fault(`the workers' supervisor ended with ${code}`);
const lost = losses.filter((loss) => loss.counts).length;
if (lost > 0) fault(`${lost} requests were lost that may be repeated`);
const unexplained = losses.filter((loss) => loss.reason === undefined).length;
if (unexplained > 0) fault(`${unexplained} losses have no reason`);
if (faults.length === 0) {
  Deno.removeSync(site.directory, { recursive: true });
  console.log("No faults.");
} else {
  console.error(`${faults.length} faults (the logs are in ${site.directory}):`);
  for (const fault of faults) console.error(`  ${fault}`);
  Deno.exit(1);
}
