/** What is fuzzed: the decoders of `wire/`, the gateway's reader, and the servers. */
import { assert, assertEquals } from "@std/assert";
import { type CGIInput, serveCGI } from "../../cgi.ts";
import type { Handler } from "../../bridge/app.ts";
import { serveFastCGI } from "../../fastcgi.ts";
import { ResponseReader } from "../../gateway/response.ts";
import { serveSCGI } from "../../scgi.ts";
import { ByteBuffer } from "../../wire/byte_buffer.ts";
import { toText } from "../../wire/byte_string.ts";
import { HeadDecoder } from "../../wire/cgi.ts";
import { ChunkedDecoder } from "../../wire/chunked.ts";
import {
  decodeBeginRequest,
  decodeEndRequest,
  decodePairs,
  encodePair,
  RecordDecoder,
  RecordType,
} from "../../wire/fastcgi.ts";
import { ProtocolError } from "../../wire/protocol_error.ts";
import { encodeSCGIHeaders, SCGIHeaderDecoder } from "../../wire/scgi.ts";
import { Variables } from "../../wire/variables.ts";
import { bytes, concat, text } from "../testing/bytes.ts";
import { readCaptures } from "../testing/captures.ts";
import { deadline } from "../testing/deadline.ts";
import { type Decoded, joinPieces } from "../testing/decoded.ts";
import { FakeListener } from "../testing/duplex.ts";
import { FastCGIClient, request } from "../testing/fastcgi_client.ts";
import { firstRecord, nameValuePairs, type Pairs, readPairs } from "../testing/fastcgi_records.ts";
import { parseResponse } from "../testing/response.ts";
import { SCGIClient } from "../testing/scgi_client.ts";
import { turns } from "../testing/serving.ts";

/** One thing that is fuzzed. */
export interface Target {
  /** Valid inputs, which are mutated. */
  corpus: Uint8Array[];
  /** How many mutations are tried before it is the next target's turn. */
  share: number;
  /** Returns where an input is cut at the borders of its format. */
  borders(whole: Uint8Array): number[];
  /**
   * Takes an input.
   *
   * @returns What came of it, which must be the same for all chunkings.
   * @throws {ProtocolError} If the input is invalid. Any other error is a defect.
   */
  take(chunks: Uint8Array[]): unknown;
}

const captures = readCaptures();
const captured = (protocol: string) =>
  captures.filter((capture) => capture.protocol === protocol).map(({ raw }) => raw);

/** Returns where the headers, contents and paddings of records begin. */
function recordBorders(whole: Uint8Array): number[] {
  const borders = [];
  for (let at = 0; at + 8 <= whole.length;) {
    const content = at + 8;
    const padding = content + whole[at + 4] * 256 + whole[at + 5];
    borders.push(at, content, padding);
    at = padding + whole[at + 6];
  }
  return borders;
}

/** Returns the places after line feeds, NULs, colons and commas. */
function lineBorders(whole: Uint8Array): number[] {
  return [...whole.keys()].filter((at) => "\n\0:,".includes(String.fromCharCode(whole[at])))
    .map((at) => at + 1);
}

/** Runs a decoder, and adds what it rejects the input with to what it has decoded. */
function decoded<T>(result: T, decode: (result: T) => void): unknown {
  try {
    decode(result);
    return result;
  } catch (error) {
    if (!(error instanceof ProtocolError)) throw error;
    return [result, error.status, error.message];
  }
}

const HEADS = [
  "Content-Type: text/plain\r\n\r\nhello",
  "Status: 404 Not Here\nContent-Type: text/html\nSet-Cookie: a=1\nSet-Cookie: b=2\n\n",
  "Location: /other?x=1\n\n",
  "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4;x=y\r\nWiki\r\nA\r\n0123456789\r\n0\r\nT: 1\r\n\r\n",
  "Status: 200\nContent-Length: 5\nConnection: close, X-Hop\nX-Hop: 1\n\nhello",
  "\r\nX: 1\r\n\r\n",
].map(bytes);
const CHUNKS = ["4;x=y\r\nWiki\r\nA\r\n0123456789\r\n0\r\nT: 1\r\n\r\nmore", "1\na\n0\n\n"]
  .map(bytes);

const pairs = captured("fastcgi").flatMap((raw) => {
  const contents: Uint8Array[] = [];
  for (let first = firstRecord(raw); first; first = firstRecord(first.rest)) {
    const { type, content } = first.record;
    if (type === RecordType.params && content.length > 0) contents.push(content);
  }
  return contents;
});

