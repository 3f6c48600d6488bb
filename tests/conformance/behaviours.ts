/** The behaviours that an app has over every transport, on every runtime. */
import { assertEquals } from "@std/assert";
import { bytes, pattern, text } from "../testing/bytes.ts";
import type { ParsedResponse } from "../testing/response.ts";
import type { ClientRequest, Transport } from "./transports.ts";

/** The expected response, without the parts that differ between transports. */
interface Expected {
  status?: number;
  /** All fields but Set-Cookie and those that differ between transports. */
  headers?: Record<string, string>;
  cookies?: string[];
  body?: string | Uint8Array | null;
  /** The request that the app sees and returns; properties that are absent are those of `USUAL`. */
  seen?: Record<string, unknown>;
}

export interface Behaviour extends Expected {
  name: string;
  /** The options of the app. */
  options?: "plain" | "moved" | "proxied" | "elsewhere" | "caught";
  method?: string;
  target?: string;
  request?: [name: string, value: string][];
  send?: Uint8Array;
}

const plain = { "content-type": "text/plain;charset=UTF-8" };
const failed = {
  status: 500,
  headers: { ...plain, "content-length": "26" },
  body: "500 Internal Server Error\n",
};
const hello = { headers: { ...plain, "content-length": "5" }, body: "Hello" };

/** A GET request for `/` as the app sees it. */
const USUAL = {
  method: "GET",
  url: "http://example.org:8080/",
  headers: { host: "example.org:8080" },
  hasBody: false,
  body: [],
  isRequest: true,
  scriptName: "",
  pathInfo: "/",
  client: "tcp 127.0.0.1",
};

const multipart = bytes(
  '--x\r\ncontent-disposition: form-data; name="text"\r\n\r\ncaf\xc3\xa9\r\n' +
    '--x\r\ncontent-disposition: form-data; name="file"; filename="a.txt"\r\n' +
    "content-type: text/plain\r\n\r\nfile\r\n--x--\r\n",
);

