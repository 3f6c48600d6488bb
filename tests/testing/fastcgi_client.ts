import { type FastCGIOptions, serveFastCGI } from "../../fastcgi.ts";
import type { App } from "../../bridge/app.ts";
import { type ParsedResponse, parseOutput } from "./response.ts";
import { concat, text } from "./bytes.ts";
import { ClientEnd } from "./client_end.ts";
import { deadline } from "./deadline.ts";
import { FakeListener } from "./duplex.ts";
import {
  beginRequest,
  type EndRequest,
  firstRecord,
  type Pairs,
  params,
  readEndRequest,
  type Received,
  stdin,
  stdinEnd,
  Type,
} from "./fastcgi_records.ts";

/** Returns the variables of `GET /`, with these added or replaced. */
export function variables(others: Record<string, string> | Pairs = {}): Pairs {
  const usual = { REQUEST_METHOD: "GET", REQUEST_URI: "/", HTTP_HOST: "example.org" };
  const given = Array.isArray(others) ? others : Object.entries(others);
  const names = new Set(given.map(([name]) => name));
  return [...Object.entries(usual).filter(([name]) => !names.has(name)), ...given];
}

export interface RequestParts {
  id?: number;
  role?: number;
  keep?: boolean;
  variables?: Record<string, string> | Pairs;
  body?: Uint8Array;
}

/** Returns the records of a whole request. CONTENT_LENGTH is added if there is a body. */
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

/** The response to one request. */
export interface FastCGIResponse extends ParsedResponse {
  stderr: string;
  /** The content of FCGI_END_REQUEST, or null if it did not come. */
  end: EndRequest | null;
  /** Whether the empty record that ends FCGI_STDOUT came. */
  complete: boolean;
}

/** The web server's end of a FastCGI connection. Reads only when a method is called. */
export class FastCGIClient extends ClientEnd {
  /** The records received so far, except those that {@linkcode response} removed. */
  readonly records: Received[] = [];
  /** Whether the connection has ended. */
  ended = false;
  #bytes: Uint8Array = new Uint8Array();
  #buffer = new Uint8Array(65536);

  /** Whether nothing has been received, apart from what {@linkcode response} has returned. */
  get silent(): boolean {
    return this.records.length === 0;
  }

  /** Reads a record of a response. */
  begun(): Promise<Received | null> {
    return this.next("the head");
  }

  /** Reads the next record. Returns null at the end of the connection. */
  async next(label = "a record"): Promise<Received | null> {
    while (!this.ended) {
      const first = firstRecord(this.#bytes);
      if (first !== undefined) {
        this.#bytes = first.rest;
        this.records.push(first.record);
        return first.record;
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

  /** Reads until a received record matches. Returns null at the end of the connection. */
  async until(matches: (record: Received) => boolean, label: string): Promise<Received | null> {
    const before = this.records.find(matches);
    if (before) return before;
    while (true) {
      const record = await this.next(label);
      if (record === null || matches(record)) return record;
    }
  }

  /** Reads to the end of the request with this id, and removes its records from the list. */
  async response(id = 1): Promise<FastCGIResponse> {
    await this.until(
      (record) => record.id === id && record.type === Type.endRequest,
      `the end of request ${id}`,
    );
    const mine: Received[] = [];
    let last: Received | undefined;
    for (let at = 0; at < this.records.length && last?.type !== Type.endRequest;) {
      if (this.records[at].id !== id) at++;
      else mine.push(last = this.records.splice(at, 1)[0]);
    }
    const contents = (type: number) =>
      concat(mine.filter((record) => record.type === type).map(({ content }) => content));
    const stdout = contents(Type.stdout);
    const end = last?.type === Type.endRequest ? readEndRequest(last.content) : null;
    return {
      ...parseOutput(stdout),
      stderr: text(contents(Type.stderr)),
      end,
      complete: mine.some(({ type, content }) => type === Type.stdout && content.length === 0),
    };
  }

  /** Reads to the end of the connection. */
  async end(): Promise<void> {
    while (await this.next("the end of the connection") !== null);
  }
}

/** Serves one request over an in-memory connection. The response's stderr includes what the server logs. */
export async function serveOne(
  app: App,
  parts: RequestParts = {},
  options: FastCGIOptions = {},
): Promise<FastCGIResponse> {
  const listener = new FakeListener();
  const logged: string[] = [];
  const server = serveFastCGI(app, listener, {
    log: (message) => logged.push(message),
    ...options,
  });
  const client = new FastCGIClient(listener.connect()[0]);
  await client.send(request(parts));
  const response = await client.response(parts.id);
  client.close();
  await deadline(server.shutdown(), "the server's end");
  response.stderr += logged.join("\n");
  return response;
}
