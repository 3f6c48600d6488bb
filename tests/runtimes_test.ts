/** What Node and Bun do otherwise than Deno, each where it was seen. */
import { assert, assertEquals, assertFalse, assertStringIncludes } from "@std/assert";
import { fastCGIGateway, fetchFastCGI } from "../gateway.ts";
import { feed, runScript, spawn } from "./testing/cgi_script.ts";
import { bytes, text } from "./testing/bytes.ts";
import { ROOT } from "./testing/daemon.ts";
import { deadline } from "./testing/deadline.ts";
import { FastCGIClient, request } from "./testing/fastcgi_client.ts";
import { abortRequest } from "./testing/fastcgi_records.ts";
import { handDown, type HandedDown, keepSocket } from "./testing/hand_down.ts";
import { type OtherRuntime, packaged, RuntimeDaemon, testOn } from "./testing/runtimes.ts";

const APP = "tests/testing/runtime_app.ts";
const CGI = {
  GATEWAY_INTERFACE: "CGI/1.1",
  REQUEST_METHOD: "GET",
  REQUEST_URI: "/",
  HTTP_HOST: "example.org",
};

/** Starts the app as a web server spawns a FastCGI application. */
async function withApplication(
  runtime: OtherRuntime,
  use: (app: HandedDown, client: FastCGIClient) => Promise<void>,
  flags: string[] = [],
): Promise<void> {
  const folder = await Deno.makeTempDir();
  const app = await handDown(
    await keepSocket({ path: `${folder}/app.sock` }),
    0,
    {},
    [packaged(runtime, APP)],
    "unlimited",
    [...runtime.command, ...flags],
  );
  try {
    const conn = await Deno.connect({ transport: "unix", path: `${folder}/app.sock` });
    try {
      await use(app, new FastCGIClient(conn));
    } finally {
      conn.close();
    }
    assertEquals(await app.stop(), 0, app.log);
  } finally {
    app.kill();
    await Deno.remove(folder, { recursive: true });
  }
}

/** Runs the app as a CGI script. */
function run(runtime: OtherRuntime, env: Record<string, string>, body?: Uint8Array) {
  const script = new URL(`file://${packaged(runtime, APP)}`);
  return runScript(script, { ...CGI, ...env }, body, { program: runtime.command });
}

testOn("serve() responds on an inherited Unix socket", async (runtime) => {
  await withApplication(runtime, async (app, client) => {
    await client.send(request());
    const { status, body } = await client.response();
    assertEquals([status, text(body)], [200, '["GET","http://example.org/",false]']);
    assertFalse(/error|warn/i.test(app.log), app.log);
  });
});

testOn("a signal aborts although only it was kept of the request", async (runtime) => {
  await withApplication(runtime, async (app, client) => {
    await client.send(request({ variables: { REQUEST_URI: "/signal" }, keep: true }));
    await app.says("collected");
    await client.send(abortRequest(1));
    await app.says("aborted");
  }, ["--expose-gc"]);
});

testOn("requests leave no memory behind", async (runtime) => {
  await withApplication(runtime, async (app) => {
    await using gateway = fastCGIGateway(app.address);
    const send = async (count: number) => {
      for (let left = count; left > 0; left -= 20) {
        await Promise.all(Array.from({ length: 20 }, async () => {
          const request = new Request("http://localhost/echo", { method: "POST", body: "body" });
          assertEquals(await (await gateway(request)).text(), "body");
        }));
      }
      return Number(await (await gateway(new Request("http://localhost/memory"))).text());
    };
    const before = await send(1000);
    const after = await send(3000);
    // A kilobyte a request would be 3 MB.
    assert(after - before < 2_000_000, `${before} and ${after} bytes`);
  }, ["--expose-gc"]);
});

testOn("SIGUSR1 lets a request finish, then ends the application", async (runtime) => {
  const folder = await Deno.makeTempDir();
  const path = `${folder}/app.sock`;
  const command = runtime.command;
  const socket = await keepSocket({ path });
  const app = await handDown(socket, 0, {}, [packaged(runtime, APP)], "unlimited", command);
  try {
    const response = fetchFastCGI("http://localhost/slow", `unix:${path}`);
    await app.says("begun");
    Deno.kill(app.pid, "SIGUSR1" as Deno.Signal);
    assertEquals(await (await response).text(), "finished");
    assertEquals(await deadline(app.ended, "the end of the application"), 0);
    assertFalse(app.log.includes("Debugger"), app.log);
  } finally {
    app.kill();
    await Deno.remove(folder, { recursive: true });
  }
});

