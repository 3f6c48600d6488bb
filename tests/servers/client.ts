/** An HTTP/1.1 client that shows what is on the wire, and may stop or disconnect at any point. */
import { assert, AssertionError } from "@std/assert";
import { connect as connectHTTP2 } from "node:http2";
import { concat } from "../testing/bytes.ts";
import { LateError, within } from "./harness.ts";

const encoder = new TextEncoder();

/** A response's status line and fields. */
export class Head {
  readonly status: number;
  readonly fields: [name: string, value: string][];

  constructor(text: string) {
    const [statusLine, ...lines] = text.split("\r\n");
    const match = /^HTTP\/1\.[01] (\d{3})/.exec(statusLine);
    assert(
      match,
      `a response must begin with a status line: ${JSON.stringify(statusLine.slice(0, 200))}`,
    );
    this.status = Number(match[1]);
    this.fields = lines.map((line) => {
      const colon = line.indexOf(":");
      return [line.slice(0, colon).toLowerCase(), line.slice(colon + 1).trim()];
    });
  }

  all(name: string): string[] {
    return this.fields.filter((field) => field[0] === name).map(([_, value]) => value);
  }

  get(name: string): string | undefined {
    return this.all(name)[0];
  }
}

/** A response with its whole body. */
export class HTTPResponse {
  readonly head: Head;
  readonly body: Uint8Array;

  constructor(head: Head, body: Uint8Array) {
    this.head = head;
    this.body = body;
  }

  get status(): number {
    return this.head.status;
  }

  get text(): string {
    return new TextDecoder().decode(this.body);
  }
}

/** A connection to a web server. */
export class Client implements Disposable {
  #conn: Deno.Conn;
  #host: string;
  #buffered: Uint8Array<ArrayBuffer> = new Uint8Array();

  private constructor(conn: Deno.Conn, host: string) {
    this.#conn = conn;
    this.#host = host;
  }

  /**
   * @param host A host and port, or `unix:` and a path.
   * @param name The Host that it sends.
   */
  static async connect(host: string, name = host): Promise<Client> {
    const [hostname, port] = host.split(":");
    if (hostname === "unix") {
      return new Client(await Deno.connect({ transport: "unix", path: port }), name);
    }
    return new Client(await Deno.connect({ hostname, port: Number(port) }), name);
  }

  /** Sends the request line and headers. */
  async sendHead(method: string, path: string, fields: string[][] = []): Promise<void> {
    const lines = [`${method} ${path} HTTP/1.1`, `Host: ${this.#host}`];
    await this.send([...lines, ...fields.map((field) => field.join(": ")), "", ""].join("\r\n"));
  }

  async send(data: string | Uint8Array): Promise<void> {
    const bytes = typeof data === "string" ? encoder.encode(data) : data;
    for (let at = 0; at < bytes.length;) at += await this.#conn.write(bytes.subarray(at));
  }

  /** Sends one chunk of a chunked body; an empty one ends the body. */
  async sendChunk(chunk: Uint8Array): Promise<void> {
    await this.send(chunk.length.toString(16) + "\r\n");
    await this.send(chunk);
    await this.send("\r\n");
  }

