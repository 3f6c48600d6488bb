import type { Duplex } from "../../io/duplex.ts";
import { ByteBuffer } from "../../wire/byte_buffer.ts";
import {
  decodeEndRequest,
  encodeAbortRequest,
  encodeBeginRequest,
  encodePair,
  encodeStream,
  encodeStreamEnd,
  encodeValues,
  type EndRequest,
  RecordType,
  Role,
} from "../../wire/fastcgi.ts";
import { type FastCGIOptions, serveFastCGI } from "../../fastcgi.ts";
import type { App } from "../../bridge/app.ts";
import { type Answer, parseAnswer } from "./answer.ts";
import { concat, text } from "./bytes.ts";
import { deadline } from "./deadline.ts";
import { FakeListener } from "./duplex.ts";

export type Pairs = [name: string, value: string][];

/** The variables of a GET of `/`, but for those given. */
export function variables(others: Record<string, string> | Pairs = {}): Pairs {
  const usual = { REQUEST_METHOD: "GET", REQUEST_URI: "/", HTTP_HOST: "example.org" };
  const given = Array.isArray(others) ? others : Object.entries(others);
  const names = new Set(given.map(([name]) => name));
  return [...Object.entries(usual).filter(([name]) => !names.has(name)), ...given];
}

function encoded(encode: (out: ByteBuffer) => void): Uint8Array<ArrayBuffer> {
  const out = new ByteBuffer();
  encode(out);
  return out.take();
}

export function beginRequest(id: number, { role = Role.responder as number, keep = false } = {}) {
  return encoded((out) => encodeBeginRequest(out, id, role, keep ? 1 : 0));
}

/** The content of FCGI_PARAMS. */
export function nameValuePairs(pairs: Pairs): Uint8Array<ArrayBuffer> {
  return encoded((out) => pairs.forEach(([name, value]) => encodePair(out, name, value)));
}

/** FCGI_PARAMS with their end. */
export function params(id: number, pairs: Pairs): Uint8Array<ArrayBuffer> {
  return concat([
    stream(RecordType.params, id, nameValuePairs(pairs)),
    streamEnd(RecordType.params, id),
  ]);
}

export function stream(type: number, id: number, content: Uint8Array): Uint8Array<ArrayBuffer> {
  return encoded((out) => encodeStream(out, type, id, content));
}

export function streamEnd(type: number, id: number): Uint8Array<ArrayBuffer> {
  return encoded((out) => encodeStreamEnd(out, type, id));
}

/** FCGI_STDIN without its end. */
export function stdin(id: number, content: Uint8Array): Uint8Array<ArrayBuffer> {
  return stream(RecordType.stdin, id, content);
}

export function stdinEnd(id: number): Uint8Array<ArrayBuffer> {
  return streamEnd(RecordType.stdin, id);
}

export function abortRequest(id: number): Uint8Array<ArrayBuffer> {
  return encoded((out) => encodeAbortRequest(out, id));
}

export function getValues(...names: string[]): Uint8Array<ArrayBuffer> {
  return encoded((out) =>
    encodeValues(out, RecordType.getValues, names.map((name) => [name, ""] as const))
  );
}

/** A record laid out by hand. */
export function record(
  type: number,
  id: number,
  content: Uint8Array = new Uint8Array(),
  padding = 0,
): Uint8Array<ArrayBuffer> {
  const header = [
    1,
    type,
    id >> 8,
    id & 255,
    content.length >> 8,
    content.length & 255,
    padding,
    0,
  ];
  return concat([new Uint8Array(header), content, new Uint8Array(padding).fill(0xee)]);
}

export interface RequestParts {
  id?: number;
  role?: number;
  keep?: boolean;
  variables?: Record<string, string> | Pairs;
  body?: Uint8Array;
}

/** A whole request. CONTENT_LENGTH is told where there is a body. */
export function request(parts: RequestParts = {}): Uint8Array<ArrayBuffer> {
  const { id = 1, body = new Uint8Array() } = parts;
  let pairs = variables(parts.variables);
  if (body.length > 0 && !pairs.some(([name]) => name === "CONTENT_LENGTH")) {
    pairs = [["CONTENT_LENGTH", String(body.length)], ...pairs];
  }
  return concat([
    beginRequest(id, parts),
    params(id, pairs),
    stdin(id, body),
    stdinEnd(id),
  ]);
}

