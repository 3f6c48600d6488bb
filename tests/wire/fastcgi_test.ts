import { assert, assertEquals, assertFalse, assertInstanceOf, assertThrows } from "@std/assert";
import fc from "fast-check";
import { ByteBuffer } from "../../wire/byte_buffer.ts";
import {
  decodeBeginRequest,
  decodeEndRequest,
  decodePairs,
  encodeAbortRequest,
  encodeBeginRequest,
  encodeEndRequest,
  encodePair,
  encodeStream,
  encodeStreamEnd,
  encodeStreamText,
  encodeUnknownType,
  encodeValues,
  isHTTP,
  KEEP_CONNECTION,
  ProtocolStatus,
  RecordDecoder,
  RecordType,
  Role,
} from "../../wire/fastcgi.ts";
import { ProtocolError } from "../../wire/protocol_error.ts";
import { bytes, concat, cut, pattern, split, text } from "../testing/bytes.ts";
import { record } from "../testing/fastcgi_records.ts";
import { type Decoded, decodeRecords as decode, joinPieces as join } from "../testing/decoded.ts";

function encoded(encode: (out: ByteBuffer) => void): Uint8Array {
  const out = new ByteBuffer(1);
  encode(out);
  return out.take();
}

/** Bytes from the specification, with what they mean and how to encode it. */
const RECORDS: Record<string, [string, Decoded[], (out: ByteBuffer) => void]> = {
  "begin request": [
    "\x01\x01\x00\x01\x00\x08\x00\x00\x00\x01\x01\x00\x00\x00\x00\x00",
    [[1, 1, "\x00\x01\x01\x00\x00\x00\x00\x00"]],
    (out) => encodeBeginRequest(out, 1, Role.responder, KEEP_CONNECTION),
  ],
  "begin request with a 16-bit id and role": [
    "\x01\x01\xff\xfe\x00\x08\x00\x00\x01\x03\x00\x00\x00\x00\x00\x00",
    [[1, 0xfffe, "\x01\x03\x00\x00\x00\x00\x00\x00"]],
    (out) => encodeBeginRequest(out, 0xfffe, 0x103, 0),
  ],
  "abort request": [
    "\x01\x02\x01\x02\x00\x00\x00\x00",
    [[2, 0x102, ""]],
    (out) => encodeAbortRequest(out, 0x102),
  ],
  "end request": [
    "\x01\x03\x00\x01\x00\x08\x00\x00\x89\xab\xcd\xef\x02\x00\x00\x00",
    [[3, 1, "\x89\xab\xcd\xef\x02\x00\x00\x00"]],
    (out) => encodeEndRequest(out, 1, 0x89abcdef, ProtocolStatus.overloaded),
  ],
  "a stream's content and end": [
    "\x01\x05\x00\x01\x00\x05\x03\x00Hello\0\0\0\x01\x05\x00\x01\x00\x00\x00\x00",
    [[5, 1, "Hello"], [5, 1, ""]],
    (out) => {
      encodeStream(out, RecordType.stdin, 1, bytes("Hello"));
      encodeStreamEnd(out, RecordType.stdin, 1);
    },
  ],
  "a stream's text, byte for byte": [
    "\x01\x07\x00\x09\x00\x05\x03\x00caf\xe9\n\0\0\0",
    [[7, 9, "caf\xe9\n"]],
    (out) => encodeStreamText(out, RecordType.stderr, 9, "caf\xe9\n"),
  ],
  "two streams in turns": [
    "\x01\x06\x00\x01\x00\x01\x07\x00a\0\0\0\0\0\0\0\x01\x06\x00\x02\x00\x01\x07\x00b\0\0\0\0\0\0\0" +
    "\x01\x06\x00\x01\x00\x01\x07\x00c\0\0\0\0\0\0\0",
    [[6, 1, "a"], [6, 2, "b"], [6, 1, "c"]],
    (out) => {
      encodeStream(out, RecordType.stdout, 1, bytes("a"));
      encodeStream(out, RecordType.stdout, 2, bytes("b"));
      encodeStream(out, RecordType.stdout, 1, bytes("c"));
    },
  ],
  "get values": [
    "\x01\x09\x00\x00\x00\x10\x00\x00\x0e\x00FCGI_MAX_CONNS",
    [[9, 0, "\x0e\x00FCGI_MAX_CONNS"]],
    (out) => encodeValues(out, RecordType.getValues, [["FCGI_MAX_CONNS", ""]]),
  ],
  "get values result": [
    "\x01\x0a\x00\x00\x00\x13\x05\x00\x0f\x02FCGI_MPXS_CONNS10\0\0\0\0\0",
    [[10, 0, "\x0f\x02FCGI_MPXS_CONNS10"]],
    (out) => encodeValues(out, RecordType.getValuesResult, [["FCGI_MPXS_CONNS", "10"]]),
  ],
  "unknown type": [
    "\x01\x0b\x00\x00\x00\x08\x00\x00\x63\x00\x00\x00\x00\x00\x00\x00",
    [[11, 0, "\x63\x00\x00\x00\x00\x00\x00\x00"]],
    (out) => encodeUnknownType(out, 0x63),
  ],
  "nothing for no content": ["", [], (out) => {
    encodeStream(out, RecordType.stdout, 1, new Uint8Array());
    encodeStreamText(out, RecordType.stdout, 1, "");
  }],
};

