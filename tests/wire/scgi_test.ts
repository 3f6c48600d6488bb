import { assertEquals, assertInstanceOf, assertThrows } from "@std/assert";
import fc from "fast-check";
import { ProtocolError } from "../../wire/protocol_error.ts";
import { encodeSCGIHeaders } from "../../wire/scgi.ts";
import { bytes, concat, cut, split, text } from "../testing/bytes.ts";
import { decodeSCGI as decode } from "../testing/decoded.ts";

type Pairs = [string, string][];

const CASES: Record<string, [string, Pairs]> = {
  "the specification's example": [
    "70:CONTENT_LENGTH\x0027\0SCGI\x001\0REQUEST_METHOD\0POST\0REQUEST_URI\0/deepthought\0,",
    [["CONTENT_LENGTH", "27"], ["SCGI", "1"], ["REQUEST_METHOD", "POST"], [
      "REQUEST_URI",
      "/deepthought",
    ]],
  ],
  "empty values": ["6:A\0\0B\0\0,", [["A", ""], ["B", ""]]],
  "bytes that are not ASCII, commas and colons": ["8:A\0,:\xe9,1\0,", [["A", ",:\xe9,1"]]],
  "a name twice": ["8:A\x001\0A\x002\0,", [["A", "1"], ["A", "2"]]],
};

for (const [name, [raw, pairs]] of Object.entries(CASES)) {
  Deno.test(`SCGI headers: ${name} (rules D1, D2)`, () => {
    assertEquals(text(encodeSCGIHeaders(pairs)), raw);
    assertEquals(decode([bytes(raw)]), { pairs, rest: "" });
    assertEquals(decode(split(bytes(raw))), { pairs, rest: "" });
    assertEquals(decode([bytes(raw + raw)]), { pairs, rest: raw });
    assertEquals(decode(split(bytes(raw + raw))), { pairs, rest: raw });
    for (let at = 1; at < raw.length; at++) {
      assertEquals(decode(cut(bytes(raw + "body"), [at])), { pairs, rest: "body" }, `cut at ${at}`);
      assertEquals(decode([bytes(raw.slice(0, at))]), null, `ends at ${at}`);
    }
  });
}

const SOME = "A\x001\0";
const BAD: Record<string, [string, string, number?]> = {
  "no digits": [
    ":,",
    "netstring as its length must be decimal digits and a colon: current byte is 58",
  ],
  "a sign": [
    "+5:",
    "netstring as its length must be decimal digits and a colon: current byte is 43",
  ],
  "a space": [
    " 5:",
    "netstring as its length must be decimal digits and a colon: current byte is 32",
  ],
  "an HTTP request": [
    "GET /",
    "netstring as its length must be decimal digits and a colon: current byte is 71",
  ],
  "a leading zero": ["04:", "netstring: its length begins with 0"],
  "a length of eight digits": [
    "12345678",
    "netstring: its length has more than 7 digits",
    431,
  ],
  "no comma": [
    `4:${SOME};`,
    "netstring as a comma must follow its data: current byte is 59",
  ],
  "no headers": ["0:,", "headers: there are none"],
  "no final NUL": ["3:A\x001,", "headers: they do not end with NUL"],
  "a name without a value": [
    "2:A\0,",
    "headers as each name must have a value: there are 1 strings",
  ],
  "an empty name": ["3:\x001\0,", "headers: a name is empty"],
};

for (const [name, [raw, message, status = 400]] of Object.entries(BAD)) {
  Deno.test(`SCGIHeaderDecoder rejects ${name} (rules D1, D2)`, () => {
    for (const chunks of [[bytes(raw)], split(bytes(raw))]) {
      const error = assertThrows(() => decode(chunks), ProtocolError);
      assertEquals(error.message, `Cannot decode SCGI ${message}`);
      assertEquals(error.status, status);
    }
  });
}

Deno.test("SCGIHeaderDecoder rejects a length above its limit before the data (rule F8)", () => {
  const pairs: Pairs = [["A", "x".repeat(96)]];
  const raw = encodeSCGIHeaders(pairs);
  assertEquals(decode([raw], 99)?.pairs, pairs);
  const error = assertThrows(() => decode([bytes("99:")], 98), ProtocolError);
  assertEquals(
    error.message,
    "Cannot decode SCGI netstring as its length must be at most 98: current value is 99",
  );
  assertEquals(error.status, 431);
});

const places = fc.array(fc.nat({ max: 1000 }), { maxLength: 30 });

Deno.test("SCGI headers survive a round trip in any chunks", () => {
  const field = (minLength: number) =>
    fc.uint8Array({ minLength, maxLength: 60, min: 1 }).map((array) => text(array));
  const pairs = fc.array(fc.tuple(field(1), field(0)), { minLength: 1, maxLength: 12 });
  fc.assert(fc.property(pairs, fc.uint8Array(), places, (pairs, body, places) => {
    const raw = concat([encodeSCGIHeaders(pairs), body]);
    assertEquals(decode(cut(raw, places)), { pairs, rest: text(body) });
  }));
});

Deno.test("SCGIHeaderDecoder throws only ProtocolError, for any input", () => {
  const anything = fc.uint8Array({ maxLength: 300 });
  const nearly = anything.map((data) => concat([bytes(`${data.length}:`), data, bytes(",")]));
  fc.assert(fc.property(fc.oneof(anything, nearly), places, (raw, places) => {
    try {
      decode(cut(raw, places));
    } catch (error) {
      assertInstanceOf(error, ProtocolError);
    }
  }));
});
