/** The package as npm's side of a registry has it: JavaScript with types, below node_modules. */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import config from "../deno.json" with { type: "json" };
import { fetchFastCGI } from "../gateway.ts";
import { runScript } from "./testing/cgi_script.ts";
import { text } from "./testing/bytes.ts";
import { ROOT } from "./testing/daemon.ts";
import { Registry } from "./testing/registry.ts";
import { type OtherRuntime, RuntimeDaemon, testOn } from "./testing/runtimes.ts";

/** A project that has the package in node_modules. Created once, as it takes seconds. */
let project: Promise<string> | undefined;

/** Runs a program, and returns what it has written. */
async function run(command: string, options: Deno.CommandOptions): Promise<string> {
  const env = { NO_COLOR: "1", ...options.env };
  const { success, stdout, stderr } = await new Deno.Command(command, { ...options, env }).output();
  const said = text(stdout) + text(stderr);
  assert(success, said);
  return said;
}

function installed(): Promise<string> {
  return project ??= install();
}

async function install(): Promise<string> {
  const folder = await Deno.makeTempDir({ prefix: "gatehouse" });
  Deno.test.afterAll(() => Deno.remove(folder, { recursive: true }));
  await using registry = new Registry();
  await run(Deno.execPath(), {
    args: ["pack", "--quiet", "--allow-dirty", "--output", `${folder}/package.tgz`],
    cwd: ROOT,
    env: registry.env(folder),
  });
  const target = `${folder}/node_modules/${config.name}`;
  await Deno.mkdir(target, { recursive: true });
  await run("tar", {
    args: ["xzf", `${folder}/package.tgz`, "-C", target, "--strip-components=1"],
  });
  return folder;
}

/** Writes a file of the project. */
async function write(name: string, source: string): Promise<string> {
  const path = `${await installed()}/${name}`;
  await Deno.writeTextFile(path, source);
  return path;
}

const CGI = {
  GATEWAY_INTERFACE: "CGI/1.1",
  REQUEST_METHOD: "GET",
  REQUEST_URI: "/path",
  HTTP_HOST: "example.org",
};

testOn("the package of npm serves CGI", async (runtime: OtherRuntime) => {
  const path = await write(
    "script.mjs",
    `import { serve } from "${config.name}";
await serve((request, info) => new Response(info.protocol + " " + request.url));
`,
  );
  const { status, body, stderr } = await runScript(new URL(`file://${path}`), CGI, undefined, {
    program: runtime.command,
  });
  assertEquals([status, text(body)], [200, "cgi http://example.org/path"], stderr);
  assertEquals(stderr, "");
});

testOn("the package of npm serves FastCGI", async (runtime) => {
  const path = await write(
    "daemon.mjs",
    `import { listen, serveFastCGI } from "${config.name}/fastcgi";
const listener = await listen("127.0.0.1:0");
serveFastCGI(async (request) => new Response(await request.text()), listener);
console.log(JSON.stringify(listener.addr));
`,
  );
  await using program = new RuntimeDaemon(runtime, [path]);
  const { port } = await program.listening;
  const sent = new Request("http://localhost/", { method: "POST", body: "text" });
  const response = await fetchFastCGI(sent, `127.0.0.1:${port}`);
  assertEquals([response.status, await response.text()], [200, "text"], program.log);
});

testOn("the command line says that it needs Deno", async (runtime) => {
  const folder = await installed();
  // What arguments are parsed with, which npm installs as a dependency.
  const library = `${folder}/node_modules/@std/cli`;
  await Deno.mkdir(library, { recursive: true });
  await Deno.writeTextFile(`${library}/index.js`, "export function parseArgs() {}\n");
  await Deno.writeTextFile(
    `${library}/package.json`,
    JSON.stringify({ type: "module", exports: { "./parse-args": "./index.js" } }),
  );
  const [program, ...flags] = runtime.command;
  const { success, stderr } = await new Deno.Command(program, {
    args: [...flags, `${folder}/node_modules/${config.name}/cli.js`, "serve", "app.ts"],
    env: { NO_COLOR: "1" },
  }).output();
  assertEquals(success, false);
  assertStringIncludes(text(stderr), "Cannot run this command line without Deno: this is");
  assertStringIncludes(text(stderr), "Install Deno");
});

Deno.test("the package of npm has types, which need none of Deno's", async () => {
  const path = await write("app.ts", APP);
  const folder = path.slice(0, path.lastIndexOf("/"));
  await write("package.json", JSON.stringify({ dependencies: { [config.name]: "*" } }));
  const lib = ["esnext", "dom", "dom.iterable", "dom.asynciterable"];
  const options = { nodeModulesDir: "manual", compilerOptions: { lib, strict: true } };
  await write("deno.json", JSON.stringify(options));
  const said = await check(folder, path);
  assertEquals(said.success, true, said.text);
  // What is of no type has no type errors.
  await write("app.ts", APP.replace("info.protocol", "info.protocols"));
  assertStringIncludes((await check(folder, path)).text, "'protocols' does not exist");
});

async function check(cwd: string, path: string): Promise<{ success: boolean; text: string }> {
  const { success, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["check", "--all", path],
    cwd,
    env: { NO_COLOR: "1" },
  }).output();
  return { success, text: text(stdout) + text(stderr) };
}

const APP = `
import { type Handler, serve } from "${config.name}";
import { serveCGI } from "${config.name}/cgi";
import { inheritedListener, listen, serveFastCGI } from "${config.name}/fastcgi";
import { fastCGIGateway, fetchFastCGI, scgiGateway } from "${config.name}/gateway";
import { serveHTTP } from "${config.name}/http";
import { prefork } from "${config.name}/prefork";
import { serveSCGI } from "${config.name}/scgi";

const app: Handler = (request, info) =>
  new Response(request.url + info.remoteAddr.hostname + info.protocol + info.variables.get("A"));
await serve(app);
await serveCGI(app);
await using server = serveFastCGI({ fetch: app }, await listen("127.0.0.1:0"), {
  onListen: (addr) => console.log("port" in addr ? addr.port : addr.path),
});
await server.shutdown();
serveSCGI(app, await inheritedListener());
const response: Response = await fetchFastCGI("http://localhost/", "127.0.0.1:9000");
await using gateway = fastCGIGateway("127.0.0.1:9000");
using other = scgiGateway("unix:/run/app.sock");
export { gateway, other, prefork, response, serveHTTP };
`;
