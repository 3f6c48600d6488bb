import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { type ApplicationResponse, ResponseReader } from "../../gateway/response.ts";
import { ProtocolError } from "../../wire/protocol_error.ts";
import { deadline } from "../testing/deadline.ts";

const encoder = new TextEncoder();
const bytes = (text: string) => Uint8Array.from(text, (char) => char.charCodeAt(0));

interface Read {
  response: Promise<ApplicationResponse>;
  reader: ResponseReader;
  log: string[];
  canceled: unknown[];
  whole: { count: number };
}

/** Passes a response to a reader in parts of `step` bytes, then its end. */
function read(text: string, { method = "GET", step = Infinity, end = true } = {}): Read {
  const log: string[] = [];
  const canceled: unknown[] = [];
  const whole = { count: 0 };
  const reader = new ResponseReader({
    method,
    maxHeaderBytes: 1000,
    log: (line) => log.push(line),
    oncancel: (reason) => canceled.push(reason),
    oncomplete: () => whole.count++,
  });
  const all = bytes(text);
  try {
    for (let at = 0; at < all.length; at += step) {
      reader.push(all.slice(at, at + step));
      if (at + step < all.length || !end) reader.flush();
    }
    if (end) reader.end();
  } catch (error) {
    reader.fail(error);
  }
  return { response: reader.response, reader, log, canceled, whole };
}

async function readResponse(text: string, options = {}): Promise<Response> {
  const response = await deadline(read(text, options).response, "the response");
  assert(response instanceof Response);
  return response;
}

const GOOD: Record<string, [
  text: string,
  status: number,
  headers: [string, string][],
  body: string,
]> = {
  "a document": [
    "Content-Type: text/plain\r\n\r\nhello",
    200,
    [["content-type", "text/plain"]],
    "hello",
  ],
  "lines that end in LF": ["Content-Type: text/plain\n\nhello", 200, [[
    "content-type",
    "text/plain",
  ]], "hello"],
  "a status": ["Status: 404 Not Here\r\n\r\n", 404, [], ""],
  "a redirect for the client": ["Location: http://other.example/\n\n", 302, [[
    "location",
    "http://other.example/",
  ]], ""],
  "a redirect with a status": ["Status: 303 See Other\nLocation: /x\n\n", 303, [[
    "location",
    "/x",
  ]], ""],
  "a reference that is not to this server": ["Location: other\n\n", 302, [[
    "location",
    "other",
  ]], ""],
  "a script that parses no headers": ["HTTP/1.0 201 Made\r\nX: 1\r\n\r\nbody", 201, [[
    "x",
    "1",
  ]], "body"],
  "two cookies": ["Status: 200\nSet-Cookie: a=1\nSet-Cookie: b=2\n\n", 200, [
    ["set-cookie", "a=1"],
    ["set-cookie", "b=2"],
  ], ""],
  "hop-by-hop fields are left out": [
    "Status: 200\nConnection: close, X-Hop\nX-Hop: 1\nKeep-Alive: 5\nTransfer-Encoding: gzip\n" +
    "Upgrade: h2c\nTE: trailers\nTrailer: X\nProxy-Connection: close\nX-Stay: 1\n\nbody",
    200,
    [["x-stay", "1"]],
    "body",
  ],
  "bytes that are not ASCII": [
    "Status: 200\nX: caf\xe9\n\n\xff\x00",
    200,
    [["x", "caf\xe9"]],
    "\xff\0",
  ],
  "a length that fits": ["Status: 200\nContent-Length: 2\n\nab", 200, [[
    "content-length",
    "2",
  ]], "ab"],
  "a body longer than its length": ["Status: 200\nContent-Length: 2\n\nabc", 200, [[
    "content-length",
    "2",
  ]], "ab"],
  "fields without a type": ["X-Other: 1\n\nhello", 200, [["x-other", "1"]], "hello"],
  "an empty length": ["Content-Type: a/b\nContent-Length: \n\nhello", 200, [[
    "content-type",
    "a/b",
  ]], "hello"],
  "two types, of which the last counts": ["Content-Type: a/b\nX: 1\ncontent-type: c/d\n\n", 200, [
    ["content-type", "c/d"],
    ["x", "1"],
  ], ""],
  "a line whose name is no token": ["<!--: spam\nContent-Type: text/html\n\n-->", 200, [[
    "content-type",
    "text/html",
  ]], "-->"],
  "chunks of a script that must not send any": [
    "Content-Type: a/b\nTransfer-Encoding: chunked\n\n5\r\nhello\r\n0\r\n\r\n",
    200,
    [["content-type", "a/b"]],
    "hello",
  ],
  "one type said twice": ["Content-Type: a/b\nContent-Type: a/b\n\n", 200, [[
    "content-type",
    "a/b",
  ]], ""],
  "chunks of a script that parses no headers": [
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 9\r\n\r\n" +
    "4;x=y\r\nWiki\r\nA\r\n0123456789\r\n0\r\nTrailer: 1\r\n\r\n",
    200,
    [],
    "Wiki0123456789",
  ],
};

