/** A client that opens a connection for each request, and returns how it failed. */
import { deadline } from "../../tests/testing/deadline.ts";

/** How long a request may take, in milliseconds: longer than nginx waits for an application. */
const LATE = 100_000;

/** A request of {@linkcode send}. */
export interface Sent {
  method: string;
  path: string;
  body?: Uint8Array<ArrayBuffer>;
}

/** A response as far as it came. */
export interface Received {
  /** "cut": it is not whole. */
  kind: "response" | "cut";
  status: number;
  /** The process id of the worker, if the response names it. */
  worker: number | undefined;
  body: Uint8Array;
}

/**
 * What became of a request, if there is no response. "refused": no connection was made. "reset": the connection failed
 * before a byte of a response. "late": the response is not whole after a long time.
 */
export interface Failed {
  kind: "refused" | "reset" | "late";
}

/** What became of a request. */
export type Outcome = Received | Failed;

/** Sends a request to a port on this machine. */
export async function send(port: number, request: Sent): Promise<Outcome> {
  let conn: Deno.Conn;
  try {
    conn = await Deno.connect({ hostname: "127.0.0.1", port });
  } catch {
    return { kind: "refused" };
  }
  try {
    return await deadline(converse(conn, request), "a response", LATE);
  } catch {
    return { kind: "late" };
  } finally {
    conn.close();
  }
}

async function converse(conn: Deno.Conn, { method, path, body }: Sent): Promise<Outcome> {
  const length = body === undefined ? "" : `Content-Length: ${body.length}\r\n`;
  const head =
    `${method} ${path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n${length}\r\n`;
  const write = async () => {
    for (const bytes of [new TextEncoder().encode(head), body ?? new Uint8Array()]) {
      for (let at = 0; at < bytes.length;) at += await conn.write(bytes.subarray(at));
    }
  };
  // nginx may respond before it has all of the body.
  const written = write().catch(() => {});
  const received = await readAll(conn);
  await written;
  return parse(received);
}

/** Reads until the connection ends, in whichever way. */
async function readAll(conn: Deno.Conn): Promise<Uint8Array> {
  const parts: Uint8Array<ArrayBuffer>[] = [];
  try {
    for (;;) {
      const buffer = new Uint8Array(65536);
      const count = await conn.read(buffer);
      if (count === null) break;
      parts.push(buffer.subarray(0, count));
    }
  } catch {
    // What came before counts.
  }
  return new Uint8Array(await new Blob(parts).arrayBuffer());
}

function parse(bytes: Uint8Array): Outcome {
  if (bytes.length === 0) return { kind: "reset" };
  const text = new TextDecoder("latin1").decode(bytes);
  const end = text.indexOf("\r\n\r\n");
  const head = text.slice(0, Math.max(end, 0)).toLowerCase();
  const field = (name: string) => new RegExp(`^${name}: *(.*?)\r?$`, "m").exec(head)?.[1];
  const status = Number(/^http\/1\.1 (\d{3})/.exec(head)?.[1] ?? 0);
  const worker = Number(field("x-worker") ?? 0) || undefined;
  const rest = bytes.subarray(end + 4);
  const length = field("content-length");
  const body = end < 0
    ? undefined
    : length === undefined
    ? unchunk(rest)
    : rest.length === Number(length)
    ? rest
    : undefined;
  return body === undefined
    ? { kind: "cut", status, worker, body: rest }
    : { kind: "response", status, worker, body };
}

/** Returns a body in chunks; undefined if it is not whole. */
function unchunk(bytes: Uint8Array): Uint8Array | undefined {
  const parts: Uint8Array[] = [];
  for (let at = 0;;) {
    const end = bytes.indexOf(10, at);
    if (end < 0) return undefined;
    const size = parseInt(new TextDecoder().decode(bytes.subarray(at, end)), 16);
    if (!(size >= 0) || end + 1 + size + 2 > bytes.length) return undefined;
    parts.push(bytes.subarray(end + 1, end + 1 + size));
    at = end + 1 + size + 2;
    if (size === 0) break;
  }
  const whole = new Uint8Array(parts.reduce((sum, { length }) => sum + length, 0));
  parts.reduce((at, part) => (whole.set(part, at), at + part.length), 0);
  return whole;
}
