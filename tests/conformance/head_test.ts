/** Heads: the length of HEAD, the type of redirects, and when they are sent. */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import type { App } from "../../bridge/app.ts";
import { serveFastCGI } from "../../fastcgi.ts";
import {
  cgiGateway,
  fastCGIGateway,
  fetchFastCGI,
  type Gateway,
  scgiGateway,
} from "../../gateway.ts";
import { serveHTTP } from "../../http.ts";
import { serveSCGI } from "../../scgi.ts";
import { bytes, text } from "../testing/bytes.ts";
import { deadline } from "../testing/deadline.ts";
import { request as requestBytes } from "../testing/fastcgi_client.ts";
import { encodeSCGIHeaders } from "../../wire/scgi.ts";
import { variables } from "../testing/fastcgi_client.ts";
import { IN_PROCESS, overDenoServe } from "./transports.ts";

const HEAD = { method: "HEAD", target: "/", headers: [] };
const declared = { headers: { "content-length": "5" } };
const ended = () => new ReadableStream({ start: (controller) => controller.close() });

/** Responses to HEAD, and the length that each declares. */
const LENGTHS: Record<string, [make: () => Response, length: string | null]> = {
  "no body": [() => new Response(null, declared), "5"],
  "an empty text": [() => new Response("", declared), "5"],
  "an empty text with a type": [
    () => new Response("", { headers: { ...declared.headers, "content-type": "text/html" } }),
    "5",
  ],
  "no bytes": [() => new Response(new Uint8Array(), declared), "5"],
  "an empty blob": [() => new Response(new Blob([]), declared), "5"],
  "a stream that ends at once": [() => new Response(ended(), declared), "5"],
  "a stream that ends at once, without a length": [() => new Response(ended()), null],
  "an empty blob without a length": [() => new Response(new Blob([])), null],
  "a text": [() => new Response("Hello"), "5"],
  "a text with the status of an error": [() => new Response("Hello", { status: 404 }), "5"],
};

/** Those that Deno.serve gives a length of 0, which the response to GET has, too. */
const ABSENT: typeof LENGTHS = {
  "no body without a length": [() => new Response(null), null],
  "an empty text without a length": [() => new Response(""), null],
  "an empty text with a type, without a length": [
    () => new Response("", { headers: { "content-type": "text/html" } }),
    null,
  ],
  "no bytes without a length": [() => new Response(new Uint8Array()), null],
};

for (const [transport, start] of Object.entries({ ...IN_PROCESS, "Deno.serve": overDenoServe })) {
  const native = transport === "HTTP" || transport === "Deno.serve";
  for (
    const [name, [make, length]] of Object.entries(native ? LENGTHS : { ...LENGTHS, ...ABSENT })
  ) {
    Deno.test(`${transport}: the length of HEAD is the declared one, or none: ${name} (rule B12)`, async () => {
      await using over = start(make);
      assertEquals((await over.send(HEAD)).headers.get("content-length"), length);
    });
  }
}

for (const [transport, start] of Object.entries(IN_PROCESS)) {
  Deno.test(`${transport}: a redirect gets no default type (rule B7)`, async () => {
    const bodies = [() => null, ended, () => new Uint8Array(), () => new Uint8Array(3)];
    for (const body of bodies) {
      await using over = start(() =>
        new Response(body(), { status: 302, headers: { location: "/elsewhere" } })
      );
      const { status, headers } = await over.send({ ...HEAD, method: "GET" });
      assertEquals([status, headers.get("content-type")], [302, null]);
    }
    await using over = start(() =>
      new Response(ended(), {
        status: 303,
        headers: { location: "/elsewhere", "content-type": "text/html" },
      })
    );
    const { headers } = await over.send({ ...HEAD, method: "GET" });
    assertEquals(headers.get("content-type"), "text/html");
  });
}

const hostname = "127.0.0.1";
const listen = () => Deno.listen({ hostname, port: 0 });
const addressOf = (addr: Deno.Addr) => `${hostname}:${(addr as Deno.NetAddr).port}`;

/** Sends bytes and reads until they include a text. */
async function readUntil(address: string, request: Uint8Array, end: string): Promise<string> {
  const [, port] = address.split(":");
  using conn = await Deno.connect({ hostname, port: Number(port) });
  await conn.write(request);
  let received = "";
  while (!received.includes(end)) {
    const buffer = new Uint8Array(4096);
    const count = await deadline(conn.read(buffer), `${JSON.stringify(end)} after ${received}`);
    assert(count !== null, received);
    received += text(buffer.subarray(0, count));
  }
  return received;
}

