import { assert, assertEquals, assertThrows } from "@std/assert";
import { createHeaders } from "../../server/request_headers.ts";
import { ProtocolError } from "../../wire/protocol_error.ts";

type Fields = [name: string, value: string][];

const FIELDS: Record<string, Fields> = {
  "none": [],
  "several": [["host", "a.example"], ["accept", "*/*"], ["x-b", "1"], ["cookie", "a=1; b=2"]],
  "one name twice": [["x-a", "1"], ["x-b", "2"], ["x-a", "3"]],
  "an empty value": [["x-a", ""], ["x-b", ""], ["x-a", "1"]],
  "blanks around values": [["x-a", " 1"], ["x-b", "2\t"], ["x-a", "\t 3 "], ["x-c", "  "]],
  "a blank inside a value": [["x-a", "1 2\t3"]],
  "bytes beyond ASCII": [["x-a", "\xe9\x80\xff"], ["x-b", "\xa0"]],
  "control characters": [["x-a", "\x01\x7f"], ["x-b", "\x1b[1m"]],
  "names of a prototype": [["__proto__", "1"], ["constructor", "2"]],
  "cookies to set": [["set-cookie", "a=1"], ["set-cookie", "b=2"]],
};

function appended(fields: Fields): Headers {
  const headers = new Headers();
  for (const [name, value] of fields) headers.append(name, value);
  return headers;
}

/** What an app can see of headers, before and after it changes them. */
function observe(headers: Headers, fields: Fields) {
  const read = () => [
    [...headers],
    [...headers.keys()],
    headers.getSetCookie(),
    fields.map(([name]) => [headers.get(name), headers.has(name), headers.get(name.toUpperCase())]),
    [...new Headers(headers)],
    [...new Request("http://localhost", { headers }).headers],
  ];
  const before = read();
  headers.append("X-A", "4");
  headers.set("x-B", "5");
  headers.delete("accept");
  return [before, read()];
}

for (const [name, fields] of Object.entries(FIELDS)) {
  Deno.test(`createHeaders() returns what append() makes: ${name}`, () => {
    for (const hasLineBreaks of [false, true]) {
      assertEquals(
        observe(createHeaders(structuredClone(fields), hasLineBreaks), fields),
        observe(appended(fields), fields),
      );
    }
  });
}

Deno.test("createHeaders() rejects NUL, CR and LF, but for line breaks around a value", () => {
  for (const char of ["\0", "\r", "\n"]) {
    const error = assertThrows(() => createHeaders([["x-a", `1${char}2`]], true), ProtocolError);
    assert(error.message.includes("x-a"), error.message);
  }
  const fields: Fields = [["x-a", "\r\n1\r\n"]];
  assertEquals([...createHeaders(fields, true)], [["x-a", "1"]]);
});
