/** A scripted FastCGI or SCGI application: the test sends its records one by one. */
import { concat } from "../testing/bytes.ts";
import { deadline } from "../testing/deadline.ts";
import {
  endRequest,
  firstRecord,
  readPairs,
  type Received,
  stream,
  streamEnd,
  Type,
} from "../testing/fastcgi_records.ts";

const encoder = new TextEncoder();

/** The part of a request received so far. */
export interface ReceivedRequest {
  id: number;
  keep: boolean;
  role: number;
  variables: Map<string, string>;
  stdin: Uint8Array;
  stdinEnded: boolean;
  aborted: boolean;
}

/** The application's end of a connection. */
export class Peer {
  readonly conn: Deno.Conn;
  received: ReceivedRequest = empty();
  /** Whether the gateway has closed it. */
  closed = false;
  #bytes: Uint8Array = new Uint8Array();
  #params: Uint8Array[] = [];

  constructor(conn: Deno.Conn) {
    this.conn = conn;
  }

  /** Reads until a condition is true. Returns false if the gateway closes first. */
  async until(label: string, condition: (received: ReceivedRequest) => boolean): Promise<boolean> {
    const buffer = new Uint8Array(65536);
    while (!condition(this.received)) {
      const read = this.conn.read(buffer).catch(() => null);
      const count = await deadline(read, label);
      if (count === null) {
        this.closed = true;
        return false;
      }
      this.#bytes = concat([this.#bytes, buffer.subarray(0, count)]);
      for (let first; (first = firstRecord(this.#bytes)) !== undefined;) {
        this.#bytes = first.rest;
        this.#take(first.record);
      }
    }
    return true;
  }

  /** Waits for the next complete request. Returns undefined if the gateway closes first. */
  async request(): Promise<ReceivedRequest | undefined> {
    this.received = empty();
    return await this.until("a request", (received) => received.stdinEnded)
      ? this.received
      : undefined;
  }

  #take({ type, id, content }: Received): void {
    // Not every library knows these (rule C3).
    if (id === 0) {
      throw new Error(`The gateway must send no management record: one of type ${type}`);
    }
    const { received } = this;
    if (type === Type.beginRequest) {
      received.id = id;
      received.role = content[1];
      received.keep = content[2] === 1;
    } else if (type === Type.params) {
      if (content.length > 0) return void this.#params.push(content);
      received.variables = new Map(readPairs(concat(this.#params.splice(0))));
    } else if (type === Type.stdin) {
      if (content.length === 0) received.stdinEnded = true;
      received.stdin = concat([received.stdin, content]);
    } else if (type === Type.abortRequest) {
      received.aborted = true;
    }
  }

  async write(bytes: Uint8Array): Promise<void> {
    for (let at = 0; at < bytes.length;) at += await this.conn.write(bytes.subarray(at));
  }

  /** Sends FCGI_STDOUT. */
  stdout(text: string | Uint8Array): Promise<void> {
    return this.#stream(Type.stdout, text);
  }

  /** Sends FCGI_STDERR. */
  stderr(text: string): Promise<void> {
    return this.#stream(Type.stderr, text);
  }

  async #stream(type: number, text: string | Uint8Array): Promise<void> {
    const content = typeof text === "string" ? encoder.encode(text) : text;
    await this.write(stream(type, this.received.id, content));
  }

  /** Sends FCGI_END_REQUEST. */
  async end(appStatus = 0, protocolStatus = 0, stdoutEnd = true): Promise<void> {
    const { id } = this.received;
    const end = endRequest(id, { appStatus, protocolStatus });
    await this.write(stdoutEnd ? concat([streamEnd(Type.stdout, id), end]) : end);
  }

  /** Sends a complete response. */
  async response(text: string): Promise<void> {
    await this.stdout(text);
    await this.end();
  }

  close(): void {
    try {
      this.conn.close();
    } catch {
      // The gateway has closed it.
    }
  }
}

function empty(): ReceivedRequest {
  return {
    id: 1,
    keep: false,
    role: 0,
    variables: new Map(),
    stdin: new Uint8Array(),
    stdinEnded: false,
    aborted: false,
  };
}

/** A listener that calls the test's function with each connection and its number. */
export class Application implements AsyncDisposable {
  readonly address: string;
  /** Resolves when the first connection is closed. */
  readonly closed: Promise<void>;
  #close: () => void;
  /** The number of connections accepted so far. */
  connections = 0;
  #listener: Deno.TcpListener;
  #running: Promise<void>[] = [];
  #failures: unknown[] = [];
  #peers: Peer[] = [];
  #accepting: Promise<void>;

  constructor(serve: (peer: Peer, number: number) => Promise<void>) {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.closed = promise;
    this.#close = resolve;
    this.#listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
    this.address = `127.0.0.1:${this.#listener.addr.port}`;
    this.#accepting = this.#accept(serve);
  }

  async #accept(serve: (peer: Peer, number: number) => Promise<void>): Promise<void> {
    for await (const conn of this.#listener) {
      // It writes a response in several parts.
      conn.setNoDelay();
      const peer = new Peer(conn);
      this.#peers.push(peer);
      this.#running.push(
        serve(peer, ++this.connections)
          .catch((error) => void this.#failures.push(error))
          .finally(() => {
            peer.close();
            this.#close();
          }),
      );
    }
  }

  /** Closes all connections. Throws the first error of one. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#listener.close();
    await this.#accepting;
    try {
      await deadline(Promise.all(this.#running), "the application's connections");
    } finally {
      for (const peer of this.#peers) peer.close();
    }
    if (this.#failures.length > 0) throw this.#failures[0];
  }
}
