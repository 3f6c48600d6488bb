import { assertEquals, assertThrows } from "@std/assert";
import type { Exchange } from "../../server/exchange.ts";
import { checkResponse, encodeResponseHead } from "../../server/response_head.ts";

/** Returns a response of a class that inherits from `Response` and is not made by it, as srvx has for Node. */
function foreignResponse(): Response {
  class NodeResponse {
    status = 200;
  }
  Object.setPrototypeOf(NodeResponse.prototype, Response.prototype);
  return new NodeResponse() as unknown as Response;
}

Deno.test("checkResponse() says what to return in place of a response of another class", () => {
  assertThrows(
    () => checkResponse(foreignResponse()),
    TypeError,
    "Cannot send response as it must be a Response of Deno: current value is of the class NodeResponse. Return new Response(response.body, response)",
  );
});

type Fields = [name: string, value: string][];

const many = (count: number): Fields =>
  Array.from({ length: count }, (_, i) => [`X-${count - i}`, `${i}`]);

const FIELDS: Record<string, Fields> = {
  "none": [],
  "one name twice": [["x-b", "1"], ["x-a", "2"], ["X-B", "3"]],
  "an empty value, then another": [["x-a", ""], ["x-a", "1"], ["x-a", ""], ["x-a", "2"]],
  "names in capitals": [["X-Powered-By", "Deno"], ["CACHE-CONTROL", "no-store"]],
  "cookies among others": [["set-cookie", "a=1"], ["x-a", "1"], ["Set-Cookie", "b=2"]],
  "a length and a type": [["Content-Length", "5"], ["Content-Type", "text/html"]],
  "fields of the connection": [["connection", "close"], ["x-a", "1"], ["status", "404"]],
  "variables of an authorizer": [["variable-user", "ann"]],
  "64 fields": many(64),
  "65 fields, one of them twice": [...many(64), ["x-7", "again"]],
  "names of a prototype": [["__proto__", "1"], ["constructor", "2"], ["constructor", "3"]],
};

/** Returns the lines of a response's head, sorted. */
function linesOf(response: Response): string[] {
  const exchange = { method: "GET", protocol: "fastcgi" } as Exchange;
  return encodeResponseHead(response, exchange, true, 5).split("\r\n").toSorted();
}

for (const [name, fields] of Object.entries(FIELDS)) {
  Deno.test(`encodeResponseHead() sends the fields that iterating headers yields: ${name}`, () => {
    const added = new Response("Hello");
    for (const [name, value] of fields) added.headers.append(name, value);
    const response = () => new Response("Hello", { headers: fields });
    const iterated = response();
    // Headers that are not made of a list, such as those of fetch, are iterated.
    const list = Object.getOwnPropertySymbols(iterated.headers)
      .find(({ description }) => description === "header list")!;
    const headers = [...iterated.headers];
    Object.defineProperty(iterated.headers, list, { get: () => undefined });
    iterated.headers.forEach = (callback) =>
      headers.forEach(([name, value]) => callback(value, name, iterated.headers));
    const expected = linesOf(iterated);
    assertEquals(linesOf(response()), expected);
    assertEquals(linesOf(added), linesOf(new Response("Hello", { headers: added.headers })));
  });
}

Deno.test("encodeResponseHead() keeps the order in which the app has added its fields", () => {
  const response = new Response("", {
    headers: [["x-b", "1"], ["X-A", "2"], ["Content-Type", "a/b"]],
  });
  const exchange = { method: "GET", protocol: "fastcgi" } as Exchange;
  assertEquals(
    encodeResponseHead(response, exchange, true, 0),
    "Status: 200 OK\r\nx-b: 1\r\nx-a: 2\r\nContent-Type: a/b\r\nContent-Length: 0\r\n\r\n",
  );
});
