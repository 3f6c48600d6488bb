import { assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { fetchSCGI, scgiGateway, type SCGIGatewayOptions } from "../../gateway.ts";
import { concat } from "../testing/bytes.ts";
import { deadline } from "../testing/deadline.ts";
import { readHeaders } from "../testing/scgi_client.ts";
import { Application, type Peer } from "./application.ts";

const encoder = new TextEncoder();
const OK = "Content-Type: text/plain\r\n\r\n";

interface ReceivedRequest {
  pairs: [name: string, value: string][];
  body: string;
}

/** Reads a request: the headers, and the body up to its CONTENT_LENGTH. */
async function read(peer: Peer, whole = true): Promise<ReceivedRequest> {
  const buffer = new Uint8Array(65536);
  const next = async () => {
    const count = await deadline(peer.conn.read(buffer), "the request");
    return buffer.slice(0, count ?? 0);
  };
  let all = await next();
  let decoded = readHeaders(all);
  for (; decoded === undefined; decoded = readHeaders(all)) all = concat([all, await next()]);
  const length = Number(decoded.pairs[0][1]);
  let body = new TextDecoder().decode(decoded.rest);
  while (whole && body.length < length) body += new TextDecoder().decode(await next());
  return { pairs: decoded.pairs, body };
}

function gatewayTo(address: string, options: SCGIGatewayOptions = {}) {
  const log: string[] = [];
  const gateway = scgiGateway(address, { log: (line) => log.push(line), ...options });
  return {
    log,
    fetch: (path: string, init?: RequestInit) =>
      deadline(gateway(new Request(`http://localhost${path}`, init)), `a response to ${path}`),
    [Symbol.dispose]: () => gateway[Symbol.dispose](),
  };
}

Deno.test("scgiGateway() sends CONTENT_LENGTH first and SCGI=1, and the body after", async () => {
  let request: ReceivedRequest | undefined;
  await using application = new Application(async (peer) => {
    request = await read(peer);
    await peer.write(encoder.encode(OK + "hello"));
  });
  using gateway = gatewayTo(application.address);
  assertEquals(await (await gateway.fetch("/a?b")).text(), "hello");
  assertEquals(request!.pairs.slice(0, 2), [["CONTENT_LENGTH", "0"], ["SCGI", "1"]]);
  assertEquals(new Map(request!.pairs).size, request!.pairs.length);
  assertEquals(new Map(request!.pairs).get("REQUEST_URI"), "/a?b");
  const body = new Blob(["a body ", "without a length"]).stream();
  await (await gateway.fetch("/", { method: "POST", body })).text();
  assertEquals(request!.pairs[0], ["CONTENT_LENGTH", "23"]);
  assertEquals(request!.body, "a body without a length");
  assertEquals(application.connections, 2);
});

Deno.test("scgiGateway() receives at most maxBodyBytes of a body without a length", async () => {
  await using application = new Application(async () => {});
  using gateway = gatewayTo(application.address, { maxBodyBytes: 10 });
  const { status } = await gateway.fetch("/", { method: "POST", body: "eleven byte" });
  assertEquals([status, application.connections], [413, 0]);
});

Deno.test("scgiGateway() rejects NUL, which would inject variables", async () => {
  await using application = new Application(async () => {});
  using gateway = gatewayTo(application.address, {
    variables: { REMOTE_USER: "a\0HTTPS\0on" },
  });
  assertEquals((await gateway.fetch("/")).status, 400);
  assertEquals((await gateway.fetch("/%00HTTPS%00on%00")).status, 400);
  assertEquals(application.connections, 0);
});

Deno.test("scgiGateway() reads while writing", async () => {
  const length = 10_000_000;
  await using application = new Application(async (peer) => {
    let received = (await read(peer, false)).body.length;
    // Sends everything before it reads: the buffers of both sides are far smaller.
    await peer.write(encoder.encode(OK));
    for (let sent = 0; sent < length; sent += 50_000) await peer.write(new Uint8Array(50_000));
    const buffer = new Uint8Array(65536);
    while (received < length) {
      received += await deadline(peer.conn.read(buffer), "the body") ?? NaN;
    }
    assertEquals(received, length);
  });
  using gateway = gatewayTo(application.address);
  const body = new Blob([new Uint8Array(length)]);
  const headers = { "content-length": String(length) };
  const response = await gateway.fetch("/", { method: "POST", body, headers });
  let received = 0;
  for await (const chunk of response.body!) received += chunk.length;
  assertEquals(received, length);
});

Deno.test("scgiGateway() responds with 502 without a response, and with 504 after the timeout", async () => {
  await using silent = new Application(async (peer) => void await read(peer));
  using closed = gatewayTo(silent.address);
  assertEquals((await closed.fetch("/")).status, 502);
  await using hanging = new Application(async (peer) => {
    await read(peer);
    await deadline(peer.conn.read(new Uint8Array(1)).catch(() => null), "the end");
  });
  using gateway = gatewayTo(hanging.address, { timeout: 50 });
  assertEquals((await gateway.fetch("/")).status, 504);
  assertStringIncludes(gateway.log[0], "50 ms");
});

Deno.test("scgiGateway() closes the connection when the client disconnects", async () => {
  const begun = Promise.withResolvers<void>();
  await using application = new Application(async (peer) => {
    await read(peer);
    begun.resolve();
    assertEquals(await deadline(peer.conn.read(new Uint8Array(1)), "the end"), null);
  });
  using gateway = gatewayTo(application.address);
  const controller = new AbortController();
  const response = gateway.fetch("/", { signal: controller.signal });
  await begun.promise;
  controller.abort();
  await response;
});

Deno.test("fetchSCGI() throws if the gateway's response would be 502", async () => {
  await using application = new Application(async (peer) => {
    await read(peer);
    await peer.write(encoder.encode("what is this"));
  });
  await assertRejects(
    () => fetchSCGI("http://localhost/", application.address),
    Error,
    "must end with an empty line",
  );
});
