import { type ChildProcess, spawn } from "node:child_process";
import { connect, createServer } from "node:net";
import { assertEquals, assertMatch, assertRejects, assertStringIncludes } from "@std/assert";
import { listen } from "../fastcgi.ts";
import { fetchSCGI } from "../gateway.ts";
import { serveHTTP } from "../http.ts";
import { Daemon, ROOT } from "./testing/daemon.ts";
import { deadline } from "./testing/deadline.ts";

/** Serves HTTP by serve(): `/hang` never responds, `/slow` waits for a request of `/go`. */
const PROGRAM = `
import { serve } from "${ROOT}mod.ts";
const go = Promise.withResolvers();
await serve(async (request) => {
  const { pathname } = new URL(request.url);
  console.error("requested " + pathname);
  if (pathname === "/hang") await new Promise(() => {});
  if (pathname === "/slow") await go.promise;
  if (pathname === "/go") go.resolve();
  if (pathname === "/stream") {
    return new Response(new ReadableStream({ start: (body) => body.enqueue(new Uint8Array(1)) }));
  }
  return new Response("hello");
}, {
  hostname: "127.0.0.1",
  port: 0,
  shutdownTimeout: 300,
  onListen: ({ port }) => console.error("listens on " + port + "."),
});
`;

async function start(): Promise<{ daemon: Daemon; url: string }> {
  const program = await Deno.makeTempFile({ suffix: ".ts" });
  await Deno.writeTextFile(program, PROGRAM);
  const daemon = new Daemon(["--allow-net", "--allow-env", program]);
  await daemon.says("listens on");
  await Deno.remove(program);
  return { daemon, url: `http://127.0.0.1:${/on (\d+)\./.exec(daemon.log)![1]}` };
}

Deno.test("serve() in a terminal is an HTTP server, and exits with 0 at SIGTERM and SIGINT", async () => {
  for (const signal of ["SIGTERM", "SIGINT"] as const) {
    const { daemon, url } = await start();
    assertEquals(await (await fetch(url)).text(), "hello");
    assertEquals((await daemon.stop(signal)).code, 0);
  }
});

Deno.test("serve() aborts a request that hangs after shutdownTimeout", async () => {
  const { daemon, url } = await start();
  const hanging = fetch(`${url}/hang`).catch(() => "aborted");
  await daemon.says("requested /hang");
  assertEquals((await daemon.stop()).code, 1);
  assertEquals(await deadline(hanging, "the client's abort"), "aborted");
});

Deno.test("serve() aborts a stream that stays open after shutdownTimeout", async () => {
  const { daemon, url } = await start();
  const response = await deadline(fetch(`${url}/stream`), "the response");
  const reader = response.body!.getReader();
  await reader.read();
  assertEquals((await daemon.stop()).code, 1);
  assertStringIncludes(daemon.log, "some requests have not ended within 300 ms");
  await reader.cancel().catch(() => {});
});

/** Runs a program whose standard input is a connected socket. */
async function runOnConnection(
  args: string[],
  use: (child: ChildProcess, log: () => string) => Promise<void>,
): Promise<void> {
  const path = await Deno.makeTempDir();
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(`${path}/socket`, resolve));
  const socket = connect(`${path}/socket`);
  await new Promise<void>((resolve) => socket.once("connect", resolve));
  const { fd } = (socket as unknown as { _handle: { fd: number } })._handle;
  const child = spawn(Deno.execPath(), ["run", "--no-prompt", ...args], {
    stdio: [fd, "ignore", "pipe"],
    env: { ...Deno.env.toObject(), NO_COLOR: "1" },
  });
  let log = "";
  const { promise: ended, resolve } = Promise.withResolvers<void>();
  child.once("exit", () => resolve());
  child.stderr!.on("data", (chunk) => log += chunk);
  try {
    await use(child, () => log);
  } finally {
    child.kill();
    await deadline(ended, "the program's end");
    socket.destroy();
    server.close();
    await Deno.remove(path, { recursive: true });
  }
}

/** Waits until the program logs a text. */
async function logs(child: ChildProcess, log: () => string, text: string): Promise<void> {
  while (!log().includes(text)) {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    child.stderr!.once("data", resolve);
    child.once("exit", () => reject(new Error(`The program ended: ${log()}`)));
    await deadline(promise, `the program to log ${text}: ${log()}`);
  }
}

Deno.test("serve() is an HTTP server if standard input is a connection", async () => {
  const program = await Deno.makeTempFile({ suffix: ".ts" });
  await Deno.writeTextFile(program, PROGRAM);
  await runOnConnection(["--allow-net", "--allow-env", program], async (child, log) => {
    await logs(child, log, "listens on");
    const [, port] = /on (\d+)\./.exec(log())!;
    assertEquals(await (await fetch(`http://127.0.0.1:${port}/`)).text(), "hello");
  });
  await Deno.remove(program);
});

Deno.test("serve() without --allow-env reports the permission that a CGI script needs", async () => {
  const program = await Deno.makeTempFile({ suffix: ".ts" });
  await Deno.writeTextFile(program, PROGRAM);
  const message = "this looks like a CGI request, but its variables may not be read: " +
    "add --allow-env to the first line";
  await runOnConnection(["--allow-net", program], (child, log) => logs(child, log, message));
  const both =
    "neither the variables of a CGI request may be read nor 127.0.0.1:0 be listened on: " +
    "add --allow-env to the first line of a CGI script, and start a server with --allow-net";
  for (
    const [stdin, flags, expected] of [
      ["piped", ["--allow-net"], message],
      ["piped", [], both],
      ["null", [], both],
    ] as const
  ) {
    const child = new Deno.Command(Deno.execPath(), {
      args: ["run", "--no-prompt", ...flags, program],
      stdin,
      stderr: "piped",
      env: { GATEWAY_INTERFACE: "CGI/1.1", REQUEST_METHOD: "GET", NO_COLOR: "1" },
    }).spawn();
    if (stdin === "piped") await child.stdin.close();
    const { code, stderr } = await deadline(child.output(), "the script's end");
    assertEquals(code, 1);
    const log = new TextDecoder().decode(stderr);
    assertStringIncludes(log, expected);
    // The stack has the script's own lines only.
    assertEquals(log.includes("mod.ts"), false, log);
  }
  await Deno.remove(program);
});