const http = (method: string) => bytes(`${method} / HTTP/1.1\r\nHost: localhost\r\n\r\n`);

/** A stream that never has a chunk. */
const silent: App = () => new Response(new ReadableStream({}), { headers: { "x-a": "sent" } });

Deno.test("the head of a stream does not wait for its first chunk (rule B16)", async () => {
  const scgi = encodeSCGIHeaders([["CONTENT_LENGTH", "0"], ["SCGI", "1"], ...variables()]);
  const cases: [Uint8Array, (app: App) => AsyncDisposable & { readonly addr: Deno.Addr }][] = [
    [requestBytes(), (app) => serveFastCGI(app, listen(), { shutdownTimeout: 0 })],
    [scgi, (app) => serveSCGI(app, listen(), { shutdownTimeout: 0 })],
  ];
  for (const [request, start] of cases) {
    await using server = start(silent);
    assertStringIncludes(
      await readUntil(addressOf(server.addr), request, "\r\n\r\n"),
      "x-a: sent\r\n",
    );
  }
});

/** Serves a gateway with `Deno.serve`, or an app with `serveHTTP()`, until a test is over. */
async function serving(
  handler: Gateway | App,
  use: (address: string) => Promise<void>,
): Promise<void> {
  const stop = new AbortController();
  const server = serveHTTP(handler as App, {
    hostname,
    port: 0,
    signal: stop.signal,
    onListen() {},
  });
  try {
    await use(addressOf(server.addr));
  } finally {
    stop.abort();
    await server.finished.catch(() => {});
  }
}

Deno.test("the head of a stream does not wait for its first chunk over HTTP", () =>
  serving(silent, async (address) => {
    assertStringIncludes(await readUntil(address, http("GET"), "\r\n\r\n"), "x-a: sent\r\n");
  }));

/** Writes a shell script, in a folder that only its owner may write. */
async function writeScript(lines: string): Promise<AsyncDisposable & { path: string }> {
  const folder = await Deno.makeTempDir();
  const path = `${folder}/script`;
  await Deno.writeTextFile(path, `#!/bin/sh\n${lines}\n`, { mode: 0o755 });
  return { path, [Symbol.asyncDispose]: () => Deno.remove(folder, { recursive: true }) };
}

Deno.test("the head of a stream does not wait for its first chunk through a gateway", async () => {
  await using fastcgi = serveFastCGI(silent, listen(), { shutdownTimeout: 0 });
  await using scgi = serveSCGI(silent, listen(), { shutdownTimeout: 0 });
  // It sends its head, and then waits until the gateway ends it.
  await using script = await writeScript(
    `printf 'Content-Type: text/plain\\nX-A: sent\\n\\n'; exec tail -f /dev/null`,
  );
  const gateways = [
    fastCGIGateway(addressOf(fastcgi.addr)),
    scgiGateway(addressOf(scgi.addr)),
    cgiGateway({ script: script.path, log: () => {} }),
  ];
  for (const gateway of gateways) {
    using _ = gateway;
    await serving(gateway, async (address) => {
      assertStringIncludes(await readUntil(address, http("GET"), "\r\n\r\n"), "x-a: sent\r\n");
    });
  }
});

Deno.test("a gateway adds no length to a response to HEAD (RFC 9110 section 8.6)", async () => {
  const app: App = (request) => {
    const { search } = new URL(request.url);
    const headers = search === "" ? undefined : { "content-length": search.slice(1) };
    return new Response(null, { headers });
  };
  await using fastcgi = serveFastCGI(app, listen());
  await using scgi = serveSCGI(app, listen());
  const line = `printf 'Content-Length: %s\\n' "$QUERY_STRING"`;
  await using script = await writeScript(
    `printf 'Content-Type: text/plain\\n'; [ -n "$QUERY_STRING" ] && ${line}; echo`,
  );
  const gateways = [
    fastCGIGateway(addressOf(fastcgi.addr)),
    scgiGateway(addressOf(scgi.addr)),
    cgiGateway({ script: script.path }),
  ];
  for (const gateway of gateways) {
    using _ = gateway;
    await serving(gateway, async (address) => {
      for (const [query, length] of [["", null], ["?5", "5"], ["?0", "0"]] as const) {
        const response = await fetch(`http://${address}/${query}`, { method: "HEAD" });
        assertEquals([response.status, response.headers.get("content-length")], [200, length]);
      }
    });
  }
  const response = await fetchFastCGI(
    new Request("http://localhost/", { method: "HEAD" }),
    addressOf(fastcgi.addr),
  );
  assertEquals([response.headers.get("content-length"), await response.text()], [null, ""]);
});
