/** Programs whose log cannot be written, as its disk is full or its reader has ended: they serve all the same. */
import { assertEquals, assertStringIncludes } from "@std/assert";
import { fetchFastCGI, fetchSCGI } from "../gateway.ts";
import { importMapFlags, runCommandLine } from "./testing/command_line.ts";
import { ROOT } from "./testing/daemon.ts";
import { deadline, eventually } from "./testing/deadline.ts";
import { parseResponse } from "./testing/response.ts";
import { text } from "./testing/bytes.ts";

const ignore = Deno.build.os !== "linux";

const APP = `
export default {
  fetch(request, info) {
    const { pathname } = new URL(request.url);
    if (pathname === "/die") Deno.exit(3);
    if (pathname === "/throw") throw new Error("the secret");
    info.log("a line");
    return new Response("sent", { headers: { "content-length": "9", "x-pid": String(Deno.pid) } });
  },
};
`;

/** Starts Deno with stdout and stderr on a full disk. */
function spawnOnFullDisk(args: string[]): Deno.ChildProcess {
  return new Deno.Command("sh", {
    args: ["-c", 'exec "$0" "$@" >/dev/full 2>/dev/full', Deno.execPath(), ...args],
    stdin: "null",
  }).spawn();
}

type Send = (request: Request, socket: string) => Promise<Response>;

async function sendHTTP({ url }: Request, socket: string): Promise<Response> {
  const proxy = { transport: "unix" as const, path: socket };
  using client = Deno.createHttpClient({ proxy });
  const response = await fetch(url, { client });
  return new Response(await response.text(), response);
}

const QUIET = { log: () => {} };

const SENDERS: Record<string, Send> = {
  fastcgi: (request, socket) => fetchFastCGI(request, `unix:${socket}`, QUIET),
  scgi: (request, socket) => fetchSCGI(request, `unix:${socket}`, QUIET),
  http: sendHTTP,
};

interface Daemon extends AsyncDisposable {
  /** Sends one request, whether or not it succeeds. */
  send(path: string): Promise<unknown>;
  /** Ends it and returns its exit code. */
  stop(): Promise<number>;
  /** Sends a request, again until the daemon serves. */
  get(path: string): Promise<[status: number, pid: string | null]>;
}

function serve(protocol: string, ...options: string[]): Promise<Daemon> {
  return start(protocol, (app, socket) => {
    const command = ["run", "--no-prompt", "--allow-all", ...importMapFlags(), `${ROOT}cli.ts`];
    return [...command, "serve", app, "-p", protocol, "-l", `unix:${socket}`, ...options];
  });
}

/** @param args Returns the arguments of Deno that serve the app on the socket. */
async function start(
  protocol: string,
  args: (app: string, socket: string) => string[],
): Promise<Daemon> {
  const folder = await Deno.makeTempDir();
  await Deno.writeTextFile(`${folder}/app.ts`, APP);
  const socket = `${folder}/socket`;
  const child = spawnOnFullDisk(args(`${folder}/app.ts`, socket));
  const stop = async () => {
    try {
      child.kill("SIGTERM");
    } catch {
      // It has ended already.
    }
    return (await deadline(child.status, "the daemon's end")).code;
  };
  return {
    stop,
    send: (path) =>
      SENDERS[protocol](new Request(`http://localhost${path}`), socket).catch(() => {}),
    async get(path) {
      const request = async (): Promise<[number, string | null]> => {
        const response = await SENDERS[protocol](new Request(`http://localhost${path}`), socket);
        await response.body?.cancel();
        return [response.status, response.headers.get("x-pid")];
      };
      return await eventually(`a response to ${path}`, () => request().catch(() => null));
    },
    async [Symbol.asyncDispose]() {
      await stop();
      await Deno.remove(folder, { recursive: true });
    },
  };
}

for (const protocol of Object.keys(SENDERS)) {
  for (const format of ["common", "json"]) {
    Deno.test({
      name: `a daemon serves ${protocol} with its logs on a full disk, ${format}`,
      ignore,
      async fn() {
        await using daemon = await serve(protocol, `--access-log=${format}`);
        const [first, pid] = await daemon.get("/");
        assertEquals(first, 200);
        assertEquals((await daemon.get("/throw"))[0], 500);
        assertEquals(await daemon.get("/"), [200, pid]);
        assertEquals(await daemon.stop(), 0);
      },
    });
  }
}

Deno.test({
  name: "serveHTTP() serves on a Unix socket with stderr on a full disk",
  ignore,
  async fn() {
    // The app gives Deno.serve nothing to warn of: Deno 2.9.6 itself does not survive a warning that it cannot write.
    await using daemon = await start("http", (app, socket) => [
      "eval",
      `import app from "${app}";
import { serveHTTP } from "${ROOT}http.ts";
serveHTTP(app, { path: "${socket}" });`,
    ]);
    const [first, pid] = await daemon.get("/");
    assertEquals(first, 200);
    assertEquals((await daemon.get("/throw"))[0], 500);
    assertEquals(await daemon.get("/"), [200, pid]);
  },
});