Deno.test("serve() names an address that is in use, and says how to set another", async () => {
  using taken = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const { port } = taken.addr;
  const program = await Deno.makeTempFile({ suffix: ".ts" });
  await Deno.writeTextFile(
    program,
    `import { serve } from "${ROOT}mod.ts";
await serve(() => new Response(), { port: ${port} });`,
  );
  await using daemon = new Daemon(["--allow-net", "--allow-env", program], {
    env: { NO_COLOR: "1" },
  });
  const { code } = await deadline(daemon.child.status, "the program's end");
  await daemon.ended;
  assertMatch(
    daemon.log,
    new RegExp(
      `Cannot listen on 127\\.0\\.0\\.1:${port}: Address already in use .*\\. ` +
        `Set another port, as in: serve\\(app, { port: ${port + 1} }\\)`,
    ),
  );
  assertEquals(daemon.log.includes("mod.ts"), false, daemon.log);
  assertEquals(code, 1);
  await Deno.remove(program);
});

for (const [name, open] of Object.entries({ listen, serveHTTP: openHTTP })) {
  Deno.test(`${name}() names the address that is in use`, async () => {
    using taken = Deno.listen({ hostname: "127.0.0.1", port: 0 });
    const address = `127.0.0.1:${taken.addr.port}`;
    await assertRejects(
      () => open(address),
      Deno.errors.AddrInUse,
      `Cannot listen on ${address}: Address already in use`,
    );
    const path = `${await Deno.makeTempDir()}/absent/app.sock`;
    await assertRejects(
      () => open(`unix:${path}`),
      Deno.errors.NotFound,
      `Cannot listen on unix:${path}: No such file or directory`,
    );
  });
}

// deno-lint-ignore require-await
async function openHTTP(address: string): Promise<unknown> {
  const path = /^unix:(.*)/.exec(address)?.[1];
  const [hostname, port] = address.split(":");
  if (path !== undefined) return serveHTTP(() => new Response(), { path });
  return serveHTTP(() => new Response(), { hostname, port: Number(port) });
}

Deno.test("serve() finishes requests in progress at SIGTERM", async () => {
  const { daemon, url } = await start();
  const slow = fetch(`${url}/slow`).then((response) => response.text());
  await daemon.says("requested /slow");
  const go = fetch(`${url}/go`).catch(() => {});
  await daemon.says("requested /go");
  const ended = daemon.stop();
  assertEquals(await deadline(slow, "the slow response"), "hello");
  await go;
  assertEquals((await ended).code, 0);
});

Deno.test("a CGI script that exports app.fetch, as README says, logs nothing", async () => {
  const [, lines] = /such as a Hono app\.[^]*?```ts ignore\n(.*?)```/s.exec(
    await Deno.readTextFile(`${ROOT}README.md`),
  )!;
  const program = await Deno.makeTempFile({ suffix: ".ts" });
  await Deno.writeTextFile(
    program,
    `import { Hono } from "npm:hono@4.13.19";
import { serve } from "${ROOT}mod.ts";
const app = new Hono();
app.get("/", (c) => c.text("Hello"));
${lines}`,
  );
  const { stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["run", "--no-prompt", "--quiet", "--allow-env", program],
    env: { GATEWAY_INTERFACE: "CGI/1.1", REQUEST_METHOD: "GET", REQUEST_URI: "/", NO_COLOR: "1" },
    stdin: "null",
  }).output();
  assertEquals(new TextDecoder().decode(stderr), "");
  assertStringIncludes(new TextDecoder().decode(stdout), "\n\r\nHello");
  await Deno.remove(program);
});

/** A module that `deno serve` accepts. */
const DECLARED = `
import type { AppObject } from "${ROOT}mod.ts";
export default {
  fetch: (request, info) => new Response(new URL(request.url).pathname + " " + typeof info.remoteAddr),
} satisfies AppObject;
`;

Deno.test("a module that exports an app runs under deno serve, and the command line", async () => {
  const program = await Deno.makeTempFile({ suffix: ".ts" });
  await Deno.writeTextFile(program, DECLARED);
  {
    await using daemon = new Daemon(["--host", "127.0.0.1", "--port", "0", program], {}, "serve");
    await daemon.says("Listening on");
    const url = /http:\/\/127\.0\.0\.1:\d+/.exec(daemon.log)![0];
    assertEquals(await (await fetch(`${url}/a`)).text(), "/a object");
  }
  {
    const flags = ["--allow-read", "--allow-net"];
    const args = ["serve", program, "--protocol", "scgi", "--listen", "127.0.0.1:0"];
    await using daemon = new Daemon([...flags, `${ROOT}cli.ts`, ...args]);
    await daemon.says(" on ");
    const address = / on (\S+)/.exec(daemon.log)![1];
    const response = await fetchSCGI("http://localhost/a", address);
    assertEquals(await response.text(), "/a object");
  }
  await Deno.remove(program);
});
