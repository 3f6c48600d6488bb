import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import { decodePercent } from "../../bridge/request.ts";
import { createVariables, type VariableOptions } from "../../bridge/request_variables.ts";
import { text } from "../testing/bytes.ts";
import { serveOne } from "../testing/fastcgi_client.ts";

/** Returns the variables of a request for a URL. */
function create(
  url: string,
  init: RequestInit = {},
  options: Partial<VariableOptions> = {},
): Record<string, string> {
  const pairs = createVariables(new Request(url, init), { pathInfo: "", ...options });
  const variables = Object.fromEntries(pairs);
  assertEquals(Object.keys(variables).length, pairs.length, "each name must come once");
  return variables;
}

/** Returns some of the variables. */
function pick(variables: Record<string, string | undefined>, ...names: string[]) {
  return names.map((name) => variables[name]);
}

const byteString = (value: string) => text(new TextEncoder().encode(value));

Deno.test("createVariables() creates the variables of RFC 3875", () => {
  const request = new Request("http://example.org:8080/app/x%20y?a=1&b=%20", {
    method: "POST",
    headers: { "Content-Type": "text/plain", Accept: "*/*", "X-Two-Words": "yes" },
    body: "hello",
  });
  const variables = createVariables(request, {
    scriptName: "/app",
    pathInfo: "/x y",
    scriptFilename: "/srv/app.php",
    documentRoot: "/srv",
    contentLength: 5,
    remoteAddr: { transport: "tcp", hostname: "192.0.2.1", port: 5000 },
  });
  assertEquals(variables, [
    // SCGI requires it first.
    ["CONTENT_LENGTH", "5"],
    ["GATEWAY_INTERFACE", "CGI/1.1"],
    ["SERVER_PROTOCOL", "HTTP/1.1"],
    ["SERVER_SOFTWARE", "Gatehouse"],
    ["REQUEST_METHOD", "POST"],
    ["REQUEST_SCHEME", "http"],
    ["REQUEST_URI", "/app/x%20y?a=1&b=%20"],
    ["QUERY_STRING", "a=1&b=%20"],
    ["SCRIPT_NAME", "/app"],
    ["PATH_INFO", "/x y"],
    ["SCRIPT_FILENAME", "/srv/app.php"],
    ["DOCUMENT_ROOT", "/srv"],
    ["PATH_TRANSLATED", "/srv/x y"],
    ["SERVER_NAME", "example.org"],
    ["SERVER_PORT", "8080"],
    ["REMOTE_ADDR", "192.0.2.1"],
    ["REMOTE_PORT", "5000"],
    ["CONTENT_TYPE", "text/plain"],
    ["HTTP_ACCEPT", "*/*"],
    ["HTTP_X_TWO_WORDS", "yes"],
    ["HTTP_HOST", "example.org:8080"],
  ]);
});

Deno.test("createVariables() leaves out unknown values, except an empty CONTENT_LENGTH", () => {
  const variables = create("http://example.org/");
  assertEquals(Object.keys(variables), [
    "CONTENT_LENGTH",
    "GATEWAY_INTERFACE",
    "SERVER_PROTOCOL",
    "SERVER_SOFTWARE",
    "REQUEST_METHOD",
    "REQUEST_SCHEME",
    "REQUEST_URI",
    "QUERY_STRING",
    "SCRIPT_NAME",
    "PATH_INFO",
    "SERVER_NAME",
    "SERVER_PORT",
    "HTTP_HOST",
  ]);
  assertEquals(variables.CONTENT_LENGTH, "");
  assertEquals(create("http://example.org/", {}, { contentLength: 0 }).CONTENT_LENGTH, "0");
});

Deno.test("createVariables() reads scheme, name and port from the URL", () => {
  const names = ["HTTPS", "REQUEST_SCHEME", "SERVER_NAME", "SERVER_PORT", "HTTP_HOST"];
  const urls: Record<string, (string | undefined)[]> = {
    "http://example.org/": [undefined, "http", "example.org", "80", "example.org"],
    "https://example.org/": ["on", "https", "example.org", "443", "example.org"],
    "https://example.org:8443/": ["on", "https", "example.org", "8443", "example.org:8443"],
    "http://example.org:443/": [undefined, "http", "example.org", "443", "example.org:443"],
    "http://[2001:db8::1]:81/": [undefined, "http", "2001:db8::1", "81", "[2001:db8::1]:81"],
    "http://münchen.example/": [
      undefined,
      "http",
      "xn--mnchen-3ya.example",
      "80",
      "xn--mnchen-3ya.example",
    ],
  };
  for (const [url, expected] of Object.entries(urls)) {
    assertEquals(pick(create(url), ...names), expected, url);
  }
});

