/** Decodes and serves what real web servers sent (`tests/testdata/`). */
import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import type { Handler } from "../../bridge/app.ts";
import { serveFastCGI } from "../../fastcgi.ts";
import { serveSCGI } from "../../scgi.ts";
import { ByteBuffer } from "../../wire/byte_buffer.ts";
import { decodePairs, encodePair } from "../../wire/fastcgi.ts";
import { encodeSCGIHeaders } from "../../wire/scgi.ts";
import { bytes, concat, cut, split, text } from "../testing/bytes.ts";
import { bodyOf, type ReadCapture, readCaptures, type SentRequest } from "../testing/captures.ts";
import { deadline } from "../testing/deadline.ts";
import { type Decoded, decodeRecords, decodeSCGI, joinPieces } from "../testing/decoded.ts";
import { FakeListener } from "../testing/duplex.ts";
import { FastCGIClient } from "../testing/fastcgi_client.ts";
import {
  firstRecord,
  type Pairs,
  readPairs,
  type Received,
  Type,
} from "../testing/fastcgi_records.ts";
import { SCGIClient } from "../testing/scgi_client.ts";

const captures = readCaptures();
const SEED = 1;

/** Returns bytes whole, byte by byte, cut once at each place (at some if there are many), and cut at several. */
function* cuttings(whole: Uint8Array): Generator<Uint8Array[]> {
  yield [whole];
  yield split(whole);
  const place = fc.integer({ min: 1, max: whole.length - 1 });
  const places = whole.length < 1000
    ? whole.keys()
    : fc.sample(place, { seed: SEED, numRuns: 100 }).concat([...Array(600).keys()]);
  for (const at of places) yield cut(whole, [at]);
  const several = fc.array(place, { minLength: 2, maxLength: 40 });
  for (const at of fc.sample(several, { seed: SEED, numRuns: 20 })) yield cut(whole, at);
}

/** Returns the records, each with its bytes, as the tests' own decoder reads them. */
function recordsOf(raw: Uint8Array): (Received & { raw: Uint8Array })[] {
  const records = [];
  for (let left = raw; left.length > 0;) {
    const first = firstRecord(left);
    assert(first, `${left.length} bytes must be whole records: they are not`);
    records.push({ ...first.record, raw: left.subarray(0, left.length - first.rest.length) });
    left = first.rest;
  }
  return records;
}

/** Splits a connection into requests, as a web server sends the next one when it has the response. */
function requestsOf({ protocol, raw }: ReadCapture): { id: number; raw: Uint8Array }[] {
  if (protocol === "scgi") return [{ id: 0, raw }];
  const requests: { id: number; raw: Uint8Array }[] = [];
  let parts: Uint8Array[] = [];
  for (const { type, id, content, raw: part } of recordsOf(raw)) {
    parts.push(part);
    if (type !== Type.stdin || content.length > 0) continue;
    requests.push({ id, raw: concat(parts) });
    parts = [];
  }
  assertEquals(parts, [], "a request must end");
  return requests;
}

for (const { name, protocol, raw, requests } of captures) {
  Deno.test(`${name} is decoded the same in any chunking`, () => {
    if (protocol === "scgi") {
      const { pairs, rest } = decodeSCGI([raw])!;
      const head = raw.subarray(0, raw.length - rest.length);
      // A netstring has one spelling, so this is the whole head.
      assertEquals(encodeSCGIHeaders(pairs), head as Uint8Array<ArrayBuffer>);
      assertEquals(rest, text(bodyOf(requests[0])));
      for (const chunks of cuttings(raw)) assertEquals(decodeSCGI(chunks), { pairs, rest });
      return;
    }
    const records = recordsOf(raw);
    const expected = joinPieces(
      records.map(({ type, id, content }): Decoded => [type, id, text(content)]),
    );
    for (const chunks of cuttings(raw)) assertEquals(decodeRecords(chunks), expected);
    const contents = (type: number) =>
      expected.filter((record) => record[0] === type && record[2] !== "").map(([, , it]) => it);
    assertEquals(contents(Type.stdin), requests.map((it) => text(bodyOf(it))).filter((it) => it));
    for (const [i, content] of contents(Type.params).entries()) {
      const pairs = decodePairs(bytes(content));
      assertEquals(pairs, readPairs(bytes(content)));
      assertEquals(new Map(pairs).get("REQUEST_URI"), requests[i].target);
      const out = new ByteBuffer();
      for (const [name, value] of pairs) encodePair(out, name, value);
      assertEquals(text(out.take()), content);
    }
  });
}