/** A record as it came. */
export interface Received {
  type: number;
  id: number;
  content: Uint8Array;
}

/** What came for one request. */
export interface FastCGIAnswer extends Answer {
  stderr: string;
  /** How the streams and the request ended: record types in order, content left out. */
  end: EndRequest | null;
  /** Whether STDOUT had its end. */
  complete: boolean;
}

/** The other end of a FastCGI connection. Reads only when asked. */
export class FastCGIClient {
  /** All records that came. */
  readonly records: Received[] = [];
  /** Whether the connection has ended. */
  ended = false;
  readonly conn: Duplex;
  #bytes: Uint8Array = new Uint8Array();
  #buffer = new Uint8Array(65536);

  constructor(conn: Duplex) {
    this.conn = conn;
  }

  async send(...parts: Uint8Array[]): Promise<void> {
    const bytes = concat(parts);
    for (let at = 0; at < bytes.length;) at += await this.conn.write(bytes.subarray(at));
  }

  /** The next record, or null at the end. */
  async next(label = "a record"): Promise<Received | null> {
    while (!this.ended) {
      const { length } = this.#bytes;
      const end = 8 + (this.#bytes[4] << 8 | this.#bytes[5]) + this.#bytes[6];
      if (length >= 8 && length >= end) {
        const [, type, high, low] = this.#bytes;
        const id = high << 8 | low;
        const content = this.#bytes.slice(8, end - this.#bytes[6]);
        this.#bytes = this.#bytes.subarray(end);
        const received = { type, id, content };
        this.records.push(received);
        return received;
      }
      const count = await deadline(this.conn.read(this.#buffer), label).catch((error) => {
        if (error instanceof Deno.errors.ConnectionReset) return null;
        throw error;
      });
      if (count === null) this.ended = true;
      else this.#bytes = concat([this.#bytes, this.#buffer.subarray(0, count)]);
    }
    return null;
  }

  /** Reads on until there is one that is looked for, or the end. */
  async until(found: (record: Received) => boolean, label: string): Promise<Received | null> {
    const before = this.records.find(found);
    if (before) return before;
    while (true) {
      const record = await this.next(label);
      if (record === null || found(record)) return record;
    }
  }

  /** Reads to the end of the request with this id, and takes its records out of the list. */
  async answer(id = 1): Promise<FastCGIAnswer> {
    await this.until(
      (record) => record.id === id && record.type === RecordType.endRequest,
      `the end of request ${id}`,
    );
    const mine: Received[] = [];
    let last: Received | undefined;
    for (let at = 0; at < this.records.length && last?.type !== RecordType.endRequest;) {
      if (this.records[at].id !== id) at++;
      else mine.push(last = this.records.splice(at, 1)[0]);
    }
    const contents = (type: number) =>
      concat(mine.filter((record) => record.type === type).map(({ content }) => content));
    const stdout = contents(RecordType.stdout);
    const end = last?.type === RecordType.endRequest ? decodeEndRequest(last.content) : null;
    return {
      ...(stdout.length > 0 ? parseAnswer(stdout) : NOTHING),
      stderr: text(contents(RecordType.stderr)),
      end,
      complete: mine.some(({ type, content }) =>
        type === RecordType.stdout && content.length === 0
      ),
    };
  }

  /** Reads to the end of the connection. */
  async end(): Promise<void> {
    while (await this.next("the end of the connection") !== null);
  }

  close(): void {
    try {
      this.conn.close();
    } catch {
      // It is closed.
    }
  }

  [Symbol.dispose](): void {
    this.close();
  }
}

const NOTHING: Answer = {
  status: undefined,
  reason: "",
  fields: [],
  headers: new Headers(),
  body: new Uint8Array(),
  head: "",
};

/** Serves one request over a connection in memory. What the server logs is part of the answer's stderr. */
export async function ask(
  app: App,
  parts: RequestParts = {},
  options: FastCGIOptions = {},
): Promise<FastCGIAnswer> {
  const listener = new FakeListener();
  const logged: string[] = [];
  const server = serveFastCGI(app, listener, {
    log: (message) => logged.push(message),
    ...options,
  });
  const client = new FastCGIClient(listener.connect()[0]);
  await client.send(request(parts));
  const answer = await client.answer(parts.id);
  client.close();
  await deadline(server.shutdown(), "the server's end");
  answer.stderr += logged.join("\n");
  return answer;
}
