import { assertEquals, assertInstanceOf, assertMatch, assertThrows } from "@std/assert";
import fc from "fast-check";
import { encodeHead, HeadDecoder, reasonPhrase, type ResponseHead } from "../../wire/cgi.ts";
import { ProtocolError } from "../../wire/protocol_error.ts";
import { bytes, concat, cut, split, text } from "../testing/bytes.ts";

function decode(chunks: Uint8Array[], most = 65_536): { head: ResponseHead; rest: string } | null {
  const decoder = new HeadDecoder(most);
  for (const [i, chunk] of chunks.entries()) {
    const done = decoder.push(chunk);
    if (done) {
      return { head: done.head, rest: text(concat([done.rest, ...chunks.slice(i + 1)])) };
    }
  }
  return null;
}

function head(
  status: number | undefined,
  reason: string,
  fields: [string, string][],
  nonParsed = false,
  dropped: string[] = [],
): ResponseHead {
  return { status, reason, fields, dropped, nonParsed };
}

function assertDecodes(raw: string, expected: ResponseHead): void {
  assertEquals(decode([bytes(raw)]), { head: expected, rest: "" });
  assertEquals(decode(split(bytes(raw))), { head: expected, rest: "" });
  assertEquals(decode([bytes(raw + raw)]), { head: expected, rest: raw });
  assertEquals(decode(split(bytes(raw + raw))), { head: expected, rest: raw });
  for (let at = 1; at < raw.length; at++) {
    const case_ = `cut at ${at}`;
    assertEquals(decode(cut(bytes(raw + "body"), [at])), { head: expected, rest: "body" }, case_);
    assertEquals(decode([bytes(raw.slice(0, at))]), null, `ends at ${at}`);
  }
}

const BOTH_WAYS: Record<string, [string, ResponseHead]> = {
  "a status alone": ["Status: 204 No Content\r\n\r\n", head(204, "No Content", [])],
  "fields in order": [
    "Status: 200 OK\r\ncontent-type: text/html\r\nx-a: 1\r\n\r\n",
    head(200, "OK", [["content-type", "text/html"], ["x-a", "1"]]),
  ],
  "a line for each cookie": [
    "Status: 200 OK\r\nset-cookie: a=1\r\nset-cookie: b=2\r\n\r\n",
    head(200, "OK", [["set-cookie", "a=1"], ["set-cookie", "b=2"]]),
  ],
  "a reason of one's own": ["Status: 404 Gone Fishing\r\n\r\n", head(404, "Gone Fishing", [])],
  "bytes, tabs and colons in values": [
    "Status: 500 Internal Server Error\r\nX-B: \xe9\x80\ta: b\r\n\r\n",
    head(500, "Internal Server Error", [["X-B", "\xe9\x80\ta: b"]]),
  ],
  "a Location before the status, as HAProxy otherwise sends a 302": [
    "Location: /x\r\nStatus: 201 Created\r\nX: 1\r\n\r\n",
    head(201, "Created", [["Location", "/x"], ["X", "1"]]),
  ],
  "an empty value": ["Status: 200 OK\r\nX: \r\n\r\n", head(200, "OK", [["X", ""]])],
};

for (const [name, [raw, expected]] of Object.entries(BOTH_WAYS)) {
  Deno.test(`CGI response head: ${name} (rules B1, B13)`, () => {
    assertEquals(encodeHead(expected.status!, expected.reason, expected.fields), raw);
    assertDecodes(raw, expected);
  });
}

const DECODED: Record<string, [string, ResponseHead]> = {
  "no Status": ["Content-Type: a/b\r\n\r\n", head(undefined, "", [["Content-Type", "a/b"]])],
  "LF alone": ["Status: 404 No\nA: b\n\n", head(404, "No", [["A", "b"]])],
  "LF and CRLF mixed": [
    "Status: 404 No\nA: b\r\nC: d\n\r\n",
    head(404, "No", [["A", "b"], [
      "C",
      "d",
    ]]),
  ],
  "CRLF, then LF": ["A: b\r\n\n", head(undefined, "", [["A", "b"]])],
  "Status in small letters, in the middle": [
    "A: b\r\nstatus: 201\r\nC: d\r\n\r\n",
    head(201, "", [["A", "b"], ["C", "d"]]),
  ],
  "no space after the colon": ["A:b\r\nStatus:302 Found\r\n\r\n", head(302, "Found", [["A", "b"]])],
  "spaces around the value": ["A: \t b c\t \r\n\r\n", head(undefined, "", [["A", "b c"]])],
  "a local redirect": ["Location: /x\r\n\r\n", head(undefined, "", [["Location", "/x"]])],
  "a status line": [
    "HTTP/1.1 404 Not Found\r\nA: b\r\n\r\n",
    head(404, "Not Found", [["A", "b"]], true),
  ],
  "a status line without a reason": ["HTTP/1.0 200\r\n\r\n", head(200, "", [], true)],
  // What Python's cgitb prints before its page.
  "names that are no tokens, which it drops": [
    "<!--: spam\r\nA: b\r\nC D: e\r\n: f\r\nG : h\r\nStatus : 500\r\ncaf\xe9: i\r\n\r\n",
    head(undefined, "", [["A", "b"]], false, [
      "<!--: spam",
      "C D: e",
      ": f",
      "G : h",
      "Status : 500",
      "caf\xe9: i",
    ]),
  ],
};

