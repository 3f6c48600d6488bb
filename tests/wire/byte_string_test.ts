import { assertEquals, assertStrictEquals } from "@std/assert";
import fc from "fast-check";
import {
  decodeByteString,
  decodeDebugFormat,
  encodeByteString,
  toByteString,
  toText,
} from "../../wire/byte_string.ts";
import { pattern } from "../testing/bytes.ts";

Deno.test("a byte string has one character for each byte, 0x80 to 0x9f too", () => {
  const all = Uint8Array.from({ length: 256 }, (_, i) => i);
  const text = decodeByteString(all);
  assertEquals([...text].map((char) => char.charCodeAt(0)), [...all]);
  assertEquals(encodeByteString(text), all);
  for (const length of [0, 8191, 8192, 8193, 200000]) {
    const bytes = pattern(length);
    assertEquals(encodeByteString(decodeByteString(bytes)), bytes);
  }
});

Deno.test("toByteString() and toText() are UTF-8", () => {
  const cases: [text: string, byteString: string][] = [
    ["", ""],
    ["plain", "plain"],
    ["café", "caf\xc3\xa9"],
    ["€ 𝄞", "\xe2\x82\xac \xf0\x9d\x84\x9e"],
    ["\ufeffmark", "\xef\xbb\xbfmark"],
  ];
  for (const [text, byteString] of cases) {
    assertStrictEquals(toByteString(text), byteString);
    assertStrictEquals(toText(byteString), text);
  }
});

Deno.test("toText() returns bytes that are not UTF-8 unchanged (rule A18)", () => {
  for (const byteString of ["/caf\xe9", "\xff", "\xc3", "\xed\xa0\x80", "\x80\x9f"]) {
    assertStrictEquals(toText(byteString), byteString);
  }
});

Deno.test("decodeDebugFormat() reads Rust's Debug escapes (rule A18)", () => {
  const formats: [text: string, byteString: string][] = [
    ["", ""],
    ["caf\\xE9", "caf\xe9"],
    [`a\\\\\\"\\'b'`, `a\\"'b'`],
    ["\\0\\t\\n\\r", "\0\t\n\r"],
    ["\\u{1}\\u{7f}\\u{301}", "\x01\x7f\xcc\x81"],
    ["\u20ac\ud83d\ude00\\xFF", "\xe2\x82\xac\xf0\x9f\x98\x80\xff"],
    ["\\\\xE9", "\\xE9"],
  ];
  for (const [text, byteString] of formats) assertStrictEquals(decodeDebugFormat(text), byteString);
});

Deno.test("byte strings and texts survive a round trip", () => {
  fc.assert(fc.property(fc.uint8Array({ maxLength: 20000 }), (bytes) => {
    assertEquals(encodeByteString(decodeByteString(bytes)), bytes);
  }));
  fc.assert(
    fc.property(fc.string({ unit: "binary" }).filter((text) => text.isWellFormed()), (text) => {
      assertStrictEquals(toText(toByteString(text)), text);
    }),
  );
});