/** A request as the app sees it. */
interface Seen {
  method: string;
  host: string;
  target: string;
  headers: Pairs;
  body: Uint8Array;
}

/** Returns the headers that the app receives: the client's, as the web server changes them. */
function headersOf({ name, server }: ReadCapture, request: SentRequest): Headers {
  const headers = new Headers(request.headers);
  const { length } = bodyOf(request);
  // Caddy never knows the length of a chunked body; others do if they buffer it (rule A22).
  const hasLength = !request.chunked || server !== "caddy" && !name.includes("streamed");
  if (length > 0 && hasLength) headers.set("content-length", String(length));
  // It drops headers without a value.
  if (server === "lighttpd") headers.delete("x-empty");
  if (server === "caddy") {
    headers.set("user-agent", headers.get("user-agent") ?? "");
    headers.set("x-forwarded-for", "127.0.0.1");
    headers.set("x-forwarded-host", "example.org");
    headers.set("x-forwarded-proto", "http");
  }
  return headers;
}

function expectedOf(capture: ReadCapture, request: SentRequest): Seen {
  const headers = headersOf(capture, request);
  const host = headers.get("host")!;
  headers.delete("host");
  return {
    method: request.method,
    host,
    target: request.target,
    headers: [...headers],
    body: bodyOf(request),
  };
}

async function seenOf(request: Request): Promise<Seen> {
  const { pathname, search, hostname } = new URL(request.url);
  const headers = new Headers(request.headers);
  headers.delete("host");
  return {
    method: request.method,
    host: hostname,
    target: pathname + search,
    headers: [...headers],
    body: await request.bytes(),
  };
}

/** Serves a capture, and returns the requests that the app saw. */
async function serve(capture: ReadCapture, chunks: (raw: Uint8Array) => Uint8Array[]) {
  const listener = new FakeListener();
  const seen: Seen[] = [];
  const logged: string[] = [];
  const app: Handler = async (request) => {
    seen.push(await seenOf(request));
    return new Response("ok");
  };
  const [conn] = listener.connect();
  const fastcgi = capture.protocol === "fastcgi";
  using client = fastcgi ? new FastCGIClient(conn) : new SCGIClient(conn);
  const server = (fastcgi ? serveFastCGI : serveSCGI)(app, listener, {
    log: (message) => logged.push(message),
  });
  for (const { id, raw } of requestsOf(capture)) {
    for (const chunk of chunks(raw)) await deadline(client.send(chunk), "the request");
    const { status } =
      await (client instanceof FastCGIClient ? client.response(id) : client.response());
    assertEquals(status, 200);
  }
  client.close();
  await deadline(server.shutdown(), "the server's end");
  assertEquals(logged, []);
  return seen;
}

for (const capture of captures) {
  Deno.test(`${capture.name} is served as the client sent it`, async () => {
    const expected = capture.requests.map((request) => expectedOf(capture, request));
    const every = (size: number) => (raw: Uint8Array) =>
      cut(raw, raw.keys().filter((at) => at % size === 0));
    assertEquals(await serve(capture, every(Infinity)), expected);
    assertEquals(await serve(capture, every(97)), expected);
    if (capture.raw.length < 2000) assertEquals(await serve(capture, split), expected);
  });
}

Deno.test("each server that speaks FastCGI and SCGI has been captured", () => {
  const of = (protocol: string) => {
    const servers = captures.filter((capture) => capture.protocol === protocol)
      .map(({ server }) => server);
    return [...new Set(servers)].sort();
  };
  assertEquals(of("fastcgi"), ["apache", "caddy", "h2o", "haproxy", "lighttpd", "nginx"]);
  assertEquals(of("scgi"), ["apache", "lighttpd", "nginx"]);
});