for (const [name, [raw, records, encode]] of Object.entries(RECORDS)) {
  Deno.test(`FastCGI records: ${name} (rules C1, C2)`, () => {
    assertEquals(text(encoded(encode)), raw);
    assertEquals(decode([bytes(raw)]), records);
    assertEquals(decode(split(bytes(raw))), records);
    assertEquals(decode([bytes(raw + raw)]), join([...records, ...records]));
    assertEquals(decode(split(bytes(raw + raw))), join([...records, ...records]));
    for (let at = 1; at < raw.length; at++) {
      assertEquals(decode(cut(bytes(raw), [at])), records, `cut at ${at}`);
    }
  });
}

Deno.test("RecordDecoder skips padding, with and without content (rule C1)", () => {
  const raw = concat([
    record(RecordType.stdin, 1, bytes("ab"), 6),
    record(RecordType.stdin, 1, bytes(""), 255),
    record(RecordType.beginRequest, 2, bytes("\0\x01\0\0\0\0\0\0"), 1),
    record(RecordType.abortRequest, 2, bytes(""), 8),
  ]);
  const records: Decoded[] = [
    [RecordType.stdin, 1, "ab"],
    [RecordType.stdin, 1, ""],
    [RecordType.beginRequest, 2, "\0\x01\0\0\0\0\0\0"],
    [RecordType.abortRequest, 2, ""],
  ];
  assertEquals(decode([raw]), records);
  assertEquals(decode(split(raw)), records);
});

Deno.test("RecordDecoder reports an unknown type once, without its content (rule C4)", () => {
  for (const type of [0, 12, 99, 255]) {
    for (const id of [0, 7]) {
      const raw = concat([record(type, id, bytes("xyz"), 5), record(type, id, bytes(""))]);
      assertEquals(decode([raw]), [[type, id, ""], [type, id, ""]]);
      assertEquals(decode(split(raw)), [[type, id, ""], [type, id, ""]]);
    }
  }
});

Deno.test("RecordDecoder accepts the longest record (rule C1)", () => {
  const content = pattern(65535);
  const raw = record(RecordType.stdin, 1, content, 255);
  assertEquals(decode([raw]), [[RecordType.stdin, 1, text(content)]]);
  assertEquals(decode(cut(raw, [7, 8, 9, 40000, 65543, 65544])), [[
    RecordType.stdin,
    1,
    text(content),
  ]]);
});

Deno.test("RecordDecoder passes stream content on as it arrives", () => {
  const decoder = new RecordDecoder();
  const pieces: string[] = [];
  const sink = {
    record: (_: number, __: number, content: Uint8Array) => pieces.push(text(content)),
  };
  const raw = record(RecordType.stdin, 1, bytes("abcdef"));
  decoder.push(raw.subarray(0, 10), sink);
  assertEquals(pieces, ["ab"]);
  assertEquals(decoder.idle, false);
  decoder.push(raw.subarray(10), sink);
  assertEquals(pieces, ["ab", "cdef"]);
  assertEquals(decoder.idle, true);
});

Deno.test("isHTTP() recognizes the beginning of an HTTP request", () => {
  assert(isHTTP(bytes("GET / HTTP/1.1\r\n")));
  assert(isHTTP(bytes("POST ")));
  for (const other of ["", " ", "GET", "get / ", "\x01\x01\0\x01 ", "70:CONTENT_LENGTH\x000 "]) {
    assertFalse(isHTTP(bytes(other)), other);
  }
});