for (const [name, [raw, expected]] of Object.entries(DECODED)) {
  Deno.test(`HeadDecoder accepts ${name}`, () => assertDecodes(raw, expected));
}

Deno.test("HeadDecoder accepts a block without fields", () => {
  assertEquals(decode([bytes("\r\nbody")]), { head: head(undefined, "", []), rest: "body" });
  assertEquals(decode([bytes("\nbody")]), { head: head(undefined, "", []), rest: "body" });
});

const NOT_A_LINE = (line: string) =>
  `Cannot decode response as its header line must be "Name: value": current line is ${
    JSON.stringify(line)
  }`;
const NOT_A_STATUS = (status: string) =>
  `Cannot decode response as its status must be a number from 200 to 599: current value is ${
    JSON.stringify(status)
  }`;
const BAD: Record<string, [string, string]> = {
  "a line without a colon": ["nocolon\r\n\r\n", NOT_A_LINE("nocolon")],
  "folding (rule B9)": ["A: x\r\n y\r\n\r\n", NOT_A_LINE(" y")],
  "folding with a colon": ["A: x\r\n\ty: z\r\n\r\n", NOT_A_LINE("\ty: z")],
  "a NUL in a name": ["A\0: x\r\n\r\n", NOT_A_LINE("A\0: x")],
  "a control character in a name": ["A\x1b: x\r\n\r\n", NOT_A_LINE("A\x1b: x")],
  "a NUL in a value": ["A: x\0\r\n\r\n", NOT_A_LINE("A: x\0")],
  "a CR in a value": ["A: x\ry\r\n\r\n", NOT_A_LINE("A: x\ry")],
  "a control character": ["A: \x01\r\n\r\n", NOT_A_LINE("A: \x01")],
  "a status of letters": ["Status: OK\r\n\r\n", NOT_A_STATUS("OK")],
  "an empty status": ["Status:\r\n\r\n", NOT_A_STATUS("")],
  "a status of two digits": ["Status: 99\r\n\r\n", NOT_A_STATUS("99")],
  "a status of four digits": ["Status: 2000\r\n\r\n", NOT_A_STATUS("2000")],
  "a status below 200 (rule B4)": ["Status: 103 Early Hints\r\n\r\n", NOT_A_STATUS("103")],
  "a status above 599": ["Status: 600\r\n\r\n", NOT_A_STATUS("600")],
  "a status line below 200": ["HTTP/1.1 101 Switching\r\n\r\n", NOT_A_STATUS("101")],
  "a status line after the first line": [
    "A: b\r\nHTTP/1.1 200 OK\r\n\r\n",
    NOT_A_LINE("HTTP/1.1 200 OK"),
  ],
};

for (const [name, [raw, message]] of Object.entries(BAD)) {
  Deno.test(`HeadDecoder rejects ${name}`, () => {
    for (const chunks of [[bytes(raw)], split(bytes(raw))]) {
      const error = assertThrows(() => decode(chunks), ProtocolError);
      assertEquals(error.message, message);
      assertEquals(error.status, 502);
    }
  });
}

Deno.test("HeadDecoder shows no more than 80 characters of a bad line", () => {
  const error = assertThrows(() => decode([bytes("x".repeat(500) + "\n\n")]), ProtocolError);
  assertEquals(error.message, NOT_A_LINE("x".repeat(80)));
});

Deno.test("HeadDecoder rejects a block above its limit, also one without an end (rule F16)", () => {
  const block = "A: b\r\n\r\n";
  for (const feed of [(raw: string) => [bytes(raw)], (raw: string) => split(bytes(raw))]) {
    assertEquals(decode(feed(block), block.length)?.head.fields, [["A", "b"]]);
    assertEquals(decode(feed(block + "body".repeat(100)), block.length)?.rest.length, 400);
    for (const raw of [block, "A".repeat(block.length)]) {
      const error = assertThrows(() => decode(feed(raw), block.length - 1), ProtocolError);
      assertEquals(
        error.message,
        "Cannot decode response: its header block has more than 7 bytes",
      );
      assertEquals(error.status, 502);
    }
  }
});

Deno.test("HeadDecoder.end() throws if the block is truncated or absent", () => {
  const decoder = new HeadDecoder(65_536);
  assertEquals(decoder.push(bytes("A: b\r\n")), null);
  const error = assertThrows(() => decoder.end(), ProtocolError);
  assertEquals(
    error.message,
    'Cannot decode response as its header block must end with an empty line: it ends after "A: b\\r\\n"',
  );
  assertEquals(error.status, 502);
  assertEquals(
    assertThrows(() => new HeadDecoder(65_536).end(), ProtocolError).message,
    "Cannot decode response: it is empty, without a header block",
  );
});

