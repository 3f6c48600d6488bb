import { assertEquals, assertMatch } from "@std/assert";
import { logAccess } from "../../cli/access_log.ts";
import { serveHTTP } from "../../http.ts";
import { deadline } from "../testing/deadline.ts";
import type { App } from "../../bridge/app.ts";

/** Serves an app, sends a request and returns the line of the log. */
async function lineOf(
  format: "common" | "combined" | "json",
  app: App,
  path = "/",
  init?: RequestInit,
): Promise<string> {
  const line = Promise.withResolvers<string>();
  const options = { hostname: "127.0.0.1", port: 0, onListen: () => {}, log: () => {} };
  await using server = serveHTTP(logAccess(app, format, line.resolve), options);
  const response = await fetch(`http://127.0.0.1:${server.addr.port}${path}`, init);
  await response.body?.cancel();
  return await deadline(line.promise, "the line of the log");
}

Deno.test("logAccess() writes the common log format", async () => {
  const app = () => new Response("é", { status: 201 });
  const line = await lineOf("common", app, "/a%22b?c=%0a");
  assertMatch(
    line,
    /^127\.0\.0\.1 - - \[\d\d\/[A-Z][a-z]{2}\/\d{4}:\d\d:\d\d:\d\d \+0000\] "GET \/a%22b\?c=%0a HTTP\/1\.1" 201 2$/,
  );
});

Deno.test("logAccess() writes the combined log format, with quotes escaped", async () => {
  const headers = { referer: "http://localhost/", "user-agent": `a "quoted" \\ agent` };
  const line = await lineOf("combined", { fetch: () => new Response(null) }, "/", { headers });
  assertMatch(
    line,
    /"GET \/ HTTP\/1\.1" 200 - "http:\/\/localhost\/" "a \\"quoted\\" \\\\ agent"$/,
  );
});

Deno.test("logAccess() writes JSON", async () => {
  const line = JSON.parse(await lineOf("json", () => Response.json([1]), "/a", { method: "PUT" }));
  assertEquals(line.remote, "127.0.0.1");
  assertEquals([line.method, new URL(line.url).pathname], ["PUT", "/a"]);
  assertEquals([line.status, line.bytes], [200, 3]);
  assertEquals(typeof line.milliseconds, "number");
  assertEquals(line.time, new Date(line.time).toISOString());
});

Deno.test("logAccess() writes 500 if the app throws", async () => {
  const app = () => {
    throw new Error("broken");
  };
  assertMatch(await lineOf("common", app), / 500 -$/);
});

Deno.test("logAccess() does not change a response, so that a fetched one stays decoded", async () => {
  const response = new Response("hello", { headers: { "content-type": "text/css" } });
  const app = logAccess(() => response, "common", () => {});
  const info = { completed: new Promise(() => {}) } as never;
  assertEquals(await (app as Deno.ServeHandler)(new Request("http://localhost/"), info), response);
});

Deno.test("logAccess() writes 499 if the client disconnects before the response", async () => {
  const lines: string[] = [];
  const left = Promise.withResolvers<void>();
  const app = logAccess(() => new Promise(() => {}), "common", (line) => lines.push(line));
  const info = {
    completed: left.promise,
    remoteAddr: { transport: "unix", path: "" },
    variables: new Map(),
  } as never;
  (app as Deno.ServeHandler)(new Request("http://localhost/a"), info);
  left.reject(new Error("the client left"));
  await left.promise.catch(() => {});
  await null;
  assertMatch(lines[0], /^- - - \[.*\] "GET \/a HTTP\/1\.1" 499 -$/);
});

/** Text that would end a field or a line, or control a terminal. */
const EVIL = '1.2.3.4 - "\\" \t\r\n5.6.7.8 - - [] "GET /" 200 0\x1b[2J\x7f\x9b1m';
const FIELDS = ["address", "user", "protocol", "referer", "user-agent"];

/** Returns the line of a request of which one field is hostile. */
async function evilLine(format: "common" | "combined" | "json", name: string): Promise<string> {
  const lines: string[] = [];
  const value = (field: string) => field === name ? EVIL : undefined;
  const { promise: completed, resolve } = Promise.withResolvers<void>();
  const app = logAccess(() => new Response(null), format, (line) => lines.push(line));
  const info = {
    completed,
    remoteAddr: { transport: "tcp", hostname: value("address") ?? "127.0.0.1", port: 1 },
    variables: new Map(
      [["REMOTE_USER", value("user")], ["SERVER_PROTOCOL", value("protocol")]]
        .filter(([, value]) => value !== undefined) as [string, string][],
    ),
  } as never;
  const headers = { get: value };
  const request = { method: "GET", url: "http://localhost/", headers } as unknown as Request;
  await (app as Deno.ServeHandler)(request, info);
  resolve();
  await completed;
  await null;
  assertEquals(lines.length, 1);
  return lines[0];
}

for (const name of FIELDS) {
  Deno.test(`logAccess() escapes what the ${name} could forge a line or field with, in each format`, async () => {
    const text = '(?:[^"\\\\]|\\\\.)*';
    const common = `[^ ]+ - [^ ]+ \\[[^ ]+ \\+0000\\] "${text}" 200 -`;
    const lines = {
      common: await evilLine("common", name),
      combined: await evilLine("combined", name),
      json: await evilLine("json", name),
    };
    for (const line of Object.values(lines)) {
      // deno-lint-ignore no-control-regex
      assertEquals(/[\x00-\x1f\x7f-\x9f]/.exec(line), null, JSON.stringify(line));
    }
    assertMatch(lines.common, new RegExp(`^${common}$`));
    assertMatch(lines.combined, new RegExp(`^${common} "${text}" "${text}"$`));
    const { remote, user, referrer, agent } = JSON.parse(lines.json);
    const values: Record<string, unknown> = {
      address: remote,
      user,
      referer: referrer,
      "user-agent": agent,
    };
    if (name !== "protocol") assertEquals(values[name], EVIL);
  });
}
