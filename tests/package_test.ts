/** The published package: README's own `jsr:` lines, from a registry. */
import { dirname } from "node:path";
import { assert, assertEquals, assertRejects } from "@std/assert";
import config from "../deno.json" with { type: "json" };
import { fetchFastCGI } from "../gateway.ts";
import { blocksOf, fileOf } from "./guides/guide.ts";
import { parseResponse } from "./testing/response.ts";
import { text } from "./testing/bytes.ts";
import type { Ended } from "./testing/command_line.ts";
import { Program, ROOT } from "./testing/daemon.ts";
import { deadline } from "./testing/deadline.ts";
import { freePort } from "./testing/free_port.ts";
import { testWith } from "./testing/needs.ts";
import { Registry } from "./testing/registry.ts";

const README = await Deno.readTextFile(`${ROOT}README.md`);
const README_ADDRESS = "127.0.0.1:9000";
/** Downloads and compiles all modules first. */
const START = 60_000;

/** The blocks of README in a language that mention a text. */
function blocks(language: string, mention: string): string[] {
  const fences = README.matchAll(/^```(\w+)[^\n]*\n(.*?)^```$/gms);
  return [...fences].filter(([, name, body]) => name === language && body.includes(mention))
    .map(([, , body]) => body);
}

/** A user's machine: `hello.ts` in an empty directory, and `deno` in PATH. */
class Machine implements AsyncDisposable {
  readonly directory = Deno.makeTempDirSync();
  /** Its own registry. A cache belongs to the URL of one. */
  readonly #registry: Registry | undefined;

  /** @param cache What Deno has downloaded and compiled: a folder to copy, or nothing yet. */
  constructor(cache: string | "empty" = CACHE) {
    this.#registry = cache === "empty" ? new Registry() : undefined;
    if (cache !== "empty") copyCache(cache, `${this.directory}/deno_dir`);
    const [hello, ...others] = blocks("ts", "jsr:@gatehouse/cgi");
    assertEquals(others, []);
    Deno.writeTextFileSync(`${this.directory}/hello.ts`, hello, { mode: 0o755 });
    Deno.mkdirSync(`${this.directory}/bin`);
    Deno.symlinkSync(Deno.execPath(), `${this.directory}/bin/deno`);
  }