Deno.test("encodeHead() always has a reason (rule B3)", () => {
  const reasons: [number, string, string][] = [
    [200, "", "200 OK"],
    [404, "", "404 Not Found"],
    [299, "", "299 Unassigned"],
    [404, "  ", "404 Not Found"],
    [404, "\x01\r\n\xe9", "404 Not Found"],
    [404, "a\r\nSet-Cookie: b\x00", "404 aSet-Cookie: b"],
    [404, "Not\x7fHere", "404 NotHere"],
  ];
  for (const [status, reason, line] of reasons) {
    assertEquals(encodeHead(status, reason, []), `Status: ${line}\r\n\r\n`);
  }
  for (let status = 200; status < 600; status++) assertMatch(reasonPhrase(status), /^[\w' -]+$/);
});

Deno.test("encodeHead() writes Location before Status, and all other fields after it (rule B1)", () => {
  assertEquals(
    encodeHead(307, "", [["A", "1"], ["Location", "/x"], ["B", "2"]]),
    "Location: /x\r\nStatus: 307 Temporary Redirect\r\nA: 1\r\nB: 2\r\n\r\n",
  );
});

Deno.test("encodeHead() rejects names that are no tokens (rules B9, F1)", () => {
  for (const name of ["", "a b", "a:b", "a\r\nb", "caf\xe9", "a\0", "(a)", 'a"']) {
    const error = assertThrows(() => encodeHead(200, "", [[name, "x"]]), TypeError);
    assertEquals(
      error.message,
      `Cannot encode header as its name must be a token: current value is ${JSON.stringify(name)}`,
    );
  }
});

Deno.test("encodeHead() rejects values with control characters (rules B9, F1)", () => {
  for (const value of ["a\r\nb: c", "\n", "\r", "\0", "\x01", "\x1b[m", "\x7f", "\u0100", "€"]) {
    const error = assertThrows(() => encodeHead(200, "", [["x", value]]), TypeError);
    assertEquals(
      error.message,
      `Cannot encode header "x" as its value must have no control characters: current value is ${
        JSON.stringify(value)
      }`,
    );
  }
  assertEquals(encodeHead(200, "", [["x", "\ta\xff"]]), "Status: 200 OK\r\nx: \ta\xff\r\n\r\n");
});

const name = fc.stringMatching(/^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,20}$/)
  .filter((name) => !/^(?:status|location)$/i.test(name));
const value = fc.stringMatching(/^[\t\x20-\x7e\x80-\xff]{0,40}$/)
  .map((value) => value.replace(/^[ \t]+|[ \t]+$/g, ""));
const places = fc.array(fc.nat({ max: 1000 }), { maxLength: 30 });

Deno.test("a CGI response head survives a round trip in any chunks", () => {
  const status = fc.integer({ min: 200, max: 599 });
  const reason = fc.stringMatching(/^[\x21-\x7e]{1,20}$/);
  const fields = fc.array(fc.tuple(name, value), { maxLength: 10 });
  fc.assert(fc.property(
    status,
    reason,
    fields,
    fc.uint8Array(),
    places,
    (status, reason, fields, body, places) => {
      const raw = concat([bytes(encodeHead(status, reason, fields)), body]);
      assertEquals(decode(cut(raw, places)), {
        head: head(status, reason, fields),
        rest: text(body),
      });
    },
  ));
});

Deno.test("encodeHead() writes one line for each field, or throws TypeError, for any input (rule F1)", () => {
  const wild = fc.oneof(
    fc.string({ unit: "binary" }),
    name,
    value,
    fc.constantFrom("\r\n\r\n", "a\nb"),
  );
  const fields = fc.array(fc.tuple(fc.oneof(name, wild), fc.oneof(value, wild)), { maxLength: 4 });
  fc.assert(fc.property(wild, fields, (reason, fields) => {
    let raw;
    try {
      raw = encodeHead(200, reason, fields);
    } catch (error) {
      assertInstanceOf(error, TypeError);
      return;
    }
    assertEquals(raw.split(/\r\n|[\r\n]/).length, fields.length + 3);
    assertEquals(raw.endsWith("\r\n\r\n"), true);
    assertMatch(raw, /^(?:location: .*\r\n)*Status: 200 [\x20-\x7e]+\r\n/i);
  }));
});

Deno.test("HeadDecoder throws only ProtocolError, and accepts no line break, for any input", () => {
  const line = fc.oneof(
    fc.uint8Array({ maxLength: 30 }).map((array) => text(array)),
    fc.tuple(name, value).map(([name, value]) => `${name}: ${value}`),
    fc.nat({ max: 999 }).map((status) => `Status: ${status}`),
  );
  const block = fc.array(line, { maxLength: 6 }).chain((lines) =>
    fc.constantFrom("\r\n", "\n", "\r").map((end) => lines.join(end) + end + end)
  );
  fc.assert(fc.property(block, places, (block, places) => {
    try {
      const done = decode(cut(bytes(block), places));
      for (const [name, value] of done?.head.fields ?? []) {
        assertMatch(name, /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/);
        // deno-lint-ignore no-control-regex
        assertMatch(value, /^[^\x00-\x08\x0a-\x1f\x7f]*$/);
      }
    } catch (error) {
      assertInstanceOf(error, ProtocolError);
    }
  }));
});
