/**
 * Benchmarks of the parts alone: the codecs, and the servers on connections in memory.
 *
 *   deno bench bench/codec_bench.ts
 */

import { type Duplex, type Listener, serveFastCGI } from "../fastcgi.ts";
import { serveSCGI } from "../scgi.ts";
import { ByteBuffer } from "../wire/byte_buffer.ts";
import { decodeByteString } from "../wire/byte_string.ts";
import { encodeHead, HeadDecoder } from "../wire/cgi.ts";
import {
  decodeVariables,
  encodeEndRequest,
  encodePair,
  encodeStream,
  encodeStreamEnd,
  encodeStreamText,
  RecordDecoder,
  RecordType,
} from "../wire/fastcgi.ts";
import { encodeSCGIHeaders, SCGIHeaderDecoder } from "../wire/scgi.ts";
import { encodeRequest, MANY_HEADERS, type RequestBytes, variablesOf } from "./requests.ts";

function concat({ head, body, tail }: RequestBytes): Uint8Array<ArrayBuffer> {
  const buffer = new ByteBuffer();
  for (const part of [head, body, tail]) buffer.append(part);
  return buffer.take().slice();
}

const small = { path: "/hello" };
const variables = variablesOf(small);
const fastCGIRequest = concat(encodeRequest("fastcgi", small, true));
const fastCGIUpload = concat(encodeRequest("fastcgi", { path: "/upload", body: 1 << 20 }, true));
const manyHeaders = { path: "/headers", headers: MANY_HEADERS };
const fastCGIMany = concat(encodeRequest("fastcgi", manyHeaders, true));
const scgiRequest = concat(encodeRequest("scgi", small, false));

const buffer = new ByteBuffer();
for (const [name, value] of variables) encodePair(buffer, name, value);
const pairs = buffer.take().slice();
const fields: [name: string, value: string][] = [
  ["content-type", "text/plain;charset=UTF-8"],
  ["content-length", "12"],
  ["cache-control", "no-store"],
];
const head = new TextEncoder().encode(encodeHead(200, "", fields) + "Hello, world");
const chunk = new Uint8Array(65536);

Deno.bench("FastCGI records: decode the records of a request", () => {
  new RecordDecoder().push(fastCGIRequest, { record() {} });
});

Deno.bench("FastCGI records: decode the records of a request, byte by byte", () => {
  const decoder = new RecordDecoder();
  const sink = { record() {} };
  for (let at = 0; at < fastCGIRequest.length; at++) {
    decoder.push(fastCGIRequest.subarray(at, at + 1), sink);
  }
});

Deno.bench("FastCGI records: decode the records of 1 MiB", () => {
  const decoder = new RecordDecoder();
  const sink = { record() {} };
  for (let at = 0; at < fastCGIUpload.length; at += 65536) {
    decoder.push(fastCGIUpload.subarray(at, at + 65536), sink);
  }
});

Deno.bench("FastCGI records: encode a small response", () => {
  const out = new ByteBuffer();
  encodeStreamText(out, RecordType.stdout, 1, "Status: 200 OK\r\n\r\nHello, world");
  encodeStreamEnd(out, RecordType.stdout, 1);
  encodeEndRequest(out, 1, 0, 0);
});

Deno.bench("FastCGI records: encode 64 KiB of a response", () => {
  encodeStream(buffer, RecordType.stdout, 1, chunk);
  buffer.take();
  buffer.recycle();
});

Deno.bench("name-value pairs: decode the variables of a request", () => {
  decodeVariables(decodeByteString(pairs), 500);
});

Deno.bench("name-value pairs: decode and read the variables of a request", () => {
  for (const _ of decodeVariables(decodeByteString(pairs), 500).pairs());
});

Deno.bench("name-value pairs: encode the variables of a request", () => {
  for (const [name, value] of variables) encodePair(buffer, name, value);
  buffer.take();
  buffer.recycle();
});

Deno.bench("CGI header block: encode a head", () => {
  encodeHead(200, "", fields);
});

Deno.bench("CGI header block: decode a head", () => {
  new HeadDecoder(65_536).push(head);
});

Deno.bench("SCGI headers: encode headers", () => {
  encodeSCGIHeaders(variables);
});

