import { assert, assertEquals, assertRejects } from "@std/assert";
import fc from "fast-check";
import { ReadBuffer } from "../../io/read_buffer.ts";
import { BodyWatch } from "../../server/body_watch.ts";
import { resolveLimits } from "../../server/limits.ts";
import { RequestBody } from "../../server/request_body.ts";
import { ProtocolError } from "../../wire/protocol_error.ts";
import { concat } from "../testing/bytes.ts";
import { deadline } from "../testing/deadline.ts";

const source = { pull: () => {} };

/** Pushes bytes that are all of a read. @returns Whether the body took their buffer. */
function pushTo(body: RequestBody, bytes: Uint8Array<ArrayBuffer>): boolean {
  const read = new ReadBuffer(bytes);
  body.push(bytes, read);
  return read.taken;
}

/** Fills buffers as a connection does: other bytes separate the parts of the body. */
function fill(sizes: number[], bufferSize: number, body: RequestBody): Uint8Array {
  const sent: Uint8Array[] = [];
  let read = new ReadBuffer(new Uint8Array(bufferSize));
  let at = 0;
  let value = 0;
  for (const size of sizes) {
    if (at + size + 8 > bufferSize) {
      // The next read overwrites what is not taken.
      if (read.taken) read = new ReadBuffer(new Uint8Array(bufferSize));
      else read.bytes.fill(255);
      at = 0;
    }
    const part = read.bytes.subarray(at + 8, at + 8 + size).fill(value++ % 251);
    sent.push(part.slice());
    body.push(part, read);
    at += size + 8;
  }
  if (!read.taken) read.bytes.fill(255);
  body.end();
  return concat(sent);
}

const sizes = fc.array(fc.integer({ min: 1, max: 65_000 }), { maxLength: 12 });

Deno.test("RequestBody returns the bytes that were pushed, taken or copied, in chunks that share no buffer", async () => {
  await fc.assert(
    fc.asyncProperty(sizes, async (sizes) => {
      const body = new RequestBody(source);
      const expected = fill(sizes, 65_536, body);
      const chunks: Uint8Array[] = [];
      for await (const chunk of body.stream) chunks.push(chunk);
      assertEquals(concat(chunks), expected);
      assertEquals(new Set(chunks.map(({ buffer }) => buffer)).size, chunks.length);
    }),
    { numRuns: 50 },
  );
});

Deno.test("RequestBody.collect() returns the whole body in a buffer of the same size", async () => {
  await fc.assert(
    fc.asyncProperty(sizes, async (sizes) => {
      const body = new RequestBody(source);
      const expected = fill(sizes, 65_536, body);
      const whole = await body.collect()!;
      assertEquals(whole, expected);
      assertEquals(whole.buffer.byteLength, whole.length);
    }),
    { numRuns: 50 },
  );
});

Deno.test("RequestBody.collect() waits for the rest of the body, and does not pause reading", async () => {
  const body = new RequestBody(source);
  const whole = body.collect()!;
  for (let i = 0; i < 3; i++) {
    pushTo(body, new Uint8Array(20_000).fill(i));
    await Promise.resolve();
    await Promise.resolve();
    assertEquals(body.buffered, 0);
  }
  body.end();
  assertEquals((await whole).length, 60_000);
});

Deno.test("RequestBody.collect() returns undefined if the stream was created", () => {
  const body = new RequestBody(source);
  assert(body.stream);
  assertEquals(body.collect(), null);
});

Deno.test("RequestBody copies bytes whose buffer another body has taken", async () => {
  const [first, second] = [new RequestBody(source), new RequestBody(source)];
  const read = new ReadBuffer(new Uint8Array(40_000).fill(1));
  first.push(read.bytes.subarray(0, 20_000), read);
  assertEquals(read.taken, true);
  second.push(read.bytes.subarray(20_000), read);
  read.bytes.fill(255);
  second.end();
  assertEquals(await second.collect(), new Uint8Array(20_000).fill(1));
});

/** Reads into buffers of these lengths in turn, over and over, and returns the sizes of the chunks. */
async function readInto(
  stream: ReadableStream<Uint8Array<ArrayBuffer>>,
  lengths: number[],
): Promise<Uint8Array[]> {
  const reader = stream.getReader({ mode: "byob" });
  const parts: Uint8Array[] = [];
  for (let turn = 0;; turn++) {
    const length = lengths[turn % lengths.length];
    const { done, value } = await reader.read(
      new Uint8Array(new ArrayBuffer(length + 2), 1, length),
    );
    if (done) return parts;
    assertEquals([value.byteOffset, value.buffer.byteLength], [1, length + 2]);
    parts.push(value.slice());
  }
}

Deno.test("RequestBody fills the app's buffers with buffered bytes and with new ones", async () => {
  const lengths = fc.array(fc.integer({ min: 1, max: 70_000 }), { minLength: 1, maxLength: 4 });
  await fc.assert(
    fc.asyncProperty(sizes, sizes, lengths, async (buffered, coming, lengths) => {
      const body = new RequestBody(source);
      const expected: Uint8Array[] = [];
      const push = (size: number) => {
        const part = new Uint8Array(size).fill(expected.length + 1);
        expected.push(part.slice());
        // What is not taken is overwritten.
        if (!pushTo(body, part)) part.fill(255);
      };
      buffered.forEach(push);
      const reading = readInto(body.stream, lengths);
      for (const size of coming) {
        push(size);
        for (let turn = 0; turn < size % 9; turn++) await null;
      }
      body.end();
      assertEquals(concat(await reading), concat(expected));
      assertEquals(body.buffered, 0);
    }),
    { numRuns: 100 },
  );
});