Deno.test("RecordDecoder rejects another version at its first byte (rule C1)", () => {
  for (const version of [0, 2, 71]) {
    for (const chunk of [[version], [version, 1, 0, 1, 0, 0, 0, 0]]) {
      const error = assertThrows(
        () => new RecordDecoder().push(new Uint8Array(chunk), { record: () => {} }),
        ProtocolError,
      );
      assertEquals(
        error.message,
        `Cannot decode FastCGI record as version must be 1: current value is ${version}`,
      );
    }
  }
});

Deno.test("encodeStream() cuts long content into aligned records (rule C16)", () => {
  for (const length of [65527, 65528, 65529, 131056, 131057, 200000]) {
    const content = pattern(length);
    const raw = encoded((out) => encodeStream(out, RecordType.stdout, 3, content));
    assertEquals(raw.length, Math.ceil(length / 8) * 8 + 8 * Math.ceil(length / 65528));
    assertEquals(decode([raw]), [[RecordType.stdout, 3, text(content)]]);
    const asText = encoded((out) => encodeStreamText(out, RecordType.stdout, 3, text(content)));
    assertEquals(asText, raw);
  }
});

Deno.test("records are padded to 8 bytes with zeros, whatever their memory had before (section 3.3)", () => {
  for (let length = 1; length <= 17; length++) {
    const out = new ByteBuffer();
    out.append(new Uint8Array(64).fill(0xee));
    out.take();
    out.recycle();
    out.take();
    encodeStream(out, RecordType.stdout, 1, pattern(length));
    encodeStreamText(out, RecordType.stdout, 1, text(pattern(length)));
    const padding = -length & 7;
    const expected = record(RecordType.stdout, 1, pattern(length), padding);
    expected.fill(0, expected.length - padding);
    assertEquals(out.take(), concat([expected, expected]) as Uint8Array<ArrayBuffer>);
  }
});

Deno.test("decodeBeginRequest() reads role and flag, whatever else is set (rules C6, C8)", () => {
  assertEquals(decodeBeginRequest(bytes("\0\x02\xff\0\0\0\0\0")), {
    role: Role.authorizer,
    keepConnection: true,
  });
  assertEquals(decodeBeginRequest(bytes("\x01\0\xfe\0\0\0\0\0..")), {
    role: 256,
    keepConnection: false,
  });
  const error = assertThrows(() => decodeBeginRequest(new Uint8Array(7)), ProtocolError);
  assertEquals(
    error.message,
    "Cannot decode FCGI_BEGIN_REQUEST as its content must be 8 bytes: current length is 7",
  );
});

Deno.test("decodeEndRequest() reads a 32-bit status (rule C18)", () => {
  assertEquals(decodeEndRequest(bytes("\xff\xff\xff\xff\x03\0\0\0")), {
    appStatus: 0xffffffff,
    protocolStatus: ProtocolStatus.unknownRole,
  });
  const error = assertThrows(() => decodeEndRequest(new Uint8Array(0)), ProtocolError);
  assertEquals(
    error.message,
    "Cannot decode FCGI_END_REQUEST as its content must be 8 bytes: current length is 0",
  );
});

const long = "v".repeat(128);
/** Section 3.4: both lengths in one byte or in four. */
const PAIRS: Record<string, [string, [string, string][]]> = {
  "none": ["", []],
  "short and short": ["\x04\x01NAMEv", [["NAME", "v"]]],
  "an empty value": ["\x04\x00NAME", [["NAME", ""]]],
  "an empty name": ["\x00\x01v", [["", "v"]]],
  "nothing at all": ["\x00\x00", [["", ""]]],
  "a value of 127 bytes": [`\x01\x7fN${long.slice(1)}`, [["N", long.slice(1)]]],
  "a value of 128 bytes": [`\x01\x80\x00\x00\x80N${long}`, [["N", long]]],
  "a name of 128 bytes": [`\x80\x00\x00\x80\x01${long}x`, [[long, "x"]]],
  "both of 128 bytes": [`\x80\x00\x00\x80\x80\x00\x00\x80${long}${long}`, [[long, long]]],
  "bytes that are not ASCII": ["\x01\x02N\xe9\xff", [["N", "\xe9\xff"]]],
  "the same name twice, in order": ["\x01\x01Na\x01\x01Nb", [["N", "a"], ["N", "b"]]],
  "__proto__": ["\x09\x01__proto__x", [["__proto__", "x"]]],
};

for (const [name, [raw, pairs]] of Object.entries(PAIRS)) {
  Deno.test(`FastCGI name-value pairs: ${name} (rule C10)`, () => {
    assertEquals(decodePairs(bytes(raw)), pairs);
    assertEquals(decodePairs(bytes(raw + raw)), [...pairs, ...pairs]);
    const out = encoded((out) => pairs.forEach(([name, value]) => encodePair(out, name, value)));
    assertEquals(text(out), raw);
  });
}