/** The behaviours that every transport must have (rule B23). */
export const BEHAVIOURS: Behaviour[] = [
  { name: "a text response", target: "/hello", ...hello },
  {
    name: "a response without a body",
    target: "/nothing",
    headers: { "x-a": "1", "content-length": "0" },
    body: "",
  },
  {
    name: "a response with an empty body",
    target: "/empty",
    headers: { ...plain, "content-length": "0" },
    body: "",
  },

  { name: "the request as the app sees it", seen: {} },
  {
    name: "a path and query, unchanged",
    target: "/caf%C3%A9%2Fx?q=a+b&c=%20",
    seen: {
      url: "http://example.org:8080/caf%C3%A9%2Fx?q=a+b&c=%20",
      pathInfo: "/café/x",
      variables: {
        REQUEST_URI: "/caf%C3%A9%2Fx?q=a+b&c=%20",
        QUERY_STRING: "q=a+b&c=%20",
      },
    },
  },
  {
    name: "dot segments in the path",
    target: "/a/./b/../c//d",
    seen: { url: "http://example.org:8080/a/c//d", pathInfo: "/a/c//d" },
  },
  {
    name: "a path that begins with two slashes",
    target: "//evil.example/x",
    seen: { url: "http://example.org:8080//evil.example/x", pathInfo: "//evil.example/x" },
  },
  {
    name: "a percent sign that is no escape",
    target: "/%zz%?%",
    seen: { url: "http://example.org:8080/%zz%?%", pathInfo: "/%zz%" },
  },
  {
    name: "a path that is not UTF-8",
    target: "/caf%E9",
    seen: { url: "http://example.org:8080/caf%E9", pathInfo: "/caf\ufffd" },
  },
  {
    name: "a query with question marks",
    target: "/a?b?c=/d",
    seen: { url: "http://example.org:8080/a?b?c=/d", pathInfo: "/a" },
  },
  {
    name: "an empty query",
    target: "/a?",
    seen: { url: "http://example.org:8080/a?", pathInfo: "/a" },
  },
  {
    name: "another host",
    request: [["Host", "[::1]:99"]],
    seen: { url: "http://[::1]:99/", headers: { host: "[::1]:99" } },
  },

  {
    name: "headers, and one that is repeated",
    request: [
      ["X-A", "1"],
      ["Accept", "text/html, */*"],
      ["X-A", "2"],
      ["User-Agent", 'test "quoted"'],
      ["X-Empty", ""],
    ],
    seen: {
      headers: {
        host: "example.org:8080",
        accept: "text/html, */*",
        "user-agent": 'test "quoted"',
        "x-a": "1, 2",
        "x-empty": "",
      },
      variables: { HTTP_X_A: "1, 2" },
    },
  },
  {
    name: "cookies in two headers",
    request: [["Cookie", "a=1"], ["Cookie", "b=2"]],
    seen: { headers: { host: "example.org:8080", cookie: "a=1; b=2" } },
  },
  {
    name: "an Authorization header",
    request: [["Authorization", "Basic YTpi"]],
    seen: { headers: { host: "example.org:8080", authorization: "Basic YTpi" } },
  },
  {
    name: "a long header",
    request: [["X-A", "a".repeat(7000)]],
    seen: {
      headers: { host: "example.org:8080", "x-a": "a".repeat(7000) },
      variables: { HTTP_X_A: "a".repeat(7000) },
    },
  },
  {
    name: "ninety headers",
    request: Array.from({ length: 90 }, (_, i) => [`X-${i}`, String(i)]),
    seen: {
      headers: {
        host: "example.org:8080",
        ...Object.fromEntries(Array.from({ length: 90 }, (_, i) => [`x-${i}`, String(i)])),
      },
    },
  },

  ...["PUT", "DELETE", "OPTIONS", "PATCH", "PROPFIND", "M-SEARCH", "patch"].map((method) => ({
    name: `the method ${method}`,
    method,
    request: [["Content-Type", "a/b"]] as [string, string][],
    send: bytes("body"),
    seen: {
      method,
      headers: { host: "example.org:8080", "content-type": "a/b", "content-length": "4" },
      hasBody: true,
      body: [...bytes("body")],
      variables: { REQUEST_METHOD: method },
    },
  })),
  {
    name: "a POST of bytes",
    method: "POST",
    send: new Uint8Array([0, 128, 255, 13, 10]),
    seen: {
      method: "POST",
      headers: { host: "example.org:8080", "content-length": "5" },
      hasBody: true,
      body: [0, 128, 255, 13, 10],
      variables: { REQUEST_METHOD: "POST" },
    },
  },
  {
    name: "a GET with a body",
    send: bytes("body"),
    seen: { headers: { host: "example.org:8080", "content-length": "4" } },
  },
  { name: "a method that Request forbids", method: "TRACE", status: 501 },

  {
    name: "an echo of 1 MB",
    method: "POST",
    target: "/echo",
    send: pattern(1_000_000),
    body: pattern(1_000_000),
  },
  {
    name: "1 MB read into the app's own buffer",
    method: "POST",
    target: "/own-buffer",
    send: pattern(1_000_000),
    body: pattern(1_000_000),
  },
  ...["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "PROPFIND"].flatMap((method) =>
    [[], [["Content-Length", "0"]]].map((request) => ({
      name: `an empty ${method}, ${request.length > 0 ? "with a length of 0" : "without a length"}`,
      method,
      target: "/empty-body",
      request: request as [string, string][],
      body: '[true,false,"",true]',
    }))
  ),
  ...["GET", "HEAD"].map((method) => ({
    name: `an empty ${method}`,
    method,
    target: "/empty-body",
    body: method === "GET" ? '[false,false,"",false]' : "",
  })),
  {
    name: "the info used as a RequestInit",
    method: "POST",
    target: "/info",
    send: bytes("body"),
    body: JSON.stringify({
      fields: [
        "completed",
        "log",
        "pathInfo",
        "protocol",
        "remoteAddr",
        "requestId",
        "scriptName",
        "variables",
      ],
      copy: ["POST", "http://other/", "rewritten"],
      request: ["POST", "/info", "PUT"],
      body: "body",
    }),
  },
  { name: "an echo of an empty body", method: "POST", target: "/echo", body: "" },
  {
    name: "a form with a file",
    method: "POST",
    target: "/form",
    request: [["Content-Type", "multipart/form-data; boundary=x"]],
    send: multipart,
    body: '["café","a.txt","text/plain","file"]',
  },
  {
    name: "a request that is cloned and copied",
    method: "POST",
    target: "/clone",
    send: bytes("body"),
    body: '["body","2","body"]',
  },

  ...[200, 201, 299, 400, 404, 418, 503, 599].map((status) => ({
    name: `the status ${status}`,
    target: `/status?status=${status}`,
    status,
    headers: { ...plain, etag: '"a"', "content-length": "4" },
    body: "body",
  })),
  ...[204, 205, 304].map((status) => ({
    name: `the status ${status}, without a body`,
    target: `/status?status=${status}`,
    status,
    body: "",
  })),
  {
    name: "a redirect",
    target: "/redirect",
    status: 303,
    headers: { location: "/elsewhere?a=b", "content-length": "0" },
    body: "",
  },
  {
    name: "two cookies",
    target: "/cookies",
    ...hello,
    cookies: ["a=1; Path=/; Expires=Thu, 01 Jan 2026 00:00:00 GMT", "b=2"],
  },
  {
    name: "the headers of a response",
    target: "/headers",
    headers: {
      "x-twice": "1, 2",
      "x-bytes": "caf\xe9 \xff",
      "x-tab": "a\tb",
      "x-case": "Kept",
      "content-type": "text/html; charset=utf-8",
      "cache-control": "no-store",
      "content-length": "5",
    },
    body: "Hello",
  },
  {
    name: "a long header of a response",
    target: "/long-header",
    headers: { ...hello.headers, "x-long": "x".repeat(6000) },
    body: "Hello",
  },
  {
    name: "a streamed body",
    target: "/stream",
    headers: { "content-type": "text/plain" },
    body: "onetwothree",
  },
  {
    name: "a response of 1 MB",
    target: "/megabyte",
    headers: { "content-type": "application/octet-stream", "content-length": "1000000" },
    body: "x".repeat(1_000_000),
  },

  { name: "HEAD", method: "HEAD", target: "/hello", status: 200, body: "" },
  {
    name: "HEAD of a stream",
    method: "HEAD",
    target: "/stream",
    headers: { "content-type": "text/plain" },
    body: "",
  },
  {
    name: "HEAD with the length of the GET response",
    method: "HEAD",
    target: "/length",
    headers: { "content-length": "1234" },
    body: "",
  },
  { name: "HEAD of an app that throws", method: "HEAD", target: "/throw", status: 500, body: "" },

  { name: "an app that throws", target: "/throw", ...failed },
  { name: "an app that rejects", target: "/reject", ...failed },
  { name: "an app that returns undefined", target: "/undefined", ...failed },
  { name: "an app that returns Response.error()", target: "/error", ...failed },
  { name: "an app that returns a response that it has read", target: "/read", ...failed },
  ...["/throw", "/reject", "/undefined", "/error", "/read"].map((target) => ({
    name: `onError for ${target}`,
    options: "caught" as const,
    target,
    status: 503,
    headers: plain,
  })),

  {
    name: "basePath",
    options: "moved",
    target: "/app/users?q",
    seen: {
      url: "http://example.org:8080/users?q",
      scriptName: "/app",
      pathInfo: "/users",
      variables: { REQUEST_URI: "/app/users?q" },
    },
  },
  ...(["plain", "moved"] as const).map((options): Behaviour => ({
    name: `the host of an absolute target, ${options}`,
    options,
    target: "http://target.example:99/x?q",
    seen: {
      url: "http://target.example:99/x?q",
      headers: { host: "target.example:99" },
      pathInfo: "/x",
      variables: { QUERY_STRING: "q" },
    },
  })),
  {
    name: "an absolute target with an invalid host",
    target: "http://user@target.example/",
    status: 400,
  },
  {
    name: "basePath, and a path outside it",
    options: "moved",
    target: "/apple",
    seen: { url: "http://example.org:8080/apple", pathInfo: "/apple" },
  },
  {
    name: "basePath, and a body",
    options: "moved",
    method: "POST",
    target: "/app/echo",
    send: bytes("body"),
    body: "body",
  },
  {
    name: "basePath, and an app that changes the headers",
    options: "moved",
    target: "/app/check/headers.delete()",
    request: [["Cookie", "a=1"]],
    body: '["TypeError","a=1"]',
  },
  ...(["moved", "proxied"] as const).map((options): Behaviour => ({
    name: `X-Forwarded headers of a trusted proxy, ${options}`,
    options,
    request: [
      ["X-Forwarded-Proto", "https"],
      ["X-Forwarded-Host", "evil.example, www.example"],
      ["X-Forwarded-For", "198.51.100.1, 192.0.2.9"],
    ],
    seen: {
      url: "https://www.example/",
      client: "tcp 192.0.2.9",
      headers: {
        host: "example.org:8080",
        "x-forwarded-for": "198.51.100.1, 192.0.2.9",
        "x-forwarded-host": "evil.example, www.example",
        "x-forwarded-proto": "https",
      },
    },
  })),
  {
    name: "Forwarded of a trusted proxy",
    options: "moved",
    request: [["Forwarded", 'for=1.2.3.4, for="[::1]:99";host=www.example;proto=https']],
    seen: {
      url: "https://www.example/",
      client: "tcp ::1",
      headers: {
        host: "example.org:8080",
        forwarded: 'for=1.2.3.4, for="[::1]:99";host=www.example;proto=https',
      },
    },
  },
  ...Object.entries({ "X-Forwarded-Host": "a b", Forwarded: 'host="' }).map((field): Behaviour => ({
    name: `an invalid ${field[0]} of a trusted proxy`,
    options: "moved",
    request: [field],
    status: 400,
  })),
  ...(["plain", "elsewhere"] as const).map((options): Behaviour => ({
    name: `X-Forwarded headers of an untrusted client, ${options}`,
    options,
    request: [["X-Forwarded-Proto", "https"], ["X-Forwarded-Host", "evil.example"]],
    seen: {
      headers: {
        host: "example.org:8080",
        "x-forwarded-host": "evil.example",
        "x-forwarded-proto": "https",
      },
    },
  })),
];

