/**
 * The upper limit for `for await` over a body: each request is a byte stream of what a Deno.Conn reads, in buffers that
 * belong to whoever reads them. Nothing is decoded.
 */
const [port] = Deno.args;
const SIZE = 65_536;
const BODY = 1_048_576;
const text = `content-type: text/plain;charset=UTF-8\r\n\r\n${BODY}`;
const RESPONSE = new Uint8Array([
  ...[1, 6, 0, 1, 0, text.length, 0, 0, ...new TextEncoder().encode(text)],
  ...[1, 6, 0, 1, 0, 0, 0, 0],
  ...[1, 3, 0, 1, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
]);
/** The place of the flags in a request. */
const KEEP_CONNECTION = 10;
/** The type of FCGI_STDIN. An empty record of it ends a request. */
const STDIN = 5;
const HEADER = 8;

/** Finds the ends of requests, which two reads may share. */
class End {
  #last = new Uint8Array(HEADER);

  /** Returns whether a request ends with this chunk. */
  isIn(chunk: Uint8Array): boolean {
    const count = Math.min(chunk.length, HEADER);
    this.#last.copyWithin(0, count);
    this.#last.set(chunk.subarray(-count), HEADER - count);
    const [version, type, , , high, low] = this.#last;
    return version === 1 && type === STDIN && high === 0 && low === 0;
  }
}

function requestOf(connection: Deno.Conn, end: End): ReadableStream<Uint8Array> {
  return new ReadableStream({
    type: "bytes",
    async pull(controller) {
      const buffer = new Uint8Array(SIZE);
      const count = await connection.read(buffer);
      if (count === null) return controller.error(new Error("The load has ended"));
      const chunk = buffer.subarray(0, count);
      const isLast = end.isIn(chunk);
      controller.enqueue(chunk);
      if (isLast) controller.close();
    },
  });
}

async function serve(connection: Deno.TcpConn): Promise<void> {
  connection.setNoDelay(true);
  const end = new End();
  try {
    while (true) {
      let keeps: boolean | undefined;
      for await (const chunk of requestOf(connection, end)) keeps ??= chunk[KEEP_CONNECTION] === 1;
      await connection.write(RESPONSE);
      if (!keeps) break;
    }
  } catch {
    // The load has ended.
  }
  connection.close();
}

for await (const connection of Deno.listen({ hostname: "127.0.0.1", port: Number(port) })) {
  serve(connection);
}