Deno.test("ResponseReader creates the same response from parts of any size", async () => {
  for (const [name, [text, status, headers, body]] of Object.entries(GOOD)) {
    for (const step of [Infinity, 1, 7]) {
      const response = await readResponse(text, { step });
      assertEquals(response.status, status, name);
      assertEquals([...response.headers], headers, name);
      const got = String.fromCharCode(...new Uint8Array(await response.arrayBuffer()));
      assertEquals(got, body, name);
    }
  }
});

const BAD: Record<string, string> = {
  "nothing": "",
  "a body alone": "hello",
  "no empty line": "Content-Type: text/plain\r\n",
  "a line without a colon": "Content-Type: text/plain\nhello\n\n",
  "a control character": "Content-Type: text/plain\nX: a\x01b\n\n",
  "a folded line": "Content-Type: text/plain\nX: a\n b\n\n",
  "a CR within a value": "Content-Type: text/plain\nX: a\rSet-Cookie: b\n\n",
  "an empty line": "\n\nbody",
  "nothing but names that are no tokens": "A B: 1\nContent-Type : text/plain\n\nbody",
  "nothing but fields of the connection": "Connection: content-type\nContent-Type: a/b\n\nbody",
  "two places to go": "Location: http://a/\nLocation: http://b/\n\n",
  "two lengths": "Status: 200\nContent-Length: 1\nContent-Length: 2\n\nab",
  "a length with a sign": "Status: 200\nContent-Length: +1\n\na",
  "a length that is two": "Status: 200\nContent-Length: 1, 1\n\na",
  "a status without a number": "Status: OK\n\n",
  "an interim status": "Status: 103 Early Hints\n\n",
  "a head without end": "Status: 200\nX: " + "a".repeat(2000),
};

Deno.test("ResponseReader rejects an invalid response with 502", async () => {
  for (const [name, text] of Object.entries(BAD)) {
    for (const step of [Infinity, 1]) {
      const error = await assertRejects(
        () => read(text, { step }).response,
        ProtocolError,
        "",
        name,
      );
      assertEquals(error.status, 502, name);
    }
  }
});

Deno.test("ResponseReader logs what it drops and what is odd", async () => {
  const cases: [text: string, line: string][] = [
    [
      "<!--: spam\nA B: c\nContent-Type: text/html\n\n",
      `Dropped 2 of the response's header lines, as a name must be a token: the first is "<!--: spam"`,
    ],
    [
      "Content-Type: a/b\nTransfer-Encoding: chunked\nContent-Length: 2\n\nab",
      "The response has both Transfer-Encoding and Content-Length: the length counts",
    ],
  ];
  for (const [text, line] of cases) {
    const { response, log } = read(text);
    await response;
    assertEquals(log, [line]);
  }
});

Deno.test("ResponseReader distinguishes a local redirect from one for the client", async () => {
  const { response } = read("Location: /other?x=1\n\n");
  assertEquals(await response, { location: "/other?x=1" });
});

Deno.test("ResponseReader omits the body for HEAD, 204, 205 and 304", async () => {
  const head = await readResponse("Status: 200\nContent-Length: 5\n\nhello", { method: "HEAD" });
  assertEquals([head.body, head.headers.get("content-length")], [null, "5"]);
  for (const status of [204, 205, 304]) {
    const { body } = await readResponse(`Status: ${status}\nContent-Length: 5\n\nhello`);
    assertEquals(body, null, String(status));
  }
});

Deno.test("ResponseReader drops the body of HEAD, 204 and 304 to its end", () => {
  for (const [status, method] of [[200, "HEAD"], [204, "GET"], [304, "GET"]] as const) {
    const { reader, canceled, log } = read(`Status: ${status}\n\n`, { method, end: false });
    for (let i = 0; i < 50; i++) reader.push(new Uint8Array(100_000));
    assertEquals(reader.room(), undefined);
    reader.end();
    assertEquals([canceled, log], [[], []]);
  }
});

Deno.test("ResponseReader errors a body shorter than its Content-Length", async () => {
  const response = await readResponse("Status: 200\nContent-Length: 9\n\nshort");
  await assertRejects(() => response.text(), Error, "4 bytes shorter");
});

Deno.test("ResponseReader errors a body that ends before the last chunk", async () => {
  const start = "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n";
  await assertRejects(
    async () => await (await readResponse(start + "5\r\nhel")).text(),
    Error,
    "last chunk",
  );
  const bad = read(start + "5\r\nhelloX\r\n");
  const response = await bad.response as Response;
  await assertRejects(() => response.text(), ProtocolError, "chunked");
});

Deno.test("ResponseReader keeps a complete body if the application fails after it", async () => {
  const { response, reader } = read("Status: 200\nContent-Length: 2\n\nab", { end: false });
  reader.fail(new Error("closed"));
  assertEquals(await (await response as Response).text(), "ab");
});

