import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import { RequestBody } from "../../bridge/request_body.ts";
import { concat } from "../testing/bytes.ts";

const source = { wanted: () => {} };

/** Fills buffers as a connection does, with parts of the body that have others between them. */
function fill(sizes: number[], bufferSize: number, body: RequestBody): Uint8Array {
  const sent: Uint8Array[] = [];
  let buffer = new Uint8Array(bufferSize);
  let kept = false;
  let at = 0;
  let value = 0;
  for (const size of sizes) {
    if (at + size + 8 > bufferSize) {
      // What is not kept is written over by the next read.
      if (kept) buffer = new Uint8Array(bufferSize);
      else buffer.fill(255);
      kept = false;
      at = 0;
    }
    const part = buffer.subarray(at + 8, at + 8 + size).fill(value++ % 251);
    sent.push(part.slice());
    kept = body.push(part, true) || kept;
    at += size + 8;
  }
  if (!kept) buffer.fill(255);
  body.end();
  return concat(sent);
}

const sizes = fc.array(fc.integer({ min: 1, max: 65_000 }), { maxLength: 12 });

Deno.test("RequestBody gives what was pushed, kept or copied, in chunks that share no buffer", async () => {
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

Deno.test("RequestBody.collect() gives all of it, in a buffer of its own size", async () => {
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

Deno.test("RequestBody.collect() waits for what is still to come, and holds nothing back", async () => {
  const body = new RequestBody(source);
  const whole = body.collect()!;
  for (let i = 0; i < 3; i++) {
    body.push(new Uint8Array(20_000).fill(i), true);
    await Promise.resolve();
    await Promise.resolve();
    assertEquals(body.buffered, 0);
  }
  body.end();
  assertEquals((await whole).length, 60_000);
});

Deno.test("RequestBody.collect() leaves a stream that was asked for alone", () => {
  const body = new RequestBody(source);
  assert(body.stream);
  assertEquals(body.collect(), null);
});

Deno.test("RequestBody copies what it may not keep", async () => {
  const body = new RequestBody(source);
  const part = new Uint8Array(20_000).fill(1);
  assertEquals(body.push(part, false), false);
  part.fill(255);
  body.end();
  assertEquals(await body.collect(), new Uint8Array(20_000).fill(1));
});