testOn("a body that arrives late is read, on a pipe that is non-blocking too", async (runtime) => {
  // With this import Node makes standard input non-blocking.
  const imports = ["", 'import process from "node:process";\nprocess.stdin;\n'];
  for (const [at, first] of imports.entries()) {
    const folder = packaged(runtime, APP).replace(/tests\/testing\/.*/, "");
    const script = `${folder}late_${at}.${runtime.name === "Bun" ? "ts" : "js"}`;
    const ending = runtime.name === "Bun" ? "ts" : "js";
    const source = `${first}import { serve } from "./mod.${ending}";\n` +
      "await serve(async (request) => {\n" +
      "  const body = request.bytes();\n" +
      '  console.error("reads");\n' +
      "  return new Response(await body);\n" +
      "});\n";
    const file = runtime.name === "Bun" ? await Deno.makeTempFile({ suffix: ".ts" }) : script;
    await Deno.writeTextFile(file, source.replace('"./mod', `"${folder}mod`));
    const env = { ...CGI, REQUEST_METHOD: "POST", CONTENT_LENGTH: "200000" };
    const child = spawn(new URL(`file://${file}`), env, { program: runtime.command });
    // It reads before anything is there.
    const stderr = child.stderr.pipeThrough(new TextDecoderStream()).getReader();
    let log = "";
    while (!log.includes("reads")) {
      const { value, done } = await deadline(stderr.read(), `the script to read: ${log}`);
      assert(!done, log);
      log += value;
    }
    const [stdout] = await Promise.all([
      new Response(child.stdout).text(),
      feed(child, new Uint8Array(200_000).fill(120)),
    ]);
    assertEquals(stdout.split("\r\n\r\n")[1]?.length, 200_000);
    await stderr.cancel();
    await child.status;
    await Deno.remove(file);
  }
});

testOn("a script whose body never comes ends although a read is pending", async (runtime) => {
  const script = new URL(`file://${packaged(runtime, APP)}`);
  const env = { ...CGI, REQUEST_METHOD: "POST", REQUEST_URI: "/switch", CONTENT_LENGTH: "5" };
  const child = spawn(script, env, { program: runtime.command });
  const { stdout } = await deadline(child.output(), "the script's end", 30_000);
  assertStringIncludes(text(stdout), "Status: 500");
  await child.stdin.close().catch(() => {});
});

testOn("a status that no Response can have is an error of the app", async (runtime) => {
  const { status, stderr } = await run(runtime, { REQUEST_URI: "/switch" });
  assertEquals(status, 500);
  assertStringIncludes(stderr, "status");
});

testOn("a response with status 204 has no body", async (runtime) => {
  const { status, body } = await run(runtime, { REQUEST_URI: "/no-content" });
  // Node does not create one with a body.
  assertEquals(
    [status, text(body).length > 0],
    runtime.name === "Node" ? [500, true] : [204, false],
  );
});

testOn(
  "a method that the runtime does not know: Node keeps it, Bun refuses it",
  async (runtime) => {
    const { status, body } = await run(runtime, { REQUEST_METHOD: "BREW" });
    assertEquals(status, runtime.name === "Node" ? 200 : 501);
    assertEquals(text(body).includes("BREW"), runtime.name === "Node");
  },
);

testOn("a target with credentials is refused", async (runtime) => {
  const { status } = await run(runtime, { REQUEST_URI: "http://user:secret@example.org/" });
  assertEquals(status, 400);
});

testOn(
  "a script echoes 10 MB to a server that writes all before it reads (rule B20)",
  async (runtime) => {
    const script = new URL(`file://${packaged(runtime, APP)}`);
    const length = 10_000_000;
    const env = {
      ...CGI,
      REQUEST_METHOD: "POST",
      REQUEST_URI: "/pipe",
      CONTENT_LENGTH: `${length}`,
    };
    const child = spawn(script, env, { program: runtime.command });
    await deadline(feed(child, new Uint8Array(length).fill(120)), "the script to read all", 30_000);
    const { stdout, stderr } = await deadline(child.output(), "the script's end", 30_000);
    assertEquals(text(stdout).split("\r\n\r\n")[1]?.length, length, text(stderr));
  },
);

testOn("a body is read as a stream", async (runtime) => {
  const env = { REQUEST_METHOD: "POST", REQUEST_URI: "/echo", CONTENT_LENGTH: "4" };
  assertEquals(text((await run(runtime, env, bytes("body"))).body), "body");
});

testOn("console.log() of a script writes to stderr", async (runtime) => {
  const { status, stderr } = await run(runtime, {});
  assertEquals(status, 200);
  assertStringIncludes(stderr, "a line");
});

testOn("a variable that is not UTF-8 keeps its bytes", async (runtime) => {
  const file = await Deno.makeTempFile({ suffix: ".sh" });
  const script = "#!/bin/sh\nPATH_INFO=$(printf '/caf\\351') exec \"$@\"\n";
  await Deno.writeTextFile(file, script);
  const { stdout } = await new Deno.Command("/bin/sh", {
    args: [file, ...runtime.command, packaged(runtime, APP)],
    env: { ...CGI, REQUEST_URI: "/variables" },
  }).output();
  const seen = JSON.parse(new TextDecoder().decode(stdout).split("\r\n\r\n")[1]);
  // Rule A18. A runtime that replaces the byte gives U+FFFD.
  assertEquals(seen.PATH_INFO, "/café");
  await Deno.remove(file);
});