Deno.test("ResponseReader ends a body at its Content-Length before the application ends", async () => {
  for (
    const text of ["Status: 200\nContent-Length: 2\n\nab", "Status: 200\nContent-Length: 0\n\n"]
  ) {
    const { response, whole } = read(text, { end: false });
    const body = await deadline((await response as Response).text(), "the body");
    assertEquals([body, whole.count], [text.slice(text.indexOf("\n\n") + 2), 1]);
  }
});

Deno.test("ResponseReader logs a body longer than its Content-Length once", async () => {
  const { response, log } = read("Status: 200\nContent-Length: 1\n\nabc", { step: 1 });
  assertEquals(await (await response as Response).text(), "a");
  assertEquals(log.length, 1);
  assertStringIncludes(log[0], "longer than its Content-Length");
});

Deno.test("ResponseReader cancels an application that keeps sending after a complete body", () => {
  const { reader, canceled, log } = read("Status: 200\nContent-Length: 1\n\na", { end: false });
  for (let i = 0; i < 20; i++) reader.push(new Uint8Array(60_000));
  assertEquals([canceled.length > 0, log.length], [true, 1]);
});

Deno.test("ResponseReader.room() resolves when the client has read the buffered bytes", async () => {
  const { response, reader } = read("Status: 200\n\n", { end: false });
  assertEquals(reader.room(), undefined);
  reader.push(new Uint8Array(100_000));
  reader.flush();
  const room = reader.room();
  assert(room instanceof Promise);
  const body = (await response as Response).body!.getReader();
  await deadline(body.read(), "the body");
  await deadline(room, "room");
  await body.cancel();
});

Deno.test("ResponseReader.room() resolves when the client cancels the body", async () => {
  const { response, reader, canceled } = read("Status: 200\n\n", { end: false });
  reader.push(new Uint8Array(100_000));
  reader.flush();
  const room = reader.room();
  await (await response as Response).body!.cancel("canceled");
  await deadline(Promise.resolve(room), "room");
  assertEquals(canceled, ["canceled"]);
  reader.push(encoder.encode("more"));
});

/** How a transport passes what it has read on to the client. */
type Flush = "flush" | "flushSoon";

/** Passes a response to a reader from one buffer, which each read overwrites, as a transport does. */
async function readLikeTransport(text: string, step: number, flush: Flush): Promise<Response> {
  const { response, reader } = read("", { end: false });
  const all = bytes(text);
  const buffer = new Uint8Array(step);
  const ended = (async () => {
    for (let at = 0; at < all.length; at += step) {
      const part = all.subarray(at, at + step);
      buffer.set(part);
      reader.push(buffer.subarray(0, part.length));
      reader[flush]();
      buffer.fill(0);
      await reader.room();
    }
    reader.end();
  })();
  const whole = await deadline(response, "the response") as Response;
  const body = await deadline(whole.bytes(), "the body");
  await ended;
  return new Response(body, whole);
}

Deno.test("ResponseReader returns equal responses however the bytes arrive", async () => {
  const heads = [
    "Content-Type: text/plain",
    "Content-Length: 70000\nStatus: 201 Made\nSet-Cookie: a\nSet-Cookie: b",
  ];
  const content = Array.from({ length: 7000 }, (_, i) => String(i).padStart(10)).join("");
  for (const head of heads) {
    const text = `${head}\nX: y\n\n${content}`;
    const whole = await readResponse(text);
    assertEquals(await whole.clone().text(), content);
    for (const flush of ["flush", "flushSoon"] as const) {
      for (const step of [7, 4096, 50_000, 100_000]) {
        const parts = await readLikeTransport(text, step, flush);
        assertEquals([...parts.headers], [...whole.headers]);
        assertEquals([parts.status, parts.statusText], [whole.status, whole.statusText]);
        assertEquals(await parts.text(), content);
      }
    }
  }
});

Deno.test("ResponseReader.flushSoon() responds though the end of the body does not come", async () => {
  const { response, reader } = read("", { end: false });
  reader.push(bytes("Status: 200\n\nfirst"));
  reader.flushSoon();
  const body = (await deadline(response, "the response") as Response).body!.getReader();
  const { value } = await deadline(body.read(), "the first bytes");
  assertEquals(value, bytes("first"));
  reader.push(bytes("second"));
  reader.flushSoon();
  assertEquals((await deadline(body.read(), "the second bytes")).value, bytes("second"));
  reader.end();
  assertEquals((await deadline(body.read(), "the end")).done, true);
});

Deno.test("ResponseReader.flushSoon() passes no empty chunk on to the client", async () => {
  const { response, reader } = read("", { end: false });
  reader.push(bytes("Status: 200\n\n"));
  reader.flushSoon();
  const body = (await deadline(response, "the response") as Response).body!.getReader();
  const first = body.read();
  reader.push(bytes("first"));
  reader.flushSoon();
  assertEquals((await deadline(first, "the first bytes")).value, bytes("first"));
  reader.end();
  assertEquals((await deadline(body.read(), "the end")).done, true);
});
