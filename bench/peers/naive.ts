/** A simple responder: buffers bodies, serves one request after the other, and has no limits. */
import { apps } from "./app.ts";

const [port, load] = Deno.args;
const app = apps[load];
const decoder = new TextDecoder();
const encoder = new TextEncoder();

function concat(parts: Uint8Array[]): Uint8Array<ArrayBuffer> {
  const whole = new Uint8Array(parts.reduce((length, part) => length + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

function header(type: number, length: number): Uint8Array {
  return new Uint8Array([1, type, 0, 1, length >> 8, length & 255, 0, 0]);
}

function decodePairs(bytes: Uint8Array): Map<string, string> {
  const pairs = new Map<string, string>();
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  let at = 0;
  const length = () => {
    if (bytes[at] < 128) return bytes[at++];
    at += 4;
    return view.getUint32(at - 4) & 0x7fffffff;
  };
  while (at < bytes.length) {
    const nameLength = length();
    const valueLength = length();
    const name = decoder.decode(bytes.subarray(at, at += nameLength));
    pairs.set(name, decoder.decode(bytes.subarray(at, at += valueLength)));
  }
  return pairs;
}

function createRequest(pairs: Map<string, string>, body: Uint8Array<ArrayBuffer>): Request {
  const headers = new Headers();
  for (const [name, value] of pairs) {
    if (name.startsWith("HTTP_")) headers.set(name.slice(5).replaceAll("_", "-"), value);
  }
  return new Request(`http://${pairs.get("HTTP_HOST")}${pairs.get("REQUEST_URI")}`, {
    method: pairs.get("REQUEST_METHOD"),
    headers,
    body: body.length > 0 ? body : undefined,
  });
}

async function respond(params: Uint8Array[], stdin: Uint8Array[]): Promise<Uint8Array> {
  const response = await app(createRequest(decodePairs(concat(params)), concat(stdin)));
  let text = `Status: ${response.status} OK\r\n`;
  response.headers.forEach((value, name) => text += `${name}: ${value}\r\n`);
  const head = encoder.encode(text + "\r\n");
  const body = await response.bytes();
  return concat([
    header(6, head.length + body.length),
    head,
    body,
    header(6, 0),
    header(3, 8),
    new Uint8Array(8),
  ]);
}

async function serve(connection: Deno.TcpConn): Promise<void> {
  connection.setNoDelay(true);
  const buffer = new Uint8Array(65536);
  let bytes = new Uint8Array();
  let params: Uint8Array[] = [];
  let stdin: Uint8Array[] = [];
  let keep = false;
  try {
    for (let count = await connection.read(buffer); count; count = await connection.read(buffer)) {
      const read = buffer.subarray(0, count);
      bytes = bytes.length > 0 ? concat([bytes, read]) : read;
      let at = 0;
      while (bytes.length - at >= 8) {
        const length = bytes[at + 4] << 8 | bytes[at + 5];
        const next = at + 8 + length + bytes[at + 6];
        if (next > bytes.length) break;
        const type = bytes[at + 1];
        const content = bytes.slice(at + 8, at + 8 + length);
        at = next;
        if (type === 1) keep = (content[2] & 1) === 1;
        else if (type === 4) params.push(content);
        else if (type === 5 && length > 0) stdin.push(content);
        else if (type === 5) {
          const output = await respond(params, stdin);
          for (let sent = 0; sent < output.length;) {
            sent += await connection.write(output.subarray(sent));
          }
          params = [];
          stdin = [];
          if (!keep) return connection.close();
        }
      }
      bytes = bytes.slice(at);
    }
  } catch {
    // The load has ended.
  }
  connection.close();
}

for await (const connection of Deno.listen({ hostname: "127.0.0.1", port: Number(port) })) {
  serve(connection);
}