Deno.test("RequestBody buffers nothing for an app that waits with its own buffer", async () => {
  const body = new RequestBody(source);
  const reader = body.stream.getReader({ mode: "byob" });
  const reading = reader.read(new Uint8Array(60_000));
  await null;
  assertEquals(pushTo(body, new Uint8Array(20_000).fill(1)), false);
  assertEquals(pushTo(body, new Uint8Array(30_000).fill(2)), false);
  assertEquals(body.buffered, 0);
  const { value } = await reading;
  assertEquals(value, concat([new Uint8Array(20_000).fill(1), new Uint8Array(30_000).fill(2)]));
});

Deno.test("RequestBody fills a waiting buffer before it fails", async () => {
  const body = new RequestBody(source);
  const reader = body.stream.getReader({ mode: "byob" });
  const reading = reader.read(new Uint8Array(10));
  await null;
  pushTo(body, new Uint8Array([1, 2, 3]));
  body.fail(new Error("disconnected"));
  assertEquals((await reading).value, new Uint8Array([1, 2, 3]));
  await assertRejects(() => reader.read(new Uint8Array(10)), Error, "disconnected");
});

/** Returns a body whose reader released its lock while it waited with a buffer of 4 bytes. */
async function createGivenUp(): Promise<RequestBody> {
  const body = new RequestBody(source);
  const reader = body.stream.getReader({ mode: "byob" });
  const givenUp = assertRejects(() => reader.read(new Uint8Array(4)), TypeError);
  await null;
  reader.releaseLock();
  await givenUp;
  return body;
}

for (const size of [2, 4, 6]) {
  for (const mode of ["byob", undefined] as const) {
    Deno.test(`RequestBody can be read by another reader, ${mode ?? "default"}, if ${size} bytes arrive for a buffer of 4`, async () => {
      const body = await createGivenUp();
      const sent = new Uint8Array([1, 2, 3, 4, 5, 6]).subarray(0, size);
      const reading = mode === "byob" ? readInto(body.stream, [3]) : Array.fromAsync(body.stream);
      await null;
      pushTo(body, sent.slice());
      await null;
      body.end();
      assertEquals(concat(await deadline(reading, "the bytes")), sent);
    });
  }
}

Deno.test("RequestBody returns bytes to another reader before more arrive", async () => {
  const body = await createGivenUp();
  const second = body.stream.getReader();
  const reading = second.read();
  pushTo(body, new Uint8Array([1, 2]));
  const parts = [await deadline(reading, "the first bytes"), await deadline(second.read(), "more")];
  assertEquals(concat(parts.map(({ value }) => value!)), new Uint8Array([1, 2]));
});

Deno.test("RequestBody returns chunks in buffers that have nothing else", async () => {
  const body = new RequestBody(source);
  const read = new ReadBuffer(new Uint8Array(65_536).fill(7));
  body.push(read.bytes.subarray(100, 20_100), read);
  assertEquals(read.taken, true);
  body.end();
  const { value } = await body.stream.getReader().read();
  assertEquals(value, new Uint8Array(20_000).fill(7));
  const rest = new Uint8Array(value!.buffer).filter((_, at) => at < 100 || at >= 20_100);
  assertEquals(rest.some((byte) => byte !== 0), false);
});

Deno.test("RequestBody drops bytes for a buffer whose reader has cancelled", async () => {
  const body = new RequestBody(source);
  const reader = body.stream.getReader({ mode: "byob" });
  const reading = reader.read(new Uint8Array(4));
  await null;
  await reader.cancel();
  assertEquals((await reading).done, true);
  assertEquals(pushTo(body, new Uint8Array(20_000)), false);
  assertEquals([body.receiving, body.buffered], [false, 0]);
});

Deno.test("RequestBody does not end as if whole if it was discarded before its stream has ended", async () => {
  const body = new RequestBody(source);
  pushTo(body, new Uint8Array(4));
  body.discard();
  pushTo(body, new Uint8Array(4));
  body.end();
  await assertRejects(() => body.stream.getReader().read(), Error, "it was discarded");
});

Deno.test("RequestBody that is complete can be read after the response", async () => {
  const body = new RequestBody(source);
  body.declare(4);
  pushTo(body, new Uint8Array(4).fill(1));
  body.discard();
  body.end();
  assertEquals(await body.collect(), new Uint8Array(4).fill(1));
});

Deno.test("BodyWatch fails a body that arrives below the minimum rate while the app reads it", async () => {
  const body = new RequestBody({ pull() {} });
  const read = body.collect()!;
  const watch = new BodyWatch(resolveLimits({ bodyTimeout: Infinity, minBodyRate: 500 }));
  let at = 0;
  for (; at < 62_000 && body.receiving; at += 500) {
    pushTo(body, new Uint8Array(1));
    // The app reads on.
    await null;
    await null;
    watch.check(body, 1 + at);
  }
  assertEquals(at, 60_500);
  const error = await assertRejects(() => read, ProtocolError, "fewer than 500 bytes per second");
  assertEquals(error.status, 408);
});

Deno.test("a body in 300,000 parts of one byte is read whole, in few chunks", async () => {
  for (const read of ["collect", "stream"] as const) {
    const body = new RequestBody({ pull() {} });
    const collected = read === "collect" ? body.collect()! : null;
    for (let i = 0; i < 300_000; i++) pushTo(body, new Uint8Array([i & 255]));
    body.end();
    let chunks = 0;
    const parts: Uint8Array[] = [];
    if (collected !== null) parts.push(await collected);
    else for await (const chunk of body.stream) chunks++, parts.push(chunk);
    const whole = concat(parts);
    assertEquals(whole.length, 300_000);
    assert(whole.every((byte, i) => byte === (i & 255)));
    assert(chunks < 20, `${chunks} chunks`);
  }
});