/** Runs a CGI script with a name, which imports the sources by path. */
async function runNamed(runtime: OtherRuntime, name: string) {
  const folder = await Deno.makeTempDir();
  const module = name.endsWith(".ts") || runtime.name === "Bun"
    ? `${ROOT}mod.ts`
    : `${packaged(runtime, APP).replace(/tests\/testing\/.*/, "")}mod.js`;
  await Deno.writeTextFile(
    `${folder}/${name}`,
    `import { serve } from "${module}";\nawait serve(() => new Response("Hello"));\n`,
  );
  const url = new URL(`file://${folder}/${name}`);
  const outcome = await runScript(url, CGI, undefined, { program: runtime.command });
  await Deno.remove(folder, { recursive: true });
  return outcome;
}

testOn("a script may have these names", async (runtime) => {
  for (
    const name of [
      "app.ts",
      "app.js",
      "app.mjs",
      "app",
      ...runtime.name === "Bun" ? ["app.cgi"] : [],
    ]
  ) {
    const { status, stderr } = await runNamed(runtime, name);
    assertEquals(status, 200, `${name}: ${stderr}`);
  }
});

testOn("a module may not be named .cgi", async (runtime) => {
  const { status, stderr } = await runNamed(runtime, "app.cgi");
  assertEquals(status, undefined);
  assert(/extension|outside a module/.test(stderr), stderr);
}, "Node");

testOn("a script that is compiled to a program serves CGI", async ({ path }) => {
  const folder = await Deno.makeTempDir();
  const program = `${folder}/app.cgi`;
  const flags = ["--compile", "--bytecode", "--format=esm", `--outfile=${program}`];
  const { success, stderr } = await new Deno.Command(path, {
    args: ["build", ROOT + APP, ...flags],
    cwd: folder,
  }).output();
  assert(success, text(stderr));
  const outcome = await runScript(
    new URL(`file://${program}`),
    { ...CGI, REQUEST_METHOD: "POST", REQUEST_URI: "/echo", CONTENT_LENGTH: "4" },
    bytes("body"),
    { program: ["env"] },
  );
  assertEquals([outcome.status, text(outcome.body)], [200, "body"], outcome.stderr);
  await Deno.remove(folder, { recursive: true });
}, "Bun");

const LISTENER = `
import { stat } from "node:fs/promises";
import { listen } from "${ROOT}fastcgi.ts";
const path = process.argv[2];
const listener = await listen("unix:" + path, { mode: 0o600 });
const { mode } = await stat(path);
let refused;
await listen("unix:" + path).catch((error) => refused = error.message);
listener.close();
const tcp = await listen("127.0.0.1:0");
await listen("127.0.0.1:" + tcp.addr.port).catch((error) => refused += error.message + error.code);
tcp.close();
const removed = await stat(path).then(() => false, () => true);
console.log(JSON.stringify({ addr: listener.addr, mode: (mode & 0o777).toString(8), refused, removed }));
`;

testOn("listen() gives a socket its mode, and removes it", async (runtime) => {
  const folder = await Deno.makeTempDir();
  await Deno.writeTextFile(`${folder}/listener.ts`, LISTENER);
  await using program = new RuntimeDaemon(runtime, [`${folder}/listener.ts`, `${folder}/app.sock`]);
  const said = await program.listening as unknown as Record<string, unknown>;
  assertEquals(said.addr, { transport: "unix", path: `${folder}/app.sock` });
  assertEquals([said.mode, said.removed], ["600", true]);
  assertStringIncludes(String(said.refused), "listens there. Stop it");
  assertStringIncludes(String(said.refused), "Cannot listen on 127.0.0.1:");
  assertStringIncludes(String(said.refused), "EADDRINUSE");
  assertEquals(await program.ended, 0);
  await Deno.remove(folder, { recursive: true });
});

const REFUSALS = `
import { serveHTTP } from "${ROOT}http.ts";
import { prefork } from "${ROOT}prefork.ts";
import { cgiGateway } from "${ROOT}gateway.ts";
import { serve } from "${ROOT}mod.ts";
const messages = [];
const attempt = async (run) => {
  try { await run(); } catch (error) { messages.push(error.message); }
};
await attempt(() => serveHTTP(() => new Response()));
await attempt(() => prefork({ workers: 2, command: ["app.ts"] }));
await attempt(() => cgiGateway({ root: "/srv" }));
await attempt(() => serve(() => new Response()));
console.log(JSON.stringify({ messages }));
`;

testOn("what only Deno has says what to do instead", async (runtime) => {
  const file = await Deno.makeTempFile({ suffix: ".ts" });
  await Deno.writeTextFile(file, REFUSALS);
  await using program = new RuntimeDaemon(runtime, [file]);
  const { messages } = await program.listening as unknown as { messages: string[] };
  assertEquals(messages.length, 4);
  for (const message of messages) assertStringIncludes(message, "without Deno: this is");
  assertStringIncludes(messages[0], "Bun.serve, srvx or @hono/node-server");
  assertStringIncludes(messages[1], "mod_fcgid");
  assertStringIncludes(messages[2], "Let the web server run them");
  assertEquals(messages[3], messages[0]);
  await Deno.remove(file);
});