  /** The arguments and environment of a user's program. */
  options(args: string[], env: Record<string, string> = {}): Deno.CommandOptions {
    return {
      args,
      cwd: this.directory,
      clearEnv: true,
      env: {
        PATH: `${this.directory}/bin:${Deno.env.get("PATH")}`,
        HOME: this.directory,
        DENO_DIR: `${this.directory}/deno_dir`,
        JSR_URL: (this.#registry ?? REGISTRY).url,
        NO_COLOR: "1",
        DENO_NO_UPDATE_CHECK: "1",
        ...env,
      },
    };
  }

  /** Runs README's command line, on a free port, with more options at its end. */
  async serve(command: string, options = ""): Promise<Served> {
    const address = `127.0.0.1:${freePort()}` as const;
    assert(command.includes(README_ADDRESS));
    const line = command.trim().replaceAll(README_ADDRESS, address);
    const program = new Program("/bin/sh", this.options(["-c", `exec ${line}${options}`]));
    await program.says(" on ", 1, START);
    return { program, address };
  }

  /** Writes files below the directory. */
  write(files: Record<string, string>): void {
    for (const [name, source] of Object.entries(files)) {
      const path = `${this.directory}/${name}`;
      Deno.mkdirSync(path.slice(0, path.lastIndexOf("/")), { recursive: true });
      Deno.writeTextFileSync(path, source);
    }
  }

  /** Starts a line of shell. */
  start(line: string, cwd = this.directory, options: Deno.CommandOptions = {}): Program {
    return new Program("/bin/sh", { ...this.options(["-c", `exec ${line}`]), ...options, cwd });
  }

  /** Runs a line of shell to its end. */
  async run(line: string, cwd = this.directory): Promise<Ended> {
    const command = new Deno.Command("/bin/sh", { ...this.options(["-c", line]), cwd });
    const { code, stdout, stderr } = await deadline(command.output(), line, START);
    return { code, stdout: text(stdout), stderr: text(stderr) };
  }

  /** Cuts it off from its own registry. */
  async disconnect(): Promise<void> {
    await this.#registry?.[Symbol.asyncDispose]();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.disconnect();
    await Deno.remove(this.directory, { recursive: true });
  }
}

/** The registry of all machines but those that begin with an empty cache. */
const REGISTRY = new Registry();
/** A cache that has this package. */
const CACHE = await fillCache();
/** The command line, installed with it. The tests share it, as it would be installed the same each time. */
const INSTALLED = `${dirname(CACHE)}/.deno/bin/gatehouse`;

/** Fills a cache, as most machines would do the same again. @returns Its folder, which is removed at the end. */
async function fillCache(): Promise<string> {
  const folder = Deno.makeTempDirSync();
  addEventListener("unload", () => Deno.removeSync(folder, { recursive: true }));
  const command = "deno run -A jsr:@gatehouse/cgi@0.3/cli";
  Deno.writeTextFileSync(`${folder}/app.ts`, "export default () => new Response();");
  // Other users run what is installed.
  Deno.chmodSync(folder, 0o755);
  const commands = ["serve app.ts --check", "serve app.ts --check --workers 1", "help dev"]
    .map((args) => `${command} ${args}`);
  for (const line of [...commands, await installation()]) {
    const { success, stderr } = await new Deno.Command("/bin/sh", {
      args: ["-c", `exec ${line}`],
      cwd: folder,
      env: { ...REGISTRY.env(folder), HOME: folder },
      stdin: "null",
    }).output();
    assert(success, text(stderr));
  }
  return `${folder}/deno_dir`;
}

/** Copies the databases of a cache. Its folders have a file for each module, so all copies share them. */
function copyCache(cache: string, copy: string): void {
  Deno.mkdirSync(copy);
  for (const { name, isFile } of Deno.readDirSync(cache)) {
    if (isFile) Deno.copyFileSync(`${cache}/${name}`, `${copy}/${name}`);
    else Deno.symlinkSync(`${cache}/${name}`, `${copy}/${name}`);
  }
}

interface Served {
  program: Program;
  address: `127.0.0.1:${number}`;
}

async function textOf(response: Promise<Response>): Promise<string> {
  return await (await deadline(response, "the response")).text();
}

Deno.test("README's hello.ts is a CGI script", async () => {
  await using machine = new Machine("empty");
  const script = new Deno.Command(`${machine.directory}/hello.ts`, {
    ...machine.options([], {
      GATEWAY_INTERFACE: "CGI/1.1",
      REQUEST_METHOD: "GET",
      REQUEST_URI: "/cgi-bin/hello.ts?name=Ann",
      SCRIPT_NAME: "/cgi-bin/hello.ts",
      SERVER_NAME: "example.org",
    }),
    stdin: "null",
  });
  const { code, stdout, stderr } = await deadline(script.output(), "the script", START);
  assertEquals(code, 0, text(stderr));
  const { status, body } = parseResponse(stdout);
  assertEquals([status, text(body)], [200, "Hello, Ann! This came over cgi.\n"]);
});

const [command, ...others] = blocks("sh", "serve hello.ts");
assertEquals(others, []);

Deno.test("README's command line serves hello.ts", async () => {
  await using machine = new Machine("empty");
  const { program, address } = await machine.serve(command);
  await using _program = program;
  const response = fetchFastCGI("http://localhost/?name=Ann", address);
  assertEquals(await textOf(response), "Hello, Ann! This came over fastcgi.\n");
  assertEquals((await program.stop()).code, 0);
});

for (const option of ["", " --base-path auto"]) {
  Deno.test(`README's command line${option} sees all routes behind stock fastcgi_params`, async () => {
    await using machine = new Machine();
    await Deno.writeTextFile(
      `${machine.directory}/hello.ts`,
      `export default (request, { scriptName, pathInfo }) =>
         Response.json([new URL(request.url).pathname, scriptName, pathInfo]);`,
    );
    const { program, address } = await machine.serve(command, option);
    await using _program = program;
    const variables = { SCRIPT_NAME: "/users/1", PATH_INFO: "" };
    const response = fetchFastCGI("http://localhost/users/1", address, { variables });
    assertEquals(await textOf(response), `["/users/1","","/users/1"]`);
  });
}

Deno.test("README's command line serves hello.ts with workers", async () => {
  await using machine = new Machine("empty");
  const { program, address } = await machine.serve(
    command.replace("deno run", "deno run --allow-run --allow-env"),
    " --workers 2",
  );
  await using _program = program;
  await program.says("Serving", 2);
  const response = fetchFastCGI("http://localhost/?name=Ann", address);
  assertEquals(await textOf(response), "Hello, Ann! This came over fastcgi.\n");
  assertEquals((await program.stop()).code, 0);
});

/** The line that installs the command line, as its documentation has it. */
async function installation(): Promise<string> {
  return /^ \* (deno install .*)$/m.exec(await Deno.readTextFile(`${ROOT}cli.ts`))![1];
}

Deno.test("deno install installs the command line", async () => {
  await using machine = new Machine();
  const { code, stderr } = await machine.run(await installation());
  assertEquals(code, 0, stderr);
  const run = async (args: string) => {
    const { code, stdout, stderr } = await machine.run(
      `${machine.directory}/.deno/bin/gatehouse ${args}`,
    );
    assertEquals(code, 0, stderr);
    return stdout;
  };
  assertEquals(await run("--version"), `${config.version}\n`);
  for (const command of ["serve", "dev", "fetch", "config", "doctor"]) {
    assert((await run(`help ${command}`)).includes("Example:"));
  }
  assert((await run("config systemd")).includes("jsr:@gatehouse/cgi@"));
});

/** An app as people have it, whose imports its config declares. */
interface Project {
  files: Record<string, string>;
  app: string;
  /** What it responds. */
  text: string;
}

/** An app that responds with what it imports under each of some names. */
function appOf(names: string[]): string {
  const imports = names.map((name, i) => `import * as m${i} from "${name}";\n`).join("");
  const values = names.map((_, i) => `m${i}.default`).join(", ");
  return `${imports}export default () => new Response([${values}].join());\n`;
}

const PACKAGE = {
  "site/node_modules/greet/package.json": `{ "name": "greet", "version": "1.0.0", "main": "a.js" }`,
  "site/node_modules/greet/a.js": `module.exports = "from node_modules";`,
};

const PROJECTS: Record<string, Project> = {
  "deno.json with path aliases": {
    files: {
      "site/deno.jsonc": `{ "imports": { "greet": "./lib/greet.ts", "@/": "./lib/", }, } // mine`,
      "site/lib/greet.ts": `export default "an import";`,
      "site/lib/path.ts": `export default "a path";`,
      "site/src/app.ts": appOf(["greet", "@/path.ts"]),
    },
    app: "site/src/app.ts",
    text: "an import,a path",
  },
  "package.json with node_modules": {
    files: {
      ...PACKAGE,
      "site/package.json":
        `{ "dependencies": { "greet": "1.0.0" }, "imports": { "#b": "./b.js" } }`,
      "site/b.js": `export default "from package.json";`,
      "site/build/index.js": appOf(["greet", "#b"]),
    },
    app: "site/build/index.js",
    text: "from node_modules,from package.json",
  },
  "package.json of CommonJS": {
    files: {
      ...PACKAGE,
      "site/package.json": `{ "type": "commonjs", "dependencies": { "greet": "1.0.0" } }`,
      "site/app.js": `const greet = require("greet"); module.exports = () => new Response(greet);`,
    },
    app: "site/app.js",
    text: "from node_modules",
  },
  "deno.json with package.json": {
    files: {
      ...PACKAGE,
      "site/deno.json": `{ "imports": { "own": "./own.ts" } }`,
      "site/package.json": `{ "dependencies": { "greet": "1.0.0" } }`,
      "site/own.ts": `export default "an import";`,
      "site/app.ts": appOf(["own", "greet"]),
    },
    app: "site/app.ts",
    text: "an import,from node_modules",
  },
  "a member of a workspace": {
    files: {
      "site/deno.json": `{ "workspace": ["./web", "./lib"], "imports": { "root": "./root.ts" } }`,
      "site/root.ts": `export default "of the root";`,
      "site/lib/deno.json": `{ "name": "@site/lib", "version": "1.0.0", "exports": "./mod.ts" }`,
      "site/lib/mod.ts": `export default "of another member";`,
      "site/web/deno.json": `{ "imports": { "own": "./own.ts" } }`,
      "site/web/own.ts": `export default "its own";`,
      "site/web/app.ts": appOf(["own", "@site/lib", "root"]),
    },
    app: "site/web/app.ts",
    text: "its own,of another member,of the root",
  },
};

const LOCK = `{ "version": "5" }`;

/** Commands that start children, each from another folder than the app's. */
const PARENTS: [name: string, line: string][] = [
  ["deno run", "deno run -A jsr:@gatehouse/cgi@0.3/cli"],
  ["an installed command", INSTALLED],
];

for (const [project, { files, app, text }] of Object.entries(PROJECTS)) {
  Deno.test(`workers and dev find ${project}, from another folder`, async () => {
    await using machine = new Machine();
    machine.write({
      ...files,
      "elsewhere/deno.json": `{ "imports": { "greet": "./x.ts" } }`,
      "site/deno.lock": LOCK,
    });
    const elsewhere = `${machine.directory}/elsewhere`;
    for (const [name, line] of PARENTS) {
      const serve = `${line} serve ../${app} --workers 1 --listen 127.0.0.1:0`;
      const check = await machine.run(`${serve} --check`, elsewhere);
      assertEquals([check.code, check.stdout], [0, `../${app} is an app\n`], name + check.stderr);
      await using workers = machine.start(serve, elsewhere);
      await workers.says("Workers: 1", 1, START);
      const address = / on (127\S+)/.exec(workers.log)![1];
      assertEquals(await textOf(fetchFastCGI("http://localhost/", address)), text, name);
      await using dev = machine.start(
        `${line} dev ${machine.directory}/${app} --port 0 >&2`,
        elsewhere,
      );
      await dev.says("Open http://", 1, START);
      const [url] = /http:\S+/.exec(dev.log)!;
      assertEquals(await textOf(fetch(url)), text, name);
    }
    // Deno would have added the package of the children.
    assertEquals(await Deno.readTextFile(`${machine.directory}/site/deno.lock`), LOCK);
  });
}

Deno.test("workers and dev start with a frozen lock file, and without the registry", async () => {
  await using machine = new Machine("empty");
  machine.write({
    "site/deno.json": `{ "lock": { "frozen": true }, "imports": { "greet": "./greet.ts" } }`,
    "site/deno.lock": LOCK,
    "site/greet.ts": `export default "frozen";`,
    "site/app.ts": appOf(["greet"]),
    "elsewhere/a": "",
  });
  const elsewhere = `${machine.directory}/elsewhere`;
  const run = "deno run -A jsr:@gatehouse/cgi@0.3/cli";
  const check = `${run} serve ../site/app.ts --workers 1 --check`;
  const { code, stderr } = await machine.run(check, elsewhere);
  assertEquals(code, 0, stderr);
  await machine.disconnect();

  await using workers = machine.start(
    `${run} serve ../site/app.ts --workers 1 --listen 127.0.0.1:0`,
    elsewhere,
  );
  await workers.says("Workers: 1", 1, START);
  const address = / on (127\S+)/.exec(workers.log)![1];
  assertEquals(await textOf(fetchFastCGI("http://localhost/", address)), "frozen");
  await using dev = machine.start(`${run} dev ../site/app.ts --port 0 >&2`, elsewhere);
  await dev.says("Open http://", 1, START);
  assertEquals(await textOf(fetch(/http:\S+/.exec(dev.log)![0])), "frozen");
  assertEquals(await Deno.readTextFile(`${machine.directory}/site/deno.lock`), LOCK);
});

/** Returns the line that a message says to type. */
function lineOf(stderr: string): string {
  const found = /^ {2}(deno run .*)$/m.exec(stderr);
  assert(found !== null, stderr);
  return found[1];
}

for (const [project, { files, app, text }] of Object.entries(PROJECTS)) {
  Deno.test(`serve without workers finds ${project} in its folder, else prints the line to type`, async () => {
    await using machine = new Machine();
    machine.write({ ...files, "elsewhere/a": "" });
    const path = `${machine.directory}/${app}`;
    const own = path.slice(0, path.lastIndexOf("/"));
    const elsewhere = `${machine.directory}/elsewhere`;
    const run = "deno run --allow-read --allow-net=127.0.0.1:0 jsr:@gatehouse/cgi@0.3/cli";

    const here = await machine.run(`${run} serve ${path} --check`, own);
    assertEquals([here.code, here.stdout], [0, `${path} is an app\n`], here.stderr);
    for (const [line, cwd] of [[run, elsewhere], [INSTALLED, elsewhere], [INSTALLED, own]]) {
      const check = await machine.run(`${line} serve ${path} --check`, cwd);
      assertEquals(check.code, 1, line);
      assert(!check.stderr.includes("deno add"), check.stderr);
      const again = await machine.run(lineOf(check.stderr), cwd);
      assertEquals([again.code, again.stdout], [0, `${path} is an app\n`], again.stderr);
      const { code, stderr } = await machine.run(`${line} serve ${path} -l 127.0.0.1:0`, cwd);
      assertEquals(code, 1, stderr);
      await using program = machine.start(lineOf(stderr), cwd);
      await program.says(" on ", 1, START);
      const address = / on (127\S+)/.exec(program.log)![1];
      assertEquals(await textOf(fetchFastCGI("http://localhost/", address)), text);
    }
  });
}

Deno.test("an import that the config of the app lacks is reported with Deno's hint", async () => {
  await using machine = new Machine();
  machine.write({ "site/deno.json": "{}", "site/app.ts": appOf(["hono"]) });
  for (const more of ["--check", "--workers 1 --check"]) {
    const line = `deno run -A jsr:@gatehouse/cgi@0.3/cli serve app.ts ${more}`;
    const { code, stderr } = await machine.run(line, `${machine.directory}/site`);
    assertEquals(code, 1);
    assert(stderr.includes('Cannot load app.ts: Import "hono" not a dependency'), stderr);
    assert(stderr.includes("deno add npm:hono"), stderr);
    assert(!stderr.includes("Type"), stderr);
  }
});

Deno.test("a worker with another config names the one to add", async () => {
  await using machine = new Machine();
  const { files, app } = PROJECTS["deno.json with path aliases"];
  machine.write({ ...files, "other.json": "{}" });
  const line = `deno run -A --config other.json jsr:@gatehouse/cgi@0.3/cli serve ${app} -w 1`;
  const { code, stderr } = await machine.run(`${line} -l 127.0.0.1:0`);
  assertEquals(code, 3);
  const flag = `--config=${machine.directory}/site/deno.jsonc`;
  assert(stderr.includes(`Add ${flag} to the flags of its "deno run"`), stderr);
});

// The commands of a unit are run from /, by a user that may write to its cache only.
for (const [project, { files, app, text }] of Object.entries(PROJECTS)) {
  const variants = project.startsWith("package.json") ? ["", " --workers 2"] : [""];
  for (const workers of variants) {
    testWith(
      { "systemd-socket-activate": "systemd", setpriv: "util-linux" },
      `config systemd${workers} runs ${project} as a user that may not write to it`,
      async () => {
        await using machine = new Machine();
        machine.write({ ...files, "site/deno.lock": LOCK, "cache/app/a": "" });
        const path = `${machine.directory}/${app}`;
        const units = await machine.run(`${INSTALLED} config systemd --app ${path}${workers}`);
        assertEquals(units.code, 0, units.stderr);
        const value = (name: string) =>
          [...units.stdout.matchAll(new RegExp(`^${name}=(.*)$`, "gm"))].map(([, value]) =>
            value.replaceAll("%C", `${machine.directory}/cache`)
          );
        assert(path.startsWith(value("WorkingDirectory")[0]));
        await machine.run("chmod -R a+rX . && chmod 777 cache/app");
        const address = `127.0.0.1:${freePort()}`;
        // StandardInput=socket
        const input = workers === "" ? "" : " <&3 3<&-";
        const commands = [...value("ExecStartPre"), `exec ${value("ExecStart")[0]}${input}`];
        const nobody = Deno.uid() === 0
          ? "exec setpriv --reuid 65534 --regid 65534 --clear-groups"
          : "exec";
        await using program = new Program("systemd-socket-activate", {
          ...machine.options([
            ...["--listen", address, "--setenv=JSR_URL", "--setenv=PATH"],
            ...value("Environment").map((assignment) => `--setenv=${assignment}`),
            ...["sh", "-c", `${nobody} sh -c '${commands.join(" && ")}'`],
          ]),
          cwd: "/",
        });
        await program.says("Listening on", 1, START);
        assertEquals(await textOf(fetchFastCGI("http://localhost/", address)), text, program.log);
        assertEquals(await Deno.readTextFile(`${machine.directory}/site/deno.lock`), LOCK);
      },
    );
  }
}

Deno.test("workers leave a frozen lock file alone, and use one that has the package", async () => {
  await using machine = new Machine();
  const { files, app } = PROJECTS["deno.json with path aliases"];
  machine.write({ ...files, "site/deno.lock": LOCK });
  const config = `${machine.directory}/site/deno.jsonc`;
  const source = files["site/deno.jsonc"].replace("{", '{ "lock": { "frozen": true },');
  await Deno.writeTextFile(config, source);
  const line = "deno run -A jsr:@gatehouse/cgi@0.3/cli serve";
  const copies = `${machine.directory}/deno_dir/gatehouse`;
  const check = async () => {
    const { code, stderr } = await machine.run(`${line} ${app} --workers 1 --check`);
    assertEquals(code, 0, stderr);
  };
  await check();
  assertEquals([...Deno.readDirSync(copies)].length, 1);
  await Deno.remove(copies, { recursive: true });
  // As a user who may change it.
  const thaw = `deno cache --frozen=false --config ${config} jsr:@gatehouse/cgi@0.3/cli`;
  assertEquals((await machine.run(thaw)).code, 0);
  await check();
  await assertRejects(() => Deno.stat(copies), Deno.errors.NotFound);
});

testWith(
  { setpriv: "util-linux" },
  "a project whose lock file has the package is served by a user that may not write to it",
  async () => {
    await using machine = new Machine();
    const { files } = PROJECTS["deno.json with package.json"];
    machine.write({ ...files, "cache/a": "" });
    const site = `${machine.directory}/site`;
    // As docs/containers.md says.
    const { code, stderr } = await machine.run(
      "deno cache jsr:@gatehouse/cgi@0.3/cli app.ts",
      site,
    );
    assertEquals(code, 0, stderr);
    await machine.run("chmod -R a+rX . && chmod 777 cache");
    const nobody = Deno.uid() === 0 ? "setpriv --reuid 65534 --regid 65534 --clear-groups" : "";
    const line =
      `${nobody} env DENO_DIR=${machine.directory}/cache deno run --no-prompt -A jsr:@gatehouse/cgi@0.3/cli`;
    for (const more of ["", " --workers 1"]) {
      const check = await machine.run(`${line} serve app.ts --check${more}`, site);
      assertEquals([check.code, check.stdout], [0, "app.ts is an app\n"], check.stderr);
    }
  },
);

Deno.test("the command line says what to write in the script of the shared hosting guide", async () => {
  await using machine = new Machine("empty");
  machine.write({ "guide.ts": fileOf(blocksOf("shared-hosting.md"), "hello.ts") });
  const line = "deno run -A jsr:@gatehouse/cgi@0.3/cli";
  for (const args of ["serve guide.ts --check", "serve guide.ts -l 127.0.0.1:0"]) {
    const { code, stderr } = await machine.run(`${line} ${args}`);
    assert(stderr.includes("  if (import.meta.main) await serve(app);"), stderr);
    assertEquals(code, 2);
  }
  await using dev = machine.start(`${line} dev guide.ts --port 0`);
  await dev.says("guide.ts calls serve() itself", 1, START);
  await dev.says("The app does not start. Correct it and save it", 1, START);
});

Deno.test("workers and dev have the permission set of the working folder", async () => {
  await using machine = new Machine();
  machine.write({
    "site/deno.json": `{
      "imports": { "greet": "./greet.ts" },
      "permissions": { "web": { "read": ["./", "${
      dirname(machine.directory)
    }"], "net": true, "env": true, "run": true, "write": true } }
    }`,
    "site/greet.ts":
      `export default Deno.permissions.querySync({ name: "read", path: "/" }).state;`,
    "site/app.ts": appOf(["greet"]),
  });
  const line = "deno run -P=web jsr:@gatehouse/cgi@0.3/cli";
  const site = `${machine.directory}/site`;
  await using workers = machine.start(
    `${line} serve app.ts --workers 1 --listen 127.0.0.1:0`,
    site,
  );
  await workers.says("Workers: 1", 1, START);
  const address = / on (127\S+)/.exec(workers.log)![1];
  assertEquals(await textOf(fetchFastCGI("http://localhost/", address)), "prompt");
  await using dev = machine.start(`${line} dev app.ts --port 0 >&2`, site);
  await dev.says("Open http://", 1, START);
  assertEquals(await textOf(fetch(/http:\S+/.exec(dev.log)![0])), "prompt");
});
