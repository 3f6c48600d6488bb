import { assertEquals, assertThrows } from "@std/assert";
import { localRedirect } from "../../cgi.ts";
import { run } from "../testing/cgi_script.ts";

Deno.test("localRedirect() is sent as a lone Location (rule B6)", async () => {
  const { head, body } = await run(() => localRedirect("/other?a=b%20c"));
  assertEquals(head, "Location: /other?a=b%20c\r\n\r\n");
  assertEquals(body.length, 0);
});

Deno.test("localRedirect() returns a redirect response", () => {
  const response = localRedirect("/other");
  assertEquals([response.status, response.headers.get("location")], [302, "/other"]);
});

const REJECTED = [
  ...["", "other", "//evil.example/", "http://evil.example/", "/a b", "/a\r\nX: y", "/é"],
  // A browser takes each of these for //evil.example/.
  ...["/\\evil.example/", "\\\\evil.example/", "/\t/evil.example/", "/\n/evil.example/"],
  ...["/a\\b", "/a\0", "/a\x7f"],
];
for (const path of REJECTED) {
  Deno.test(`localRedirect() rejects ${JSON.stringify(path)}`, () => {
    assertThrows(() => localRedirect(path), TypeError, "must begin with one slash and be encoded");
  });
}
