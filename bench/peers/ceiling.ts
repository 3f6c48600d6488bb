/** The upper limit: responds to each read of a Deno.Conn as if it were one FastCGI request. */
import { reportMemory } from "./app.ts";

const [port] = Deno.args;
const text = "content-type: text/plain;charset=UTF-8\r\n\r\nHello, world";
const RESPONSE = new Uint8Array([
  ...[1, 6, 0, 1, 0, text.length, 0, 0, ...new TextEncoder().encode(text)],
  ...[1, 6, 0, 1, 0, 0, 0, 0],
  ...[1, 3, 0, 1, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
]);
const KEEP_CONNECTION = 10;

async function serve(connection: Deno.TcpConn): Promise<void> {
  connection.setNoDelay(true);
  const buffer = new Uint8Array(4096);
  try {
    while (await connection.read(buffer) !== null) {
      await connection.write(RESPONSE);
      if (buffer[KEEP_CONNECTION] === 0) break;
    }
  } catch {
    // The load has ended.
  }
  connection.close();
}

reportMemory();
for await (const connection of Deno.listen({ hostname: "127.0.0.1", port: Number(port) })) {
  serve(connection);
}