Deno.test("createVariables() passes path and query on verbatim", () => {
  const urls: Record<string, [uri: string, query: string]> = {
    "http://a/": ["/", ""],
    "http://a": ["/", ""],
    "http://a/?": ["/?", ""],
    "http://a/x?y=1?z=2": ["/x?y=1?z=2", "y=1?z=2"],
    "http://a/caf%C3%A9%2Fx": ["/caf%C3%A9%2Fx", ""],
    "http://a/caf\u00e9?q=\u20ac": ["/caf%C3%A9?q=%E2%82%AC", "q=%E2%82%AC"],
    "http://a//b": ["//b", ""],
    "http://a/x#fragment": ["/x", ""],
    "http://a/x?y#z?#": ["/x?y", "y"],
    "http://a/%23?%23": ["/%23?%23", "%23"],
  };
  for (const [url, expected] of Object.entries(urls)) {
    assertEquals(pick(create(url), "REQUEST_URI", "QUERY_STRING"), expected, url);
  }
});

Deno.test("createVariables() turns headers into HTTP_ variables", () => {
  const headers = new Headers([
    ["x-tag", "one"],
    ["X-Tag", "two"],
    ["Cookie", "a=1; b=2"],
    ["X-Bytes", "caf\xe9"],
    ["X-Empty", ""],
    ["Host", "EXAMPLE.org"],
    ["Authorization", "Basic dTpw"],
  ]);
  const variables = create("http://example.org/", { headers });
  assertEquals(
    pick(variables, "HTTP_X_TAG", "HTTP_COOKIE", "HTTP_X_BYTES", "HTTP_X_EMPTY"),
    ["one, two", "a=1; b=2", "caf\xe9", ""],
  );
  assertEquals(pick(variables, "HTTP_HOST", "SERVER_NAME"), ["EXAMPLE.org", "example.org"]);
  assertEquals(variables.HTTP_AUTHORIZATION, "Basic dTpw");
  const without = create("http://example.org/", { headers }, { dropAuthorization: true });
  assertEquals(without.HTTP_AUTHORIZATION, undefined);
  assertEquals(Object.keys(without).length, Object.keys(variables).length - 1);
});

Deno.test("createVariables() drops headers of the connection, and harmful ones", () => {
  const headers = {
    Proxy: "http://evil.example",
    Connection: "keep-alive, x",
    "Keep-Alive": "timeout=5",
    "Proxy-Connection": "close",
    TE: "trailers",
    Trailer: "X",
    "Transfer-Encoding": "chunked",
    Upgrade: "h2c",
    "Content-Length": "7",
    "Content-Type": "text/css",
    X_Forwarded_For: "192.0.2.66",
  };
  const variables = create("http://example.org/", { headers });
  const names = Object.keys(variables).filter((name) => name.startsWith("HTTP_"));
  assertEquals(names, ["HTTP_HOST"]);
  assertEquals(pick(variables, "CONTENT_LENGTH", "CONTENT_TYPE"), ["", "text/css"]);
});

Deno.test("createVariables() replaces its variables by those of the option", () => {
  const variables = create("http://example.org/x", { headers: { "X-A": "client" } }, {
    contentLength: 1,
    scriptName: "/x",
    variables: {
      SCRIPT_NAME: "",
      HTTP_X_A: "mine",
      HTTP_HOST: "inner.example",
      CONTENT_LENGTH: "2",
      MY_NAME: "José",
      ["__proto__"]: "harmless",
    },
  });
  const names = ["SCRIPT_NAME", "HTTP_X_A", "HTTP_HOST", "CONTENT_LENGTH"];
  assertEquals(pick(variables, ...names), ["", "mine", "inner.example", "2"]);
  assertEquals(variables.MY_NAME, byteString("José"));
  assert(Object.hasOwn(variables, "__proto__"));
});

