/**
 * The least that a gateway to a FastCGI application does on Deno: sends the same bytes for each request over a kept
 * connection, and reads until the response ends. The request is not translated, nothing has a limit, and no connection is
 * ever closed.
 */
import { encodeRequest } from "../../requests.ts";

const [port, target] = Deno.args;
const [hostname, application] = target.split(":");
const { head, tail } = encodeRequest("fastcgi", { path: "/hello" }, true, "");
const bytes = new Uint8Array([...head, ...tail]);
const END_REQUEST = 3;
const idle: { conn: Deno.Conn; buffer: Uint8Array<ArrayBuffer> }[] = [];

await Deno.serve({ hostname: "127.0.0.1", port: Number(port), onListen() {} }, async () => {
  const kept = idle.pop() ?? {
    conn: await Deno.connect({ hostname, port: Number(application) }),
    buffer: new Uint8Array(4096),
  };
  const { conn, buffer } = kept;
  await conn.write(bytes);
  let length = 0;
  let body: Uint8Array<ArrayBuffer> | undefined;
  for (let at = 0;;) {
    length += await conn.read(buffer.subarray(length)) ?? 0;
    let type = 0;
    while (at + 8 <= length) {
      const end = at + 8 + (buffer[at + 4] << 8) + buffer[at + 5] + buffer[at + 6];
      if (end > length) break;
      type = buffer[at + 1];
      body ??= buffer.slice(at + 8, end - buffer[at + 6]);
      at = end;
    }
    if (type === END_REQUEST) break;
  }
  idle.push(kept);
  let start = 0;
  while (body![start] !== 13 || body![start + 2] !== 13) start++;
  return new Response(body!.subarray(start + 4));
}).finished;