/** Environments and bodies of CGI scripts: NUL after each variable, another NUL, and the body. */
const environments = captured("scgi").map((raw) => {
  const done = new SCGIHeaderDecoder(262_144).push(raw)!;
  const variables = done.pairs.map(([name, value]) => `${name}=${value}\0`).join("");
  return concat([bytes(`GATEWAY_INTERFACE=CGI/1.1\0${variables}\0`), done.rest]);
});

/** What an app sees of a request. */
async function see(request: Request): Promise<unknown> {
  const body = await request.bytes().catch((error: Error) => `${error.name}: ${error.message}`);
  return [
    request.method,
    request.url,
    [...request.headers],
    typeof body === "string" ? body : text(body),
  ];
}

class Chunks implements CGIInput {
  #chunks: Uint8Array[];

  constructor(chunks: Uint8Array[]) {
    this.#chunks = chunks.filter(({ length }) => length > 0);
  }

  read(buffer: Uint8Array): Promise<number | null> {
    const first = this.#chunks[0];
    if (first === undefined) return Promise.resolve(null);
    const part = first.subarray(0, buffer.length);
    buffer.set(part);
    if (part.length < first.length) this.#chunks[0] = first.subarray(part.length);
    else this.#chunks.shift();
    return Promise.resolve(part.length);
  }
}

class Output {
  parts: Uint8Array[] = [];
  write(part: Uint8Array): Promise<number> {
    this.parts.push(part.slice());
    return Promise.resolve(part.length);
  }
}

async function runScript(chunks: Uint8Array[]): Promise<unknown> {
  const whole = concat(chunks);
  const gap = text(whole).indexOf("\0\0");
  const length = gap < 0 ? whole.length : gap;
  const env: Record<string, string> = {};
  for (const variable of text(whole.subarray(0, length)).split("\0")) {
    const equals = variable.indexOf("=");
    if (equals > 0) env[toText(variable.slice(0, equals))] = toText(variable.slice(equals + 1));
  }
  // Only the body arrives in chunks.
  let skipped = length + 2;
  const body = chunks.map((chunk) => {
    const part = chunk.subarray(Math.min(skipped, chunk.length));
    skipped = Math.max(skipped - chunk.length, 0);
    return part;
  });
  const [stdout, stderr] = [new Output(), new Output()];
  let seen: unknown;
  const app = async (request: Request) => {
    seen = await see(request);
    return new Response("ok");
  };
  await deadline(
    serveCGI(app, { env, stdin: new Chunks(body), stdout, stderr }),
    "the script's end",
  );
  const response = parseResponse(concat(stdout.parts));
  assert(response.status !== undefined, "a script must respond with a status");
  assert(response.status !== 500 || env.REQUEST_METHOD === undefined || env.REQUEST_METHOD === "");
  return [response.status, response.head, seen];
}

/** Lets a server take an input, and checks that it then serves a valid request. */
async function serveInput(
  chunks: Uint8Array[],
  start: (app: Handler, listener: FakeListener) => { shutdown(): Promise<void> },
  check: (listener: FakeListener) => Promise<void>,
): Promise<unknown> {
  const listener = new FakeListener();
  const app: Handler = async (request) => {
    await see(request);
    return new Response("ok");
  };
  const server = start(app, listener);
  const [conn] = listener.connect(1 << 20);
  const drain = async () => {
    const buffer = new Uint8Array(65536);
    while (await conn.read(buffer).catch(() => null) !== null);
  };
  const drained = drain();
  try {
    for (const chunk of chunks) {
      for (let at = 0; at < chunk.length;) at += await conn.write(chunk.subarray(at));
      if (chunks.length < 20) await turns(1);
    }
    await conn.closeWrite();
  } catch {
    // The server has closed the connection.
  }
  await turns(1);
  await check(listener);
  conn.close();
  await drained;
  await deadline(server.shutdown(), "the server's end");
  return "served";
}