Deno.test("createVariables() encodes text as UTF-8, and byte strings unchanged", () => {
  const variables = create("http://example.org/", {}, {
    scriptName: "/caf\xe9",
    pathInfo: byteString("/é"),
    scriptFilename: "/srv/café.php",
    documentRoot: "/srv/é",
  });
  assertEquals(
    pick(variables, "SCRIPT_NAME", "PATH_INFO", "SCRIPT_FILENAME", "DOCUMENT_ROOT"),
    ["/caf\xe9", byteString("/é"), byteString("/srv/café.php"), byteString("/srv/é")],
  );
  assertEquals(variables.PATH_TRANSLATED, byteString("/srv/é/é"));
});

Deno.test("createVariables() translates a path only with a document root and path info", () => {
  const translated = (options: Partial<VariableOptions>) =>
    create("http://a/", {}, options).PATH_TRANSLATED;
  assertEquals(translated({ documentRoot: "/srv", pathInfo: "" }), undefined);
  assertEquals(translated({ pathInfo: "/x" }), undefined);
  assertEquals(translated({ documentRoot: "/srv", pathInfo: "/x" }), "/srv/x");
});

Deno.test("createVariables() leaves out the client's address over a Unix socket", () => {
  const variables = create("http://example.org/", {}, {
    remoteAddr: { transport: "unix", path: "/run/app.sock" },
    serverProtocol: "HTTP/2.0",
    serverSoftware: "Other/1.0",
  });
  assertEquals(pick(variables, "REMOTE_ADDR", "REMOTE_PORT"), [undefined, undefined]);
  assertEquals(pick(variables, "SERVER_PROTOCOL", "SERVER_SOFTWARE"), ["HTTP/2.0", "Other/1.0"]);
});

Deno.test("a request survives the round trip through its variables", async () => {
  const name = fc.stringMatching(/^x-[a-z0-9]{1,8}(-[a-z0-9]{1,4})?$/);
  const value = fc.stringMatching(
    /^[!-~\u00a1-\u00ff]([ -~\u00a1-\u00ff]{0,20}[!-~\u00a1-\u00ff])?$/,
  );
  const one = fc.record({
    url: fc.webUrl({ withQueryParameters: true, validSchemes: ["http", "https"] }),
    method: fc.constantFrom("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "PROPFIND"),
    headers: fc.dictionary(name, value, { maxKeys: 5 }),
  });
  await fc.assert(
    fc.asyncProperty(one, async ({ url, method, headers }) => {
      const request = new Request(url, { method, headers });
      const { pathname } = new URL(request.url);
      const variables = createVariables(request, { pathInfo: decodePercent(pathname) });
      let seen: unknown;
      await serveOne((request) => {
        const headers = new Headers(request.headers);
        headers.delete("host");
        seen = [request.url, request.method, [...headers]];
        return new Response();
      }, { variables });
      assertEquals(seen, [request.url, method, [...request.headers]]);
    }),
    { numRuns: 200 },
  );
});

Deno.test("only header names of letters, digits and hyphens become variables (rule A24)", () => {
  const fields = ["x-a1", "x.forwarded.for", "x_forwarded_for", "x!a", "x'a", "x~a", "x|a", "x+a"];
  const headers = fields.map((name): [string, string] => [name, "evil"]);
  const request = new Request("http://localhost/", { headers });
  const names = createVariables(request, { pathInfo: "/" }).map(([name]) => name)
    .filter((name) => name.startsWith("HTTP_X"));
  assertEquals(names, ["HTTP_X_A1"]);
});

Deno.test("HTTP_HOST is the URL's host where Host is another one (rule A11)", () => {
  const cases: [url: string, host: string, seen: string][] = [
    ["http://target.example/", "other.example:8443", "target.example"],
    ["http://target.example:81/", "target.example", "target.example:81"],
    // The same host, as the client wrote it.
    ["http://target.example/", "Target.Example:80", "Target.Example:80"],
    ["https://target.example/", "target.example:443", "target.example:443"],
    ["http://[::1]:81/", "[0::1]:81", "[0::1]:81"],
    // A request over a Unix socket.
    ["http+unix://%2Frun%2Fsocket/", "target.example", "target.example"],
  ];
  for (const [url, host, seen] of cases) {
    assertEquals(create(url, { headers: { host } }).HTTP_HOST, seen, `${url} ${host}`);
  }
});
