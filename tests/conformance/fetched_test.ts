/** Responses that `fetch` has decoded: each transport sends them as `Deno.serve` does. */
import { brotliCompressSync, gzipSync } from "node:zlib";
import { assertEquals } from "@std/assert";
import { IN_PROCESS, overDenoServe } from "./transports.ts";

const TEXT = "Hello, hello, hello, hello.\n".repeat(100);

const ENCODERS: Record<string, (text: string) => Uint8Array> = {
  gzip: gzipSync,
  br: brotliCompressSync,
  identity: (text) => new TextEncoder().encode(text),
};

/** Responds with the text in the encoding that the path names. */
function upstream(request: Request): Response {
  const encoding = new URL(request.url).pathname.slice(1);
  const body = ENCODERS[encoding](TEXT).slice();
  return new Response(request.method === "HEAD" ? null : body, {
    headers: {
      "content-type": "text/plain",
      ...(encoding === "identity" ? {} : { "content-encoding": encoding }),
      "content-length": String(body.length),
      "x-a": "1",
    },
  });
}

const ENCODED = { "content-type": "text/plain", "content-encoding": "gzip" };

/** Apps that return a response that they have fetched, or made from one. */
const APPS: Record<string, (base: string) => Promise<Response>> = {
  "gzip": (base) => fetch(`${base}/gzip`),
  "br": (base) => fetch(`${base}/br`),
  "no encoding": (base) => fetch(`${base}/identity`),
  "gzip requested with accept-encoding: identity": (base) =>
    fetch(`${base}/gzip`, { headers: { "accept-encoding": "identity" } }),
  "a HEAD of gzip": (base) => fetch(`${base}/gzip`, { method: "HEAD" }),
  "a clone": async (base) => (await fetch(`${base}/gzip`)).clone(),
  "a response of a subclass": async (base) =>
    Object.setPrototypeOf(await fetch(`${base}/gzip`), class extends Response {}.prototype),
  "a new Response of a body that was not encoded": async (base) => {
    const response = await fetch(`${base}/identity`);
    return new Response(response.body, response);
  },
  "a new Response without the fields of the encoded body": async (base) => {
    const response = await fetch(`${base}/br`);
    const headers = new Headers(response.headers);
    headers.delete("content-encoding");
    headers.delete("content-length");
    return new Response(response.body, { headers });
  },
  "bytes that the app has encoded": () => {
    const body = ENCODERS.gzip(TEXT).slice();
    const headers = { ...ENCODED, "content-length": String(body.length) };
    return Promise.resolve(new Response(body, { headers }));
  },
  "a stream that the app has encoded": () => {
    const body = ENCODERS.gzip(TEXT).slice();
    const headers = { ...ENCODED, "content-length": String(body.length) };
    return Promise.resolve(new Response(new Blob([body]).stream(), { headers }));
  },
};

for (const [transport, start] of Object.entries(IN_PROCESS)) {
  for (const [name, app] of Object.entries(APPS)) {
    Deno.test(`${transport} sends a fetched response as Deno.serve does: ${name}`, async () => {
      await using origin = Deno.serve({
        hostname: "127.0.0.1",
        port: 0,
        onListen: () => {},
      }, upstream);
      const base = `http://127.0.0.1:${origin.addr.port}`;
      await using native = overDenoServe(() => app(base));
      await using ours = start(() => app(base));
      const sent = await Promise.all([native, ours].map(async (over) => {
        const { status, headers, body } = await over.send({
          method: "GET",
          target: "/",
          headers: [],
        });
        return {
          status,
          type: headers.get("content-type"),
          encoding: headers.get("content-encoding"),
          x: headers.get("x-a"),
          body,
        };
      }));
      assertEquals(sent[1], sent[0]);
    });
  }
}

Deno.test("every transport sends a new Response of a decoded body with its headers, as Deno.serve does", async () => {
  await using origin = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen: () => {} }, upstream);
  const app = async () => {
    const response = await fetch(`http://127.0.0.1:${origin.addr.port}/gzip`);
    return new Response(response.body, response);
  };
  for (const start of [overDenoServe, ...Object.values(IN_PROCESS)]) {
    await using over = start(app);
    const { status, headers } = await over.send({ method: "GET", target: "/", headers: [] });
    assertEquals([status, headers.get("content-encoding")], [200, "gzip"]);
  }
});