export const TARGETS: Record<string, Target> = {
  "fastcgi-records": {
    corpus: captured("fastcgi"),
    share: 30,
    borders: recordBorders,
    take: (chunks) =>
      decoded({ records: [] as Decoded[], idle: false }, (result) => {
        const decoder = new RecordDecoder();
        try {
          for (const chunk of chunks) {
            decoder.push(chunk, {
              record(type, id, content) {
                if (type === RecordType.beginRequest && content.length >= 8) {
                  decodeBeginRequest(content);
                }
                if (type === RecordType.endRequest && content.length >= 8) {
                  decodeEndRequest(content);
                }
                result.records.push([type, id, text(content)]);
              },
            });
          }
        } finally {
          result.records = joinPieces(result.records);
        }
        result.idle = decoder.idle;
      }),
  },
  "fastcgi-pairs": {
    corpus: pairs,
    share: 30,
    borders: () => [],
    take(chunks) {
      const content = concat(chunks);
      const found = decodePairs(content);
      assertEquals(found, readPairs(content));
      const out = new ByteBuffer();
      for (const [name, value] of found) encodePair(out, name, value);
      const encoded = out.take();
      assertEquals(decodePairs(encoded), found);
      assertEquals(encoded, nameValuePairs(found));
      // The variables cut from the text on demand are those of the map.
      const slow = new Variables(found);
      const fast = Variables.cutFrom(...cutOf(found));
      for (const [name] of found) {
        // Nothing looks up an empty name.
        if (name !== "") assertEquals(fast.byteString(name), slow.byteString(name));
      }
      assertEquals([...fast], [...slow]);
      return found;
    },
  },
  "scgi-headers": {
    corpus: captured("scgi"),
    share: 30,
    borders: lineBorders,
    take(chunks) {
      const decoder = new SCGIHeaderDecoder(262_144);
      for (const [i, chunk] of chunks.entries()) {
        const done = decoder.push(chunk);
        if (done === null) continue;
        const rest = concat([done.rest, ...chunks.slice(i + 1)]);
        const whole = concat(chunks);
        assertEquals(
          text(encodeSCGIHeaders(done.pairs)),
          text(whole.subarray(0, whole.length - rest.length)),
        );
        return [done.pairs, text(rest)];
      }
      return "incomplete";
    },
  },
  "cgi-head": {
    corpus: HEADS,
    share: 60,
    borders: lineBorders,
    take(chunks) {
      const decoder = new HeadDecoder(100);
      for (const [i, chunk] of chunks.entries()) {
        const done = decoder.push(chunk);
        if (done === null) continue;
        new Headers(done.head.fields);
        return [done.head, text(concat([done.rest, ...chunks.slice(i + 1)]))];
      }
      return decoder.end();
    },
  },
  "chunked": {
    corpus: CHUNKS,
    share: 60,
    borders: lineBorders,
    take: (chunks) =>
      decoded({ content: "", ended: false }, (result) => {
        const decoder = new ChunkedDecoder();
        for (const chunk of chunks) {
          for (const part of decoder.push(chunk.slice())) result.content += text(part);
        }
        result.ended = decoder.ended;
      }),
  },
  "response": {
    corpus: HEADS,
    share: 40,
    borders: lineBorders,
    async take(chunks) {
      const reader = new ResponseReader({
        method: "GET",
        maxHeaderBytes: 1000,
        oncancel() {},
        oncomplete() {},
        log() {},
      });
      try {
        for (const chunk of chunks) {
          reader.push(chunk.slice());
          reader.flush();
        }
        reader.end();
      } catch (error) {
        if (!(error instanceof ProtocolError)) throw error;
        reader.fail(error);
      }
      const response = await reader.response;
      if (!(response instanceof Response)) return response;
      const { status, statusText, headers } = response;
      const body = await response.bytes().then(text, () => "truncated");
      return [status, statusText, [...headers], body];
    },
  },
  "cgi": { corpus: environments, share: 5, borders: lineBorders, take: runScript },
  "fastcgi-server": {
    corpus: captured("fastcgi"),
    share: 1,
    borders: recordBorders,
    take: (chunks) =>
      serveInput(
        chunks,
        (app, listener) => serveFastCGI(app, listener, { log() {} }),
        async (listener) => {
          using client = new FastCGIClient(listener.connect()[0]);
          await client.send(request());
          assertEquals((await client.response()).status, 200);
        },
      ),
  },
  "scgi-server": {
    corpus: captured("scgi"),
    share: 1,
    borders: lineBorders,
    take: (chunks) =>
      serveInput(
        chunks,
        (app, listener) => serveSCGI(app, listener, { log() {} }),
        async (listener) => {
          using client = new SCGIClient(listener.connect()[0]);
          await client.send(encodeSCGIHeaders(GOOD));
          assertEquals((await client.response()).status, 200);
        },
      ),
  },
};

const GOOD: Pairs = [["CONTENT_LENGTH", "0"], ["SCGI", "1"], ["REQUEST_METHOD", "GET"], [
  "REQUEST_URI",
  "/",
], ["HTTP_HOST", "example.org"]];

/** Returns the arguments of `Variables.cutFrom()`. */
function cutOf(found: Pairs): [text: string, ranges: number[]] {
  let joined = "";
  const ranges = found.flatMap(([name, value]) => {
    const start = joined.length;
    joined += name + value;
    return [start, start + name.length, joined.length];
  });
  return [joined, ranges];
}
