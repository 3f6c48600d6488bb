import { assertEquals } from "@std/assert";
import { fetchSCGI } from "../gateway.ts";
import { Daemon, ROOT } from "./testing/daemon.ts";
import { deadline } from "./testing/deadline.ts";

/** Serves HTTP by serve(); `/hang` is never answered, `/slow` when `/go` has been asked for. */
const PROGRAM = `
import { serve } from "${ROOT}mod.ts";
const go = Promise.withResolvers();
await serve(async (request) => {
  const { pathname } = new URL(request.url);
  console.error("asked " + pathname);
  if (pathname === "/hang") await new Promise(() => {});
  if (pathname === "/slow") await go.promise;
  if (pathname === "/go") go.resolve();
  return new Response("answered");
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

Deno.test("serve() by hand is an HTTP server, and ends with 0 at SIGTERM and SIGINT", async () => {
  for (const signal of ["SIGTERM", "SIGINT"] as const) {
    const { daemon, url } = await start();
    assertEquals(await (await fetch(url)).text(), "answered");
    assertEquals((await daemon.stop(signal)).code, 0);
  }
});

Deno.test("serve() ends over a request that does not, after shutdownTimeout", async () => {
  const { daemon, url } = await start();
  const hanging = fetch(`${url}/hang`).catch(() => "broken off");
  await daemon.says("asked /hang");
  assertEquals((await daemon.stop()).code, 1);
  assertEquals(await deadline(hanging, "the client to be told"), "broken off");
});

Deno.test("serve() finishes what is under way at SIGTERM", async () => {
  const { daemon, url } = await start();
  const slow = fetch(`${url}/slow`).then((response) => response.text());
  await daemon.says("asked /slow");
  const go = fetch(`${url}/go`).catch(() => {});
  await daemon.says("asked /go");
  const ended = daemon.stop();
  assertEquals(await deadline(slow, "the slow answer"), "answered");
  await go;
  assertEquals((await ended).code, 0);
});

/** An app as `deno serve` takes it. */
const DECLARED = `
import type { AppObject } from "${ROOT}mod.ts";
export default {
  fetch: (request, info) => new Response(new URL(request.url).pathname + " " + typeof info.remoteAddr),
} satisfies AppObject;
`;

Deno.test("a module that exports an app runs under deno serve, and by the command line", async () => {
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