Deno.test("decodePairs() accepts a long form of a short length (rule C10)", () => {
  assertEquals(decodePairs(bytes("\x80\x00\x00\x01\x80\x00\x00\x02Nab")), [["N", "ab"]]);
});

const BAD_PAIRS: Record<string, [string, string]> = {
  "a name's length cut off": ["\x80\x00", "a name's length must have 4 bytes: 2 are left"],
  "no value's length": ["\x01", "a value's length must have 1 bytes: 0 are left"],
  "a value's length cut off": [
    "\x01\x80\x00\x00",
    "a value's length must have 4 bytes: 3 are left",
  ],
  "a name cut off": ["\x04\x00NAM", "a name and its value must have 4 bytes: 3 are left"],
  "a value cut off": ["\x01\x05Nval", "a name and its value must have 6 bytes: 4 are left"],
  "a second pair cut off": ["\x01\x01Na\x01", "a value's length must have 1 bytes: 0 are left"],
  "the greatest lengths (CVE-2025-23016)": [
    "\xff\xff\xff\xff\xff\xff\xff\xffN",
    "a name and its value must have 4294967294 bytes: 1 are left",
  ],
};

for (const [name, [raw, message]] of Object.entries(BAD_PAIRS)) {
  Deno.test(`decodePairs() rejects ${name} (rule C10)`, () => {
    const error = assertThrows(() => decodePairs(bytes(raw)), ProtocolError);
    assertEquals(error.message, `Cannot decode name-value pairs as ${message}`);
    assertEquals(error.status, 400);
  });
}

Deno.test("decodePairs() rejects more pairs than allowed (rule F8)", () => {
  const raw = bytes("\x01\x01Na".repeat(3));
  assertEquals(decodePairs(raw, 3).length, 3);
  const error = assertThrows(() => decodePairs(raw, 2), ProtocolError);
  assertEquals(
    error.message,
    "Cannot decode name-value pairs: there are more than 2",
  );
  assertEquals(error.status, 431);
});

const byteString = (most: number) => fc.uint8Array({ maxLength: most }).map((array) => text(array));
const places = fc.array(fc.nat({ max: 3000 }), { maxLength: 40 });

Deno.test("RecordDecoder decodes the same records in any chunks", () => {
  const records = fc.array(
    fc.record({
      type: fc.oneof(fc.integer({ min: 1, max: 11 }), fc.integer({ min: 0, max: 255 })),
      id: fc.integer({ min: 0, max: 65535 }),
      content: fc.uint8Array({ maxLength: 300 }),
      padding: fc.integer({ min: 0, max: 255 }),
    }),
    { maxLength: 8 },
  );
  fc.assert(fc.property(records, places, (records, places) => {
    const raw = concat(
      records.map(({ type, id, content, padding }) => record(type, id, content, padding)),
    );
    const expected = records.map(({ type, id, content }): Decoded => [
      type,
      id,
      type >= 1 && type <= 11 ? text(content) : "",
    ]);
    assertEquals(decode(cut(raw, places)), join(expected));
  }));
});

Deno.test("FastCGI decoders throw only ProtocolError, for any input", () => {
  const anything = fc.uint8Array({ maxLength: 2000 });
  const nearly = fc.tuple(fc.constantFrom(...Object.values(RecordType)), anything)
    .map(([type, content]) => concat([record(type, 1, content.slice(0, 60)), content]));
  fc.assert(fc.property(fc.oneof(anything, nearly), places, (raw, places) => {
    const fallible: Array<() => unknown> = [
      () => decode(cut(raw, places)),
      () => decodePairs(raw),
      () => decodePairs(raw, 3),
      () => decodeBeginRequest(raw),
      () => decodeEndRequest(raw),
    ];
    for (const decode of fallible) {
      try {
        decode();
      } catch (error) {
        if ((error as Error).message.includes("where a record ends")) continue;
        assertInstanceOf(error, ProtocolError);
      }
    }
  }));
});

Deno.test("name-value pairs survive a round trip", () => {
  const pairs = fc.array(fc.tuple(byteString(200), byteString(300)), { maxLength: 20 });
  fc.assert(fc.property(pairs, (pairs) => {
    const raw = encoded((out) => pairs.forEach(([name, value]) => encodePair(out, name, value)));
    assertEquals(decodePairs(raw), pairs);
  }));
});
