/** The table of docs/permissions.md: each row is run with exactly its flags, and with each of them missing. */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { fetchFastCGI } from "../gateway.ts";
import { freePort } from "./servers/harness.ts";
import { text } from "./testing/bytes.ts";
import { Daemon, ROOT } from "./testing/daemon.ts";
import { deadline } from "./testing/deadline.ts";
import { handDown } from "./testing/hand_down.ts";

/** A run of a row: what it is given in place of what the table names. */
interface Run {
  /** The folder of the app. */
  folder: string;
  /** `host:port`, or `unix:` and a path. */
  address: string;
  flags: string[];
}

/** What came of it: the body of the response, or the log of a program that ended. */
type Outcome = { body: string } | { log: string };

const APP = `export default () => new Response("Hello\\n");\n`;
const SERVE = `import { serve } from "${ROOT}mod.ts";\nimport app from "./app.ts";\n`;

const ROWS: Record<string, (run: Run) => Promise<Outcome>> = {
  "CGI script": runScript,
  "FastCGI on a socket of the web server": (run) => inherit(run, 0),
  "FastCGI on a socket of systemd": (run) => inherit(run, 3, { LISTEN_FDS: "1" }),
  "FastCGI or SCGI on TCP": listen,
  "FastCGI or SCGI on a Unix socket": listen,
  "HTTP": async (run) => {
    const [hostname, port] = run.address.split(":");
    const source = `${SERVE}await serve(app, { hostname: "${hostname}", port: ${port} });\n`;
    return await runDaemon(run, [write(run, source)], () => fetch(`http://${run.address}/`));
  },
  "prefork() on TCP": prefork,
  "prefork() on a Unix socket": prefork,
  "gatehouse serve /srv/app/app.ts": (run) => runDaemon(run, commandLine(run)),
  "the same with --workers 2": (run) => runDaemon(run, [...commandLine(run), "--workers", "2"]),
};

async function runScript(run: Run): Promise<Outcome> {
  const { stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["run", "--no-prompt", ...run.flags, write(run, `${SERVE}await serve(app);\n`)],
    env: { GATEWAY_INTERFACE: "CGI/1.1", REQUEST_METHOD: "GET", NO_COLOR: "1" },
    stdin: "null",
  }).output();
  return stdout.length > 0 ? { body: text(stdout).split("\r\n\r\n")[1] } : { log: text(stderr) };
}

async function inherit(run: Run, fd: number, env: Record<string, string> = {}): Promise<Outcome> {
  const args = [...run.flags, write(run, `${SERVE}await serve(app);\n`)];
  const where = { host: "127.0.0.1", port: 0 };
  const program = await handDown(where, fd, { ...env, NO_COLOR: "1" }, args);
  program.closeOurs();
  const response = fetchFastCGI("http://localhost/", program.address).then((it) => it.text());
  response.catch(() => {});
  const outcome = await Promise.race([
    program.ended.then(() => ({ log: program.log })),
    response.then((body) => ({ body }), () => program.ended.then(() => ({ log: program.log }))),
  ]);
  if ("body" in outcome) await program.stop();
  return outcome;
}

function listen(run: Run): Promise<Outcome> {
  const source = `import { listen, serveFastCGI } from "${ROOT}fastcgi.ts";
import app from "./app.ts";
serveFastCGI(app, await listen("${run.address}"));
`;
  return runDaemon(run, [write(run, source)]);
}

function prefork(run: Run): Promise<Outcome> {
  const worker = write(run, `${SERVE}await serve(app);\n`, "worker.ts");
  const options = { listen: run.address, workers: 2, command: ["run", "--allow-env", worker] };
  const source = `import { prefork } from "${ROOT}prefork.ts";
await prefork(${JSON.stringify(options)});
`;
  return runDaemon(run, [write(run, source)]);
}

function commandLine({ folder, address }: Run): string[] {
  return [`${ROOT}cli.ts`, "serve", `${folder}/app.ts`, "--listen", address];
}

function write({ folder }: Run, source: string, name = "program.ts"): string {
  Deno.writeTextFileSync(`${folder}/${name}`, source);
  return `${folder}/${name}`;
}

/** Runs a program until it responds or ends. */
async function runDaemon(
  { flags, address }: Run,
  args: string[],
  request: () => Promise<Response> = () => fetchFastCGI("http://localhost/", address),
): Promise<Outcome> {
  await using program = new Daemon([...flags, ...args], { env: { NO_COLOR: "1" } });
  let ended = false;
  program.ended.then(() => ended = true);
  while (!ended) {
    try {
      return { body: await (await request()).text() };
    } catch {
      // It does not listen yet, or has ended.
      await Promise.race([program.ended, new Promise((resolve) => setTimeout(resolve, 20))]);
    }
  }
  return { log: program.log };
}

/** Runs a row of the table. */
async function runRow(name: string, flags: string[]): Promise<Outcome> {
  const folder = await Deno.makeTempDir();
  try {
    await Deno.writeTextFile(`${folder}/app.ts`, APP);
    const tcp = `127.0.0.1:${freePort()}`;
    const socket = `${folder}/app.sock`;
    const isUnix = flags.join(" ").includes("/run/app.sock") || name.includes("Unix");
    const run: Run = {
      folder,
      address: isUnix ? `unix:${socket}` : tcp,
      flags: flags.map((flag) =>
        flag.replaceAll(/127\.0\.0\.1:\d+/g, tcp).replaceAll("/run/app.sock", socket)
          .replaceAll("/srv/app", folder).replaceAll("/usr/bin/deno", Deno.execPath())
      ),
    };
    return await deadline(ROWS[name](run), `${name}: ${flags.join(" ")}`, 60_000);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

/** Returns the rows of the table: what each is run as, and its flags. */
function readRows(): [name: string, flags: string[]][] {
  const lines = Deno.readTextFileSync(`${ROOT}docs/permissions.md`).split("\n").filter((line) =>
    line.startsWith("|")
  );
  return lines.slice(2).map((line) => {
    const [name, cell] = line.split("|").slice(1).map((text) => text.trim().replaceAll("`", ""));
    return [name, cell === "none" ? [] : cell.split(" ")];
  });
}

const TABLE = readRows();

Deno.test("the table of permissions has the ways to run an app", () => {
  assertEquals(TABLE.map(([name]) => name).sort(), Object.keys(ROWS).sort());
  for (const flag of TABLE.flatMap(([, flags]) => flags)) assert(flag.startsWith("--allow-"), flag);
});

for (const [name, flags] of TABLE) {
  Deno.test(`${name} serves with ${flags.join(" ") || "no permission"}`, async () => {
    assertEquals(await runRow(name, flags), { body: "Hello\n" });
  });
  for (const flag of flags) {
    Deno.test(`${name} without ${flag} ends with an error that names the flag`, async () => {
      const outcome = await runRow(name, flags.filter((other) => other !== flag));
      assert("log" in outcome, JSON.stringify(outcome));
      assertStringIncludes(outcome.log, flag.split("=")[0]);
    });
  }
}