Deno.test({
  name: "serve() serves an app that reads the signal and logs, with stderr on a full disk",
  ignore,
  async fn() {
    await using daemon = await start("http", (_app, socket) => [
      "eval",
      `import { serve } from "${ROOT}mod.ts";
await serve((request) => {
  console.error(request.signal.aborted);
  return new Response("sent", { headers: { "x-pid": String(Deno.pid) } });
}, { path: "${socket}" });`,
    ]);
    const [first, pid] = await daemon.get("/");
    assertEquals(first, 200);
    for (let turn = 0; turn < 3; turn++) assertEquals(await daemon.get("/"), [200, pid]);
    assertEquals(await daemon.stop(), 0);
  },
});

Deno.test({
  name: "a supervisor replaces workers with its log on a full disk",
  ignore,
  async fn() {
    await using daemon = await serve("fastcgi", "--workers=1");
    const [, pid] = await daemon.get("/");
    await daemon.send("/die");
    const [status, next] = await daemon.get("/");
    assertEquals([status, next === pid], [200, false]);
    assertEquals(await daemon.stop(), 0);
  },
});

const SCRIPT = `
import { serveCGI } from "${ROOT}cgi.ts";
await serveCGI((_request, info) => {
  info.log("a line");
  console.error("an error");
  console.warn("a warning");
  console.log("a log");
  return new Response("sent", { headers: { "content-length": "9" } });
});
`;

/** The environment of a script. */
const CGI = { GATEWAY_INTERFACE: "CGI/1.1", REQUEST_METHOD: "GET", SERVER_NAME: "localhost" };

/** Runs a script for a test. @param use Gets the running script, whose stderr nobody reads. */
async function withScript(
  source: string,
  use: (child: Deno.ChildProcess) => Promise<void>,
): Promise<void> {
  const script = await Deno.makeTempFile({ suffix: ".ts" });
  await Deno.writeTextFile(script, source);
  const child = new Deno.Command(Deno.execPath(), {
    args: ["run", "--quiet", "--allow-env", script],
    env: CGI,
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  try {
    await use(child);
  } finally {
    await child.stderr.cancel();
    await child.status;
    await Deno.remove(script);
  }
}

for (const [name, redirection] of [["on a full disk", "2>/dev/full"], ["closed", "2>&-"]]) {
  Deno.test({
    name: `a script responds with its stderr ${name}`,
    ignore,
    async fn() {
      const script = await Deno.makeTempFile({ suffix: ".ts" });
      await Deno.writeTextFile(script, SCRIPT);
      const { code, stdout } = await new Deno.Command("sh", {
        args: [
          "-c",
          `exec "$0" run --quiet --allow-env "$1" ${redirection}`,
          Deno.execPath(),
          script,
        ],
        env: CGI,
        stdin: "null",
      }).output();
      await Deno.remove(script);
      assertEquals(code, 0);
      const { status, body } = parseResponse(stdout);
      assertEquals([status, text(body)], [200, "sent"]);
    },
  });
}

Deno.test({
  name: "a script responds after the reader of its stderr has left",
  ignore,
  fn: () =>
    withScript(SCRIPT, async (child) => {
      await child.stderr.cancel();
      const { status, body } = parseResponse(await new Response(child.stdout).bytes());
      assertEquals([status, text(body)], [200, "sent"]);
      assertEquals((await deadline(child.status, "the script's end")).code, 0);
    }),
});

const VERBOSE = `
import { serveCGI } from "${ROOT}cgi.ts";
await serveCGI((_request, info) => {
  for (let i = 0; i < 300; i++) info.log("x".repeat(1000));
  return new Response("sent");
}, { exitTimeout: 10 });
`;

Deno.test({
  name: "a script responds, and ends, though nobody reads its stderr",
  ignore,
  fn: () =>
    withScript(VERBOSE, async (child) => {
      const stdout = await deadline(new Response(child.stdout).bytes(), "the response");
      const { status, body } = parseResponse(stdout);
      assertEquals([status, text(body)], [200, "sent"]);
      await deadline(child.status, "the script's end");
    }),
});

Deno.test({
  name: "a command whose result is not written fails",
  ignore,
  async fn() {
    const child = spawnOnFullDisk(
      ["run", "--allow-read", ...importMapFlags(), `${ROOT}cli.ts`, "config", "nginx"],
    );
    assertEquals((await deadline(child.status, "the command's end")).code, 1);
    const { code, stdout } = await runCommandLine(["config", "nginx"], ["--allow-read"]);
    assertEquals(code, 0);
    assertStringIncludes(stdout, "fastcgi_pass");
  },
});
