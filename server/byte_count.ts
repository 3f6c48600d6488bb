import { isBodyDecoded } from "../io/private_fields.ts";

/** Counts the bytes that are read from a stream. */
export class ByteCount {
  /** How many bytes were read. */
  bytes = 0;
  /** Whether the reader has left before the end. */
  left = false;

  /** Called at the end of the stream. */
  onend: () => void = () => {};

  /** Returns a stream with the same chunks and the same end. */
  count(stream: ReadableStream<Uint8Array>): ReadableStream<Uint8Array<ArrayBuffer>> {
    const reader = stream.getReader();
    return new ReadableStream<Uint8Array<ArrayBuffer>>({
      pull: async (controller) => {
        const { done, value } = await reader.read();
        if (done) {
          this.onend();
          return controller.close();
        }
        this.bytes += value.length;
        controller.enqueue(value as Uint8Array<ArrayBuffer>);
      },
      cancel: (reason) => {
        this.left = true;
        return reader.cancel(reason);
      },
    }, { highWaterMark: 0 });
  }
}

/** Returns a response for `Deno.serve` with the same stream, whose bytes are counted. */
export function countResponse(response: Response, count: ByteCount): Response {
  const { status, statusText, headers } = response;
  const counted = new Response(count.count(response.body!), { status, statusText, headers });
  // As Deno.serve does it with a response of fetch(), which it would not recognize any more.
  if (isBodyDecoded(response)) {
    counted.headers.delete("content-encoding");
    counted.headers.delete("content-length");
  }
  return counted;
}
