import { assertEquals, assertMatch } from "@std/assert";
import type { App, CompletedRequest } from "../../bridge/app.ts";
import { ACCESS_LOGS, accessLog } from "../../cli/access_log.ts";
import { serveFastCGI } from "../../fastcgi.ts";
import { serveHTTP } from "../../http.ts";
import { Variables } from "../../wire/variables.ts";
import { deadline } from "../testing/deadline.ts";
import { FastCGIClient, request as requestBytes } from "../testing/fastcgi_client.ts";

/** Serves an app, sends a request and returns the line of the log. */
async function lineOf(
  format: "common" | "combined" | "json",
  app: App,
  path = "/",
  init?: RequestInit,
): Promise<string> {
  const line = Promise.withResolvers<string>();
  await using server = serveHTTP(app, {
    hostname: "127.0.0.1",
    port: 0,
    onListen: () => {},
    log: () => {},
    onCompleted: accessLog(format, line.resolve),
  });
  const response = await fetch(`http://127.0.0.1:${server.addr.port}${path}`, init);
  await response.body?.cancel();
  return await deadline(line.promise, "the line of the log");
}

Deno.test("accessLog() writes the common log format", async () => {
  const app = () => new Response("é", { status: 201 });
  const line = await lineOf("common", app, "/a%22b?c=%0a");
  assertMatch(
    line,
    /^127\.0\.0\.1 - - \[\d\d\/[A-Z][a-z]{2}\/\d{4}:\d\d:\d\d:\d\d \+0000\] "GET \/a%22b\?c=%0a HTTP\/1\.1" 201 2$/,
  );
});

Deno.test("accessLog() writes the combined log format, with quotes escaped", async () => {
  const headers = { referer: "http://localhost/", "user-agent": `a "quoted" \\ agent` };
  const line = await lineOf("combined", { fetch: () => new Response(null) }, "/", { headers });
  assertMatch(
    line,
    /"GET \/ HTTP\/1\.1" 200 - "http:\/\/localhost\/" "a \\"quoted\\" \\\\ agent"$/,
  );
});

Deno.test("accessLog() writes JSON", async () => {
  const TRACE = "0af7651916cd43dd8448eb211c80319c";
  const headers = { "x-request-id": "an-id", traceparent: `00-${TRACE}-b7ad6b7169203331-01` };
  const init = { method: "PUT", body: "é", headers };
  const app = async (request: Request) => {
    await request.text();
    return Response.json([1]);
  };
  const line = JSON.parse(await lineOf("json", app, "/a", init));
  assertEquals(line.remote, "127.0.0.1");
  assertEquals([line.method, new URL(line.url).pathname], ["PUT", "/a"]);
  assertEquals([line.status, line.bytes], [200, 3]);
  assertEquals(typeof line.milliseconds, "number");
  assertEquals([line.received, line.requestId, line.traceId], [2, "an-id", TRACE]);
  assertEquals(line.time, new Date(line.time).toISOString());
});

Deno.test("accessLog() writes the response to an app that throws", async () => {
  const app = () => {
    throw new Error("broken");
  };
  assertMatch(await lineOf("common", app), / 500 26$/);
});

/** The end of a request that was refused before it was created. */
function refused(variables: [name: string, value: string][]): CompletedRequest {
  const info = { remoteAddr: { hostname: "" }, variables: new Variables(variables) };
  return { info: info as never, status: 431, bytes: 26, started: new Date(0), duration: 1 };
}

Deno.test("accessLog() writes what the variables of a refused request say", () => {
  const lines: string[] = [];
  const variables: [string, string][] = [
    ["REQUEST_METHOD", "PUT"],
    ["REQUEST_URI", '/a"b?c'],
    ["SERVER_PROTOCOL", "HTTP/1.0"],
    ["HTTP_REFERER", "http://localhost/"],
    ["HTTP_USER_AGENT", "agent"],
  ];
  for (const format of ACCESS_LOGS) {
    accessLog(format, (line) => lines.push(line))(refused(variables));
    accessLog(format, (line) => lines.push(line))(refused([]));
  }
  const date = "[01/Jan/1970:00:00:00 +0000]";
  assertEquals(lines.slice(0, 4), [
    `- - - ${date} "PUT /a\\"b?c HTTP/1.0" 431 26`,
    `- - - ${date} "-" 431 26`,
    `- - - ${date} "PUT /a\\"b?c HTTP/1.0" 431 26 "http://localhost/" "agent"`,
    `- - - ${date} "-" 431 26 "-" "-"`,
  ]);
  const { method, url, referrer, agent } = JSON.parse(lines[4]);
  assertEquals([method, url, referrer, agent], [
    "PUT",
    '/a"b?c',
    "http://localhost/",
    "agent",
  ]);
  assertEquals(JSON.parse(lines[5]).status, 431);
});

Deno.test("accessLog() writes 499 for a client that left before the response", async () => {
  const line = Promise.withResolvers<string>();
  await using server = serveFastCGI(
    (request) => new Promise((resolve) => request.signal.onabort = () => resolve(new Response())),
    Deno.listen({ hostname: "127.0.0.1", port: 0 }),
    { onCompleted: accessLog("common", line.resolve), log: () => {} },
  );
  const { port } = server.addr as Deno.NetAddr;
  using client = new FastCGIClient(await Deno.connect({ hostname: "127.0.0.1", port }));
  await client.send(requestBytes({ variables: { REQUEST_URI: "/a" } }));
  client.close();
  assertMatch(await deadline(line.promise, "the line"), /"GET \/a HTTP\/1\.1" 499 -$/);
});

/** Text that would end a field or a line, or control a terminal. */
const EVIL = '1.2.3.4 - "\\" \t\r\n5.6.7.8 - - [] "GET /" 200 0\x1b[2J\x7f\x9b1m';
const FIELDS = ["address", "user", "protocol", "target", "referer", "user-agent"];

/** Returns the line of a request of which one field is hostile. */
function evilLine(format: "common" | "combined" | "json", name: string): string {
  const lines: string[] = [];
  const value = (field: string) => field === name ? EVIL : undefined;
  const info = {
    protocol: "http",
    remoteAddr: { transport: "tcp", hostname: value("address") ?? "127.0.0.1", port: 1 },
    variables: new Map(
      [
        ["REMOTE_USER", value("user")],
        ["SERVER_PROTOCOL", value("protocol")],
        ["REQUEST_URI", value("target")],
      ].filter(([, value]) => value !== undefined) as [string, string][],
    ),
  } as never;
  const headers = { get: value };
  const request = { method: "GET", url: "http://localhost/", headers } as unknown as Request;
  const end = { request, info, status: 200, bytes: 0, started: new Date(0), duration: 1 };
  accessLog(format, (line) => lines.push(line))(end);
  assertEquals(lines.length, 1);
  return lines[0];
}

for (const name of FIELDS) {
  Deno.test(`accessLog() escapes what the ${name} could forge a line or field with, in each format`, () => {
    const text = '(?:[^"\\\\]|\\\\.)*';
    const common = `[^ ]+ - [^ ]+ \\[[^ ]+ \\+0000\\] "${text}" 200 -`;
    const lines = {
      common: evilLine("common", name),
      combined: evilLine("combined", name),
      json: evilLine("json", name),
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
    if (Object.hasOwn(values, name)) assertEquals(values[name], EVIL);
  });
}
