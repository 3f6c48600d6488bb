import { assert, assertEquals, assertNotEquals } from "@std/assert";
import fc from "fast-check";
import { ByteBuffer } from "../../wire/byte_buffer.ts";
import { concat, pattern, text } from "../testing/bytes.ts";

Deno.test("ByteBuffer keeps the bytes added, whatever its initial capacity", () => {
  const part = fc.oneof(
    fc.uint8Array({ maxLength: 300 }),
    fc.uint8Array({ maxLength: 300 }).map((array) => text(array)),
  );
  fc.assert(fc.property(fc.nat({ max: 64 }), fc.array(part), (capacity, parts) => {
    const buffer = new ByteBuffer(capacity);
    let expected = "";
    for (const part of parts) {
      if (typeof part === "string") buffer.appendByteString(part);
      else buffer.append(part);
      expected += typeof part === "string" ? part : text(part);
      assertEquals(buffer.length, expected.length);
    }
    assertEquals(text(buffer.take()), expected);
    assertEquals(buffer.length, 0);
  }));
});

Deno.test("ByteBuffer.reserve() returns where the reserved bytes begin", () => {
  const buffer = new ByteBuffer(2);
  assertEquals(buffer.reserve(1), 0);
  buffer.bytes[0] = 7;
  assertEquals(buffer.reserve(5), 1);
  buffer.bytes.set([1, 2, 3, 4, 5], 1);
  assertEquals(buffer.take(), new Uint8Array([7, 1, 2, 3, 4, 5]));
});

Deno.test("ByteBuffer does not change taken bytes until they are given back", () => {
  const buffer = new ByteBuffer(8);
  buffer.append(pattern(8));
  const taken = buffer.take();
  buffer.append(new Uint8Array(100).fill(255));
  assertEquals(taken, pattern(8));
  const second = buffer.take();
  assert(second.buffer !== taken.buffer);
  buffer.recycle();
  buffer.append(new Uint8Array([1]));
  assertEquals(second, new Uint8Array(100).fill(255));
  assertNotEquals(buffer.take().buffer, second.buffer);
});

Deno.test("ByteBuffer never mixes the bytes of successive take() calls", () => {
  fc.assert(fc.property(fc.array(fc.tuple(fc.uint8Array(), fc.boolean())), (rounds) => {
    const buffer = new ByteBuffer(1);
    const kept: [Uint8Array, Uint8Array][] = [];
    for (const [content, giveBack] of rounds) {
      buffer.append(content);
      buffer.append(content);
      const taken = buffer.take();
      assertEquals(taken, concat([content, content]));
      if (giveBack) buffer.recycle();
      else kept.push([taken, concat([content, content])]);
    }
    for (const [taken, expected] of kept) assertEquals(taken, expected);
  }));
});