/** Header fields that HTTP servers add. */
const TRANSPORT_FIELDS = ["connection", "date", "transfer-encoding", "vary"];

/** Compares a response with the expected one. */
export function check(behaviour: Behaviour, response: ParsedResponse): void {
  const { seen, headers, body, cookies } = behaviour;
  const status = behaviour.status ?? 200;
  assertEquals(response.status, status);
  if (seen) {
    const actual = JSON.parse(new TextDecoder().decode(response.body));
    const { variables = {}, ...others } = seen as { variables?: Record<string, unknown> };
    const { variables: actualVariables, ...actualOthers } = actual;
    assertEquals(actualOthers, { ...USUAL, ...others });
    for (const [name, value] of Object.entries(variables)) {
      assertEquals(actualVariables[name], value, name);
    }
  }
  if (headers) {
    const fields = Object.fromEntries(
      response.fields.map(([name, value]): [string, string] => [name.toLowerCase(), value]).filter((
        [name],
      ) =>
        !TRANSPORT_FIELDS.includes(name) && name !== "set-cookie" &&
        (name !== "content-length" || name in headers)
      ),
    );
    if ("x-twice" in headers) fields["x-twice"] = response.headers.get("x-twice")!;
    assertEquals(fields, headers);
  }
  if (headers || cookies) assertEquals(response.headers.getSetCookie(), cookies ?? []);
  if (typeof body === "string") assertEquals(text(response.body), utf8(body));
  else if (body) assertEquals(response.body, body as Uint8Array<ArrayBuffer>);
}

function utf8(body: string): string {
  return text(new TextEncoder().encode(body));
}

/** Sends the request of each behaviour as a step of a test. @param start Starts the app with the options of a name. */
export async function checkAll(
  t: Deno.TestContext,
  start: (options: string) => Transport | Promise<Transport>,
  behaviours: Behaviour[] = BEHAVIOURS,
): Promise<void> {
  const running: Record<string, Transport> = {};
  try {
    for (const behaviour of behaviours) {
      const { options = "plain", method = "GET", target = "/" } = behaviour;
      await t.step(behaviour.name, async () => {
        const request: ClientRequest = {
          method,
          target,
          headers: behaviour.request ?? [],
          body: behaviour.send,
        };
        running[options] ??= await start(options);
        check(behaviour, await running[options].send(request));
      });
    }
  } finally {
    for (const transport of Object.values(running)) await transport[Symbol.asyncDispose]();
  }
}