Deno.bench("SCGI headers: decode headers", () => {
  new SCGIHeaderDecoder(262_144).push(scgiRequest);
});

const addr: Deno.Addr = { transport: "tcp", hostname: "127.0.0.1", port: 1 };

/** A connection in memory, whose peer sends a request on each call of {@linkcode MemoryDuplex.request}. */
class MemoryDuplex implements Duplex {
  readonly remoteAddr = addr;
  #request = new Uint8Array();
  #sent = 0;
  #reading: { buffer: Uint8Array; resolve: (count: number | null) => void } | undefined;
  #ended: (() => void) | undefined;
  #ends: (bytes: Uint8Array) => boolean;

  /** @param ends Returns whether written bytes end a response. */
  constructor(ends: (bytes: Uint8Array) => boolean) {
    this.#ends = ends;
  }

  /** Sends a request. Resolves when the response has ended. */
  request(request: Uint8Array<ArrayBuffer>): Promise<void> {
    this.#request = request;
    this.#sent = 0;
    const ended = new Promise<void>((resolve) => this.#ended = resolve);
    if (this.#reading) {
      const { buffer, resolve } = this.#reading;
      this.#reading = undefined;
      resolve(this.#copy(buffer));
    }
    return ended;
  }

  #copy(buffer: Uint8Array): number {
    const part = this.#request.subarray(this.#sent, this.#sent + buffer.length);
    buffer.set(part);
    this.#sent += part.length;
    return part.length;
  }

  read(buffer: Uint8Array): Promise<number | null> {
    if (this.#sent < this.#request.length) return Promise.resolve(this.#copy(buffer));
    return new Promise((resolve) => this.#reading = { buffer, resolve });
  }

  write(bytes: Uint8Array): Promise<number> {
    if (this.#ends(bytes)) this.#ended?.();
    return Promise.resolve(bytes.length);
  }

  closeWrite(): Promise<void> {
    this.#reading?.resolve(null);
    return Promise.resolve();
  }

  close(): void {
    this.#reading?.resolve(null);
  }
}

/** A listener in memory. */
class MemoryListener implements Listener {
  readonly addr = addr;
  #connections: Duplex[] = [];
  #wake: (() => void) | undefined;

  open<D extends Duplex>(connection: D): D {
    this.#connections.push(connection);
    this.#wake?.();
    return connection;
  }

  close(): void {}

  async *[Symbol.asyncIterator](): AsyncIterator<Duplex> {
    while (true) {
      while (this.#connections.length > 0) yield this.#connections.shift()!;
      await new Promise<void>((resolve) => this.#wake = resolve);
    }
  }
}

const apps = {
  hello: () => new Response("Hello, world"),
  headers: (request: Request) => new Response(request.headers.get("cookie")),
  upload: async (request: Request) => new Response(String((await request.bytes()).length)),
};

/** Returns whether the bytes end with FCGI_END_REQUEST, a record of 16 bytes and the last of a response. */
function endsFastCGI(bytes: Uint8Array): boolean {
  return bytes.length >= 16 && bytes[bytes.length - 15] === RecordType.endRequest;
}

function connect(app: (request: Request) => Response | Promise<Response>): MemoryDuplex {
  const listener = new MemoryListener();
  serveFastCGI(app, listener).unref();
  return listener.open(new MemoryDuplex(endsFastCGI));
}

const hello = connect(apps.hello);
Deno.bench("no I/O: FastCGI, hello", async () => {
  await hello.request(fastCGIRequest);
});

const url = connect((request) => new Response(request.url));
Deno.bench("no I/O: FastCGI, app reads the URL", async () => {
  await url.request(fastCGIRequest);
});

const headers = connect(apps.headers);
Deno.bench("no I/O: FastCGI, app reads one of 20 headers", async () => {
  await headers.request(fastCGIMany);
});

const upload = connect(apps.upload);
Deno.bench("no I/O: FastCGI, app reads 1 MiB", async () => {
  await upload.request(fastCGIUpload);
});

const scgi = new MemoryListener();
serveSCGI(apps.hello, scgi).unref();
Deno.bench("no I/O: SCGI, hello, a connection per request", async () => {
  await scgi.open(new MemoryDuplex(() => true)).request(scgiRequest);
});