  async readHead(): Promise<Head> {
    const head = new Head(await this.#readTo("\r\n\r\n", "the response head"));
    return head.status === 100 ? await this.readHead() : head;
  }

  /** Yields the parts of the body as they arrive. */
  async *readParts(head: Head, method = "GET"): AsyncGenerator<Uint8Array> {
    if (method === "HEAD" || head.status === 204 || head.status === 304) return;
    const length = head.get("content-length");
    if (head.get("transfer-encoding")?.toLowerCase() === "chunked") {
      for (let size; (size = parseInt(await this.#readLine(), 16)) > 0;) {
        yield* this.#readExactly(size);
        await this.#readLine();
      }
      while (await this.#readLine() !== "");
    } else if (length !== undefined) {
      yield* this.#readExactly(Number(length));
    } else {
      for (let part; (part = await this.#take(65536));) yield part;
    }
  }

  /** Reads a body that may be cut, from its next part on, and whether the client sees this. */
  async readCut(
    head: Head,
    rest: AsyncIterable<Uint8Array> = this.readParts(head),
  ): Promise<{ bytes: Uint8Array; outcome: "whole" | "error" }> {
    const parts: Uint8Array[] = [];
    let outcome: "whole" | "error" = "whole";
    try {
      for await (const part of rest) parts.push(part);
    } catch (error) {
      if (error instanceof LateError) throw error;
      outcome = "error";
    }
    return {
      bytes: new Uint8Array(await new Blob(parts as BlobPart[]).arrayBuffer()),
      outcome,
    };
  }

  async readResponse(method = "GET"): Promise<HTTPResponse> {
    const head = await this.readHead();
    const parts = await Array.fromAsync(this.readParts(head, method));
    return new HTTPResponse(
      head,
      new Uint8Array(await new Blob(parts as BlobPart[]).arrayBuffer()),
    );
  }

  /** Asserts that the connection ends without more bytes. */
  async expectEnd(): Promise<void> {
    const rest = await this.#take(65536);
    assert(rest === null, `the connection must end: received ${rest?.length} bytes`);
  }

  async *#readExactly(length: number): AsyncGenerator<Uint8Array> {
    while (length > 0) {
      const part = await this.#take(length);
      assert(part, `the body must be complete: ${length} bytes are missing`);
      length -= part.length;
      yield part;
    }
  }

  #readLine(): Promise<string> {
    return this.#readTo("\r\n", "a chunk");
  }

  /** Reads to an end, and returns what is before it. */
  async #readTo(end: string, what: string): Promise<string> {
    let text = "";
    for (let scanned = 0;; scanned++) {
      if (scanned === this.#buffered.length && !await this.#read()) {
        throw new AssertionError(
          `${what} must be complete: the connection ended after ${JSON.stringify(text)}`,
        );
      }
      text += String.fromCharCode(this.#buffered[scanned]);
      if (!text.endsWith(end)) continue;
      this.#buffered = this.#buffered.subarray(scanned + 1);
      return text.slice(0, -end.length);
    }
  }

  /** Reads more into the buffer. @returns Whether there was more. */
  async #read(): Promise<boolean> {
    const buffer = new Uint8Array(65536);
    const count = await within("a read from the server", this.#conn.read(buffer));
    if (count !== null) this.#buffered = concat([this.#buffered, buffer.subarray(0, count)]);
    return count !== null;
  }

  /** Reads up to `max` bytes; returns null at the end of the connection. */
  async #take(max: number): Promise<Uint8Array | null> {
    if (this.#buffered.length === 0 && !await this.#read()) return null;
    const part = this.#buffered.slice(0, max);
    this.#buffered = this.#buffered.subarray(part.length);
    return part;
  }

  [Symbol.dispose](): void {
    try {
      this.#conn.close();
    } catch {
      // The server closed it first.
    }
  }
}

/** Sends a request over a new connection and returns the response, which it reads while it sends the body. */
export async function request(
  host: string,
  method: string,
  path: string,
  options: { fields?: string[][]; body?: Uint8Array; name?: string } = {},
): Promise<HTTPResponse> {
  const { fields = [], body, name } = options;
  using client = await Client.connect(host, name);
  const length = body ? [["Content-Length", String(body.length)]] : [];
  await client.sendHead(method, path, [...fields, ...length, ["Connection", "close"]]);
  // A server that has responded may stop reading the body or close the connection.
  if (body) client.send(body).catch(() => {});
  return await client.readResponse(method);
}

/** Sends a GET request over HTTP/2 without TLS, and returns the body of the response. */
export async function requestHTTP2(host: string, path: string, authority: string): Promise<string> {
  const session = connectHTTP2(`http://${host}`);
  const { promise, resolve, reject } = Promise.withResolvers<string>();
  session.on("error", reject);
  const stream = session.request({ ":path": path, ":authority": authority });
  let text = "";
  stream.setEncoding("utf8");
  stream.on("data", (part: string) => text += part);
  stream.on("end", () => resolve(text));
  stream.on("error", reject);
  try {
    return await within("the response over HTTP/2", promise);
  } finally {
    session.destroy();
  }
}

/** A connection that the app opens to the test: the app reports its progress on it, and the test sees when it ends. */
export class Witness implements Disposable {
  #listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  #lines: AsyncIterator<string> | undefined;
  #conn: Deno.Conn | undefined;

  /** The port that the app connects to. */
  get port(): number {
    return this.#listener.addr.port;
  }

  /** Returns the app's next line, or undefined when the connection has ended. */
  async next(label: string): Promise<string | undefined> {
    return await within(label, this.#next());
  }

  async #next(): Promise<string | undefined> {
    if (this.#lines === undefined) {
      this.#conn = await this.#listener.accept();
      this.#lines = readLines(this.#conn);
    }
    const { done, value } = await this.#lines.next();
    return done ? undefined : value;
  }

  async write(line: string): Promise<void> {
    await this.#conn!.write(encoder.encode(line + "\n"));
  }

  [Symbol.dispose](): void {
    this.#listener.close();
    try {
      this.#conn?.close();
    } catch {
      // The app closed it first.
    }
  }
}

async function* readLines(conn: Deno.Conn): AsyncGenerator<string> {
  const buffer = new Uint8Array(1024);
  let text = "";
  for (let count; (count = await conn.read(buffer).catch(() => null)) !== null;) {
    text += new TextDecoder().decode(buffer.subarray(0, count));
    const lines = text.split("\n");
    text = lines.pop()!;
    yield* lines;
  }
}

/** Sends the head of a request a byte at a time, and without an end, until the server closes. Returns what it sent. */
export async function sendSlowHead(host: string): Promise<string> {
  const [hostname, port] = host.split(":");
  using connection = await Deno.connect({ hostname, port: Number(port) });
  await connection.write(new TextEncoder().encode(`GET / HTTP/1.1\r\nHost: ${host}\r\nX: `));
  const timer = setInterval(() => connection.write(new Uint8Array([0x61])).catch(() => {}), 50);
  try {
    return await new Response(connection.readable).text().catch(() => "");
  } finally {
    clearInterval(timer);
  }
}
