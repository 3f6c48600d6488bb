import { assertEquals, assertInstanceOf, assertStringIncludes, assertThrows } from "@std/assert";
import fc from "fast-check";
import type { AppOptions, HandlerInfo } from "../../bridge/app.ts";
import { mountPrefix, requestHref, requestURL } from "../../bridge/request.ts";
import { checkRequestOptions } from "../../server/exchange.ts";
import { Variables } from "../../wire/variables.ts";
import { bytes, text } from "../testing/bytes.ts";
import { run } from "../testing/cgi_script.ts";
import { serveOne } from "../testing/fastcgi_client.ts";
import type { Pairs } from "../testing/fastcgi_records.ts";

/** Returns what an app sees of variables, or the status if the app is not called. */
async function seen<T>(
  pairs: Record<string, string> | Pairs,
  look: (request: Request, info: HandlerInfo) => T | Promise<T>,
  options: AppOptions = {},
  body?: Uint8Array,
): Promise<T | number> {
  let result: T | undefined;
  const response = await serveOne(
    async (request, info) => {
      result = await look(request, info);
      return new Response(null, { status: 204 });
    },
    { variables: pairs, body },
    options,
  );
  return response.status === 204 ? result! : response.status!;
}

const urlOf = (pairs: Record<string, string> | Pairs, options?: AppOptions) =>
  seen(pairs, (request) => request.url, options);

type URLCase = [Record<string, string>, string | number, AppOptions?];

/** Removes HTTP_HOST, which is present otherwise. */
const noHost = { HTTP_HOST: "" };

const URLS: Record<string, URLCase[]> = {
  "scheme (rule A7)": [
    [{}, "http://example.org/"],
    [{ HTTPS: "on" }, "https://example.org/"],
    [{ HTTPS: "1" }, "https://example.org/"],
    [{ HTTPS: "" }, "http://example.org/"],
    [{ HTTPS: "off" }, "http://example.org/"],
    [{ HTTPS: "OFF" }, "http://example.org/"],
    [{ HTTPS: "0" }, "http://example.org/"],
    [{ REQUEST_SCHEME: "https" }, "https://example.org/"],
    [{ REQUEST_SCHEME: "http", HTTPS: "on" }, "https://example.org/"],
    [{ HTTPS: "off", REQUEST_SCHEME: "https" }, "https://example.org/"],
    [{ SERVER_PORT: "443" }, "http://example.org/"],
  ],
  "forwarded scheme and host, by option only (rule A7)": [
    [{ HTTP_X_FORWARDED_PROTO: "https" }, "http://example.org/"],
    [{ HTTP_X_FORWARDED_HOST: "evil.example" }, "http://example.org/"],
    [{ HTTP_X_FORWARDED_PROTO: "https" }, "https://example.org/", { trustForwarded: true }],
    [{ HTTP_X_FORWARDED_PROTO: "http", HTTPS: "on" }, "http://example.org/", {
      trustForwarded: true,
    }],
    [{ HTTP_X_FORWARDED_HOST: "www.example:8080" }, "http://www.example:8080/", {
      trustForwarded: true,
    }],
    [{ HTTP_X_FORWARDED_HOST: "a b" }, 400, { trustForwarded: true }],
    // Apache appends to what the client sent.
    [{ HTTP_X_FORWARDED_HOST: "evil.example, www.example" }, "http://www.example/", {
      trustForwarded: true,
    }],
    [{ HTTP_X_FORWARDED_HOST: "www.example, a b" }, 400, { trustForwarded: true }],
    [{ HTTP_X_FORWARDED_HOST: "www.example, " }, "http://example.org/", { trustForwarded: true }],
    [{ HTTP_X_FORWARDED_PROTO: "https, http" }, "http://example.org/", { trustForwarded: true }],
    [{ HTTP_X_FORWARDED_PROTO: "http,HTTPS" }, "https://example.org/", { trustForwarded: true }],
    [
      { REQUEST_URI: "http://a.example/", HTTP_X_FORWARDED_HOST: "www.example" },
      "http://www.example/",
      { trustForwarded: true },
    ],
    [{}, "http://example.org/", { trustForwarded: true }],
  ],
  "Forwarded, by option only (rule A7)": [
    [{ HTTP_FORWARDED: "proto=https;host=evil.example" }, "http://example.org/"],
    ...([
      ["proto=https;host=www.example", "https://www.example/"],
      ["Proto=HTTPS ; HOST=www.example", "https://www.example/"],
      ['proto="https";host="www.example:8080"', "https://www.example:8080/"],
      ["host=www.example:8080", "http://www.example:8080/"],
      [String.raw`host="www\.example"`, "http://www.example/"],
      ["for=1.2.3.4;host=evil.example, for=1.2.3.4;host=www.example", "http://www.example/"],
      ["host=evil.example, for=1.2.3.4", "http://example.org/"],
      ['for="a, b;host=evil.example";host=www.example', "http://www.example/"],
      ["host=www.example,, ,", "http://www.example/"],
      ["for=1.2.3.4", "http://example.org/"],
      [",", "http://example.org/"],
      // An open quote would hide what the proxy has appended.
      ['for="a, host=www.example', 400],
      ['host=a", host=www.example', 400],
      ["host=evil.example;host=www.example", 400],
      ["host=a b", 400],
      ['host="a b"', 400],
      ["www.example", 400],
      ["host=", 400],
      ['host="a"b', 400],
    ] as const).map(([HTTP_FORWARDED, url]): URLCase => [
      { HTTP_FORWARDED },
      url,
      { trustForwarded: true },
    ]),
    // A proxy that sets X-Forwarded-* may let a client's Forwarded pass.
    [
      { HTTP_FORWARDED: "host=evil.example;proto=https", HTTP_X_FORWARDED_FOR: "1.2.3.4" },
      "http://example.org/",
      { trustForwarded: true },
    ],
    [
      { HTTP_FORWARDED: 'host="', HTTP_X_FORWARDED_PROTO: "https" },
      "https://example.org/",
      { trustForwarded: true },
    ],
  ],
  "authority of Host (rule A8)": [
    [{ HTTP_HOST: "example.org:8080" }, "http://example.org:8080/"],
    [{ HTTP_HOST: "example.org", SERVER_PORT: "8080" }, "http://example.org/"],
    [{ HTTP_HOST: "example.org", SERVER_NAME: "other" }, "http://example.org/"],
    [{ HTTP_HOST: "example.org:80" }, "http://example.org/"],
    [{ HTTP_HOST: "EXAMPLE.org" }, "http://example.org/"],
    [{ HTTP_HOST: "[::1]:8080" }, "http://[::1]:8080/"],
    [{ HTTP_HOST: "my_host" }, "http://my_host/"],
  ],
  "authority of SERVER_NAME (rules A8, A9)": [
    [{ ...noHost }, "http://localhost/"],
    [{ ...noHost, SERVER_NAME: "" }, "http://localhost/"],
    [{ ...noHost, SERVER_NAME: "_" }, "http://localhost/"],
    [{ ...noHost, SERVER_NAME: "a.example" }, "http://a.example/"],
    [{ ...noHost, SERVER_NAME: "a.example", SERVER_PORT: "80" }, "http://a.example/"],
    [{ ...noHost, SERVER_NAME: "a.example", SERVER_PORT: "8080" }, "http://a.example:8080/"],
    [
      { ...noHost, SERVER_NAME: "a.example", SERVER_PORT: "443", HTTPS: "on" },
      "https://a.example/",
    ],
    [
      { ...noHost, SERVER_NAME: "a.example", SERVER_PORT: "80", HTTPS: "on" },
      "https://a.example:80/",
    ],
    [{ ...noHost, SERVER_NAME: "::1", SERVER_PORT: "8080" }, "http://[::1]:8080/"],
    [{ ...noHost, SERVER_NAME: "[::1]", SERVER_PORT: "8080" }, "http://[::1]:8080/"],
    [{ ...noHost, SERVER_NAME: "a.example:8080", SERVER_PORT: "8080" }, "http://a.example:8080/"],
    [{ ...noHost, SERVER_NAME: "a.example", SERVER_PORT: "x" }, "http://a.example/"],
    [{ ...noHost, SERVER_NAME: "a.example", SERVER_PORT: "99999" }, "http://localhost/"],
    [{ ...noHost, SERVER_NAME: "~^www\\d+$" }, "http://localhost/"],
  ],
  "an invalid Host is rejected (rule A8)": [
    [{ HTTP_HOST: "a b" }, 400],
    [{ HTTP_HOST: "a/b" }, 400],
    [{ HTTP_HOST: "user@a" }, 400],
    [{ HTTP_HOST: "a?b" }, 400],
    [{ HTTP_HOST: "a#b" }, 400],
    [{ HTTP_HOST: "a\\b" }, 400],
    [{ HTTP_HOST: "a:port" }, 400],
    [{ HTTP_HOST: "a:99999" }, 400],
    [{ HTTP_HOST: "[::1" }, 400],
    [{ HTTP_HOST: "a,b" }, "http://a,b/"],
    [{ HTTP_HOST: "caf\xe9" }, 400],
    [{ HTTP_HOST: "1.2.3.999" }, 400],
    [{ HTTP_HOST: "a\tb" }, 400],
  ],
  "REQUEST_URI is used verbatim (rule A10)": [
    [{ REQUEST_URI: "/a/b?c=d&e" }, "http://example.org/a/b?c=d&e"],
    [{ REQUEST_URI: "/a?" }, "http://example.org/a?"],
    [{ REQUEST_URI: "/caf%C3%A9%2Fx?q=a+b" }, "http://example.org/caf%C3%A9%2Fx?q=a+b"],
    [{ REQUEST_URI: "/%FF" }, "http://example.org/%FF"],
    [{ REQUEST_URI: "/%zz%" }, "http://example.org/%zz%"],
    [{ REQUEST_URI: "//evil.example/x" }, "http://example.org//evil.example/x"],
    [{ REQUEST_URI: "///x//y" }, "http://example.org///x//y"],
    [{ REQUEST_URI: "/@evil.example:99/" }, "http://example.org/@evil.example:99/"],
    [{ REQUEST_URI: "/a", SCRIPT_NAME: "/x", PATH_INFO: "/y" }, "http://example.org/a"],
  ],
  "QUERY_STRING is the query (rule A10)": [
    [
      { REQUEST_URI: "/a?b=%20c&d+e", QUERY_STRING: "b=%20c&d+e" },
      "http://example.org/a?b=%20c&d+e",
    ],
    [{ REQUEST_URI: "/a%3Fb?c", QUERY_STRING: "c" }, "http://example.org/a%3Fb?c"],
    // webfs decodes it.
    [{ REQUEST_URI: "/a?b=%20c&d+e", QUERY_STRING: "b= c&d e" }, "http://example.org/a?b=%20c&d+e"],
    [{ REQUEST_URI: "/a?b=%20c&d+e", QUERY_STRING: "b= c&d+e" }, "http://example.org/a?b=%20c&d+e"],
    [{ REQUEST_URI: "/a?b=%26c", QUERY_STRING: "b=&c" }, "http://example.org/a?b=%26c"],
    // Tomcat's CGIServlet and CivetWeb leave it out of REQUEST_URI.
    [{ REQUEST_URI: "/a", QUERY_STRING: "b=c" }, "http://example.org/a?b=c"],
    [{ REQUEST_URI: "http://example.org/a", QUERY_STRING: "b=c" }, "http://example.org/a?b=c"],
    // A rewritten query counts, but not one that was removed.
    [{ REQUEST_URI: "/a?old", QUERY_STRING: "new=1&old" }, "http://example.org/a?new=1&old"],
    [{ REQUEST_URI: "/a?", QUERY_STRING: "new" }, "http://example.org/a?new"],
    [{ REQUEST_URI: "/a?old", QUERY_STRING: "" }, "http://example.org/a?old"],
    [{ REQUEST_URI: "/a?old", QUERY_STRING: "b#c d\n" }, "http://example.org/a?b%23c%20d%0A"],
    [{ REQUEST_URI: "/a?b?c", QUERY_STRING: "b?c" }, "http://example.org/a?b?c"],
    [{ REQUEST_URI: "/a?b", QUERY_STRING: "a?b" }, "http://example.org/a?a?b"],
  ],
  "a decoded REQUEST_URI is not used (rule A13)": [
    ...[["busybox httpd/1.35.0", "?x=%20y"], ["CivetWeb/1.15", ""]].flatMap((
      [SERVER_SOFTWARE, query],
    ): URLCase[] => {
      const get = { SERVER_SOFTWARE, SCRIPT_NAME: "/s", QUERY_STRING: "x=%20y" };
      return [
        [
          { ...get, PATH_INFO: "/a?b c", REQUEST_URI: `/s/a?b c${query}` },
          "http://example.org/s/a%3Fb%20c?x=%20y",
        ],
        [
          { ...get, PATH_INFO: "/a%20b", REQUEST_URI: `/s/a%20b${query}` },
          "http://example.org/s/a%2520b?x=%20y",
        ],
        [
          { ...get, PATH_INFO: "/a?b", QUERY_STRING: "", REQUEST_URI: "/s/a?b" },
          "http://example.org/s/a%3Fb",
        ],
        [
          { ...get, PATH_INFO: "/a;b", QUERY_STRING: "", REQUEST_URI: "/s/a;b" },
          "http://example.org/s/a%3Bb",
        ],
      ];
    }),
    [
      { SERVER_SOFTWARE: "other/1.0", PATH_INFO: "/a", REQUEST_URI: "/s/a%20b" },
      "http://example.org/s/a%20b",
    ],
  ],
  "dots are resolved, slashes not merged (rule A14)": [
    [{ REQUEST_URI: "/a/./b/../c//d" }, "http://example.org/a/c//d"],
    [{ REQUEST_URI: "/a/%2e%2E/b" }, "http://example.org/b"],
    [{ REQUEST_URI: "/../../x" }, "http://example.org/x"],
  ],
  "absolute-form REQUEST_URI (rule A11)": [
    [{ REQUEST_URI: "http://a.example:99/t?u" }, "http://a.example:99/t?u"],
    [{ REQUEST_URI: "HTTP://A.example" }, "http://a.example/"],
    [{ REQUEST_URI: "https://a.example?q" }, "http://a.example/?q"],
    [{ REQUEST_URI: "http://a.example//x" }, "http://a.example//x"],
    [{ REQUEST_URI: "http://[::1]:99/x" }, "http://[::1]:99/x"],
    [{ REQUEST_URI: "http://a.example/x", ...noHost }, "http://a.example/x"],
    [{ REQUEST_URI: "http://a.example/x", HTTP_HOST: "a b" }, "http://a.example/x"],
    [{ REQUEST_URI: "http://user:pass@a.example/" }, 400],
    [{ REQUEST_URI: "http:///x" }, 400],
    [{ REQUEST_URI: "http://a.example\\@b/x" }, 400],
    [{ REQUEST_URI: "*" }, 400],
    [{ REQUEST_URI: "example.org:443" }, 400],
    [{ REQUEST_URI: "a/b" }, 400],
    [{ REQUEST_URI: "?q" }, 400],
    [{ REQUEST_URI: " /a" }, 400],
  ],
  "characters that URL would drop or change (rule A12)": [
    [{ REQUEST_URI: "/a\tb\nc\rd" }, "http://example.org/a%09b%0Ac%0Dd"],
    [{ REQUEST_URI: "/a\\b" }, "http://example.org/a%5Cb"],
    [{ REQUEST_URI: "/\\evil.example" }, "http://example.org/%5Cevil.example"],
    [{ REQUEST_URI: "/a b" }, "http://example.org/a%20b"],
    [{ REQUEST_URI: "/a#b?c#d" }, "http://example.org/a%23b?c%23d"],
    [{ REQUEST_URI: '/"<>^`{|}' }, "http://example.org/%22%3C%3E%5E%60%7B%7C%7D"],
    [{ REQUEST_URI: "/caf\xc3\xa9?\xff" }, "http://example.org/caf%C3%A9?%FF"],
    [{ REQUEST_URI: "/a\0b\x7f" }, "http://example.org/a%00b%7F"],
    [{ REQUEST_URI: "/ " }, "http://example.org/%20"],
    [{ REQUEST_URI: "/?a='b'" }, "http://example.org/?a=%27b%27"],
    [{ REQUEST_URI: "/~!$&'()*+,;=:@-._[]" }, "http://example.org/~!$&'()*+,;=:@-._[]"],
  ],
  "no REQUEST_URI (rule A13)": [
    [{ REQUEST_URI: "" }, "http://example.org/"],
    [{ REQUEST_URI: "", SCRIPT_NAME: "/s", PATH_INFO: "/p" }, "http://example.org/s/p"],
    [
      { REQUEST_URI: "", SCRIPT_NAME: "/s", PATH_INFO: "/p", QUERY_STRING: "a=b&c" },
      "http://example.org/s/p?a=b&c",
    ],
    [
      { REQUEST_URI: "", PATH_INFO: "/100%/a?b#c;d=e/caf\xc3\xa9 \xff" },
      "http://example.org/100%25/a%3Fb%23c%3Bd%3De/caf%C3%A9%20%FF",
    ],
    [{ REQUEST_URI: "", PATH_INFO: "/a~!$&'()*+,:@-._" }, "http://example.org/a~!$&'()*+,:@-._"],
    [{ REQUEST_URI: "", PATH_INFO: "//evil.example" }, "http://example.org//evil.example"],
    [{ REQUEST_URI: "", PATH_INFO: "/a\\b" }, "http://example.org/a%5Cb"],
    [{ REQUEST_URI: "", PATH_INFO: "x" }, "http://example.org/x"],
    [{ REQUEST_URI: "", PATH_INFO: "/a", QUERY_STRING: "b#c d" }, "http://example.org/a?b%23c%20d"],
    [
      {
        REQUEST_URI: "",
        SCRIPT_NAME: "/s?a=b",
        QUERY_STRING: "a=b",
        SERVER_SOFTWARE: "inets/8.2.2",
      },
      "http://example.org/s?a=b",
    ],
    [
      { REQUEST_URI: "", SCRIPT_NAME: "/s?a=b", QUERY_STRING: "a=b" },
      "http://example.org/s%3Fa%3Db?a=b",
    ],
  ],
};

for (const [name, cases] of Object.entries(URLS)) {
  Deno.test(`request.url: ${name}`, async () => {
    for (const [pairs, url, options] of cases) {
      assertEquals(await urlOf(pairs, options), url, JSON.stringify(pairs));
    }
  });
}

Deno.test("request.url keeps any host and every byte of the target", async () => {
  const target = fc.uint8Array({ maxLength: 30 }).map((array) => "/" + text(array));
  await fc.assert(
    fc.asyncProperty(target, async (uri) => {
      const href = await urlOf({ REQUEST_URI: uri });
      const url = new URL(href as string);
      assertEquals([url.host, url.hash, url.username], ["example.org", "", ""]);
      const decode = (text: string) =>
        text.replace(/%([0-9A-F]{2})/gi, (_, hex) => String.fromCharCode(parseInt(hex, 16)));
      // Dots are resolved; the rest is unchanged.
      if (!/\.|%/.test(uri)) assertEquals(decode(url.href.slice(18)), uri);
    }),
    { numRuns: 300 },
  );
});

Deno.test("request.url has the host as URL normalizes it", async () => {
  const host = fc.oneof(
    fc.string({ unit: fc.constantFrom(..."abxn-.019"), minLength: 1, maxLength: 8 }),
    fc.constantFrom("xn--a", "a.xn--ls8h", "0x7f.1", "1.2", "a.1", "localhost", "EXAMPLE.org"),
  );
  const port = fc.constantFrom("", ":80", ":443", ":8080", ":0080", ":99999", ":");
  await fc.assert(
    fc.asyncProperty(host, port, async (host, port) => {
      const url = `http://${host}${port}/`;
      const expected = URL.canParse(url) ? new URL(url).href : 400;
      assertEquals(await urlOf({ HTTP_HOST: host + port, REQUEST_URI: "/" }), expected);
    }),
    { numRuns: 500 },
  );
});

type MountCase = [
  server: string,
  variables: Record<string, string>,
  scriptName: string,
  pathInfo: string,
];

/** What servers send for `/t/a` if the app is mounted at `/t` (rule A16). */
const MOUNTS: MountCase[] = [
  [
    "nginx, SCRIPT_NAME and PATH_INFO set",
    {
      REQUEST_URI: "/t/a",
      SCRIPT_NAME: "/t",
      PATH_INFO: "/a",
    },
    "/t",
    "/a",
  ],
  [
    "nginx, stock",
    { REQUEST_URI: "/t/a", SCRIPT_NAME: "/t/a", SCRIPT_FILENAME: "/srv/t/a" },
    "",
    "/t/a",
  ],
  [
    "nginx, SCRIPT_NAME emptied",
    {
      REQUEST_URI: "/t/a",
      SCRIPT_NAME: "",
      PATH_INFO: "/t/a",
    },
    "",
    "/t/a",
  ],
  [
    "mod_proxy_fcgi",
    {
      REQUEST_URI: "/t/a",
      SCRIPT_NAME: "/t/a",
      SCRIPT_FILENAME: "proxy:fcgi://127.0.0.1:9000/t/a",
    },
    "",
    "/t/a",
  ],
  ...[
    "fcgi://127.0.0.1:9000",
    "fcgi://localhost",
    "unix:/run/a.sock|fcgi://localhost",
    "scgi://[::1]:4000",
  ].map(
    (backend): MountCase => [
      `mod_proxy as the handler of a Location, ${backend}`,
      {
        REQUEST_URI: "/t/a",
        SCRIPT_NAME: "/t",
        PATH_INFO: "/a",
        SCRIPT_FILENAME: `proxy:${backend}/srv/www/t`,
      },
      "",
      "/t/a",
    ],
  ),
  [
    "mod_cgi, lighttpd, mod_fcgid scripts",
    {
      REQUEST_URI: "/t/a?q=/t",
      SCRIPT_NAME: "/t",
      PATH_INFO: "/a",
    },
    "/t",
    "/a",
  ],
  [
    "mod_fcgid, virtual",
    {
      REQUEST_URI: "/app/x/y",
      SCRIPT_NAME: "/app/x",
      PATH_INFO: "/y",
    },
    "/app/x",
    "/y",
  ],
  [
    "lighttpd, key / without fix-root-scriptname",
    {
      REQUEST_URI: "/t/a",
      SCRIPT_NAME: "/",
      PATH_INFO: "t/a",
    },
    "",
    "/t/a",
  ],
  ["Caddy, h2o", { REQUEST_URI: "/t/a", SCRIPT_NAME: "", PATH_INFO: "/t/a" }, "", "/t/a"],
  [
    "Caddy, handle_path with SCRIPT_NAME",
    {
      REQUEST_URI: "/t/a",
      SCRIPT_NAME: "/t",
      PATH_INFO: "/a",
    },
    "/t",
    "/a",
  ],
  [
    "HAProxy",
    {
      REQUEST_URI: "/t/a",
      SCRIPT_NAME: "/t/a",
      SCRIPT_FILENAME: "/srv/t/a",
    },
    "",
    "/t/a",
  ],
  ...["Microsoft-IIS/10.0", "Caddy/v2.6.2"].flatMap((SERVER_SOFTWARE): MountCase[] => {
    const repeated = (path: string) => ({
      SERVER_SOFTWARE,
      REQUEST_URI: path,
      SCRIPT_NAME: "/t",
      PATH_INFO: path,
    });
    return [
      [`${SERVER_SOFTWARE}, SCRIPT_NAME repeated`, repeated("/t/a"), "/t", "/a"],
      [`${SERVER_SOFTWARE}, a path like it`, repeated("/tea"), "", "/tea"],
      [`${SERVER_SOFTWARE}, both the same`, repeated("/t"), "", "/t"],
      [
        `${SERVER_SOFTWARE}, a rest like SCRIPT_NAME`,
        { ...repeated("/t/t/a"), PATH_INFO: "/t/a" },
        "/t",
        "/t/a",
      ],
    ];
  }),
  [
    "SCRIPT_NAME repeated by another server",
    { REQUEST_URI: "/t/a", SCRIPT_NAME: "/t", PATH_INFO: "/t/a" },
    "",
    "/t/a",
  ],
  [
    "nginx, SCRIPT_NAME and PATH_INFO the same",
    {
      SERVER_SOFTWARE: "nginx/1.22.1",
      REQUEST_URI: "/t/a",
      SCRIPT_NAME: "/t/a",
      PATH_INFO: "/t/a",
    },
    "",
    "/t/a",
  ],
  ["the mount itself", { REQUEST_URI: "/t", SCRIPT_NAME: "/t", PATH_INFO: "" }, "", "/t"],
  ["the mount with a slash", { REQUEST_URI: "/t/", SCRIPT_NAME: "/t", PATH_INFO: "/" }, "/t", "/"],
  [
    "not at a segment's boundary",
    {
      REQUEST_URI: "/tea",
      SCRIPT_NAME: "/t",
      PATH_INFO: "ea",
    },
    "",
    "/tea",
  ],
  ["another path", { REQUEST_URI: "/u/a", SCRIPT_NAME: "/t", PATH_INFO: "/a" }, "", "/u/a"],
  ["a rewritten path", { REQUEST_URI: "/t/a", SCRIPT_NAME: "/t", PATH_INFO: "/b" }, "", "/t/a"],
  [
    "an encoded mount",
    {
      REQUEST_URI: "/caf%C3%A9%20x/a%20b",
      SCRIPT_NAME: "/caf\xc3\xa9 x",
      PATH_INFO: "/a b",
    },
    "/café x",
    "/a b",
  ],
  [
    "merged slashes (rule A14)",
    {
      REQUEST_URI: "/t/a//b",
      SCRIPT_NAME: "/t",
      PATH_INFO: "/a/b",
    },
    "/t",
    "/a//b",
  ],
  [
    "resolved dots (rule A14)",
    {
      REQUEST_URI: "/t/x/../a",
      SCRIPT_NAME: "/t",
      PATH_INFO: "/a",
    },
    "/t",
    "/a",
  ],
  [
    "a decoded slash (rule A15)",
    {
      REQUEST_URI: "/t/a%2Fb",
      SCRIPT_NAME: "/t",
      PATH_INFO: "/a/b",
    },
    "/t",
    "/a/b",
  ],
  [
    "a slash that Apache leaves encoded (rule A15)",
    {
      REQUEST_URI: "/t/a%2Fb%25",
      SCRIPT_NAME: "/t",
      PATH_INFO: "/a%2Fb%",
    },
    "/t",
    "/a/b%",
  ],
  ["no REQUEST_URI", { REQUEST_URI: "", SCRIPT_NAME: "/t", PATH_INFO: "/a" }, "/t", "/a"],
  [
    "busybox",
    {
      SERVER_SOFTWARE: "busybox httpd/1.35.0",
      REQUEST_URI: "/t/a?b",
      SCRIPT_NAME: "/t",
      PATH_INFO: "/a?b",
    },
    "/t",
    "/a?b",
  ],
];

Deno.test('info.scriptName and pathInfo are what web server and URL agree on; "auto" removes the mount prefix (rules A16, A17)', async () => {
  for (const [server, pairs, scriptName, pathInfo] of MOUNTS) {
    const split = await seen(pairs, (_request, info) => [info.scriptName, info.pathInfo]);
    assertEquals(split, [scriptName, pathInfo], server);
    const moved = await urlOf(pairs, { basePath: "auto" }) as string;
    const kept = await urlOf(pairs) as string;
    const prefix = scriptName === "" ? "" : new URL(scriptName, "http://example.org").pathname;
    assertEquals(moved, kept.replace(`http://example.org${prefix}`, "http://example.org"), server);
  }
});

Deno.test("info.scriptName is the mount prefix if SCRIPT_FILENAME is the program (rule A17)", async () => {
  const program = decodeURIComponent(new URL(Deno.mainModule).pathname);
  const pairs = { REQUEST_URI: "/t?q", SCRIPT_NAME: "/t", SCRIPT_FILENAME: program };
  assertEquals(await seen(pairs, (_, info) => [info.scriptName, info.pathInfo]), ["/t", ""]);
  assertEquals(await urlOf(pairs, { basePath: "auto" }), "http://example.org/?q");
  const proxied = {
    REQUEST_URI: "/t/a?q",
    SCRIPT_NAME: "/t",
    PATH_INFO: "/a",
    SCRIPT_FILENAME: `proxy:fcgi://127.0.0.1:9000${program}`,
  };
  assertEquals(await seen(proxied, (_, info) => [info.scriptName, info.pathInfo]), ["/t", "/a"]);
  const other = { ...pairs, SCRIPT_FILENAME: "/srv/t" };
  assertEquals(await seen(other, (_, info) => [info.scriptName, info.pathInfo]), ["", "/t"]);
});

Deno.test("mountPrefix() finds no mount prefix if the program is no file (rule A17)", () => {
  for (const file of [[], [["SCRIPT_FILENAME", "/srv/t"] as const]]) {
    const variables = new Variables([["SCRIPT_NAME", "/t"], ...file]);
    for (const protocol of ["fastcgi", "scgi"] as const) {
      assertEquals(mountPrefix(variables, "/t", protocol, undefined), "");
    }
  }
});

Deno.test("info.scriptName has the path of the context that Tomcat leaves out of SCRIPT_NAME (rule A17)", async () => {
  const split = (REQUEST_URI: string, PATH_INFO: string, SERVER_SOFTWARE = "TOMCAT") =>
    seen(
      { REQUEST_URI, PATH_INFO, SERVER_SOFTWARE, SCRIPT_NAME: "/cgi-bin/a.ts" },
      (_, info) => [info.scriptName, info.pathInfo],
    );
  const script = "/cgi-bin/a.ts";
  assertEquals(await split(`${script}/x`, "/x"), [script, "/x"]);
  assertEquals(await split(`/site${script}/x%20y`, "/x y"), [`/site${script}`, "/x y"]);
  assertEquals(await split(`/a/b${script}${script}/`, `${script}/`), [
    `/a/b${script}`,
    `${script}/`,
  ]);
  assertEquals(await split(`/site${script}/x`, "/y"), ["", `/site${script}/x`]);
  assertEquals(await split(`/site/${script.slice(2)}`, "/y"), ["", `/site/${script.slice(2)}`]);
  assertEquals(await split(`/site${script}/x`, "/x", "nginx/1.22.1"), ["", `/site${script}/x`]);
});

Deno.test("info.scriptName of a CGI script needs no PATH_INFO (rules A17, A18)", async () => {
  const split = async (env: Record<string, string>) => {
    let split;
    await run((_request, info) => {
      split = [info.scriptName, info.pathInfo];
      return new Response();
    }, env);
    return split;
  };
  const script = "/cgi-bin/a.ts";
  assertEquals(await split({ REQUEST_URI: script, SCRIPT_NAME: script }), [script, ""]);
  assertEquals(
    await split({ REQUEST_URI: `${script}/x`, SCRIPT_NAME: script, PATH_INFO: "/x" }),
    [script, "/x"],
  );
  // The environment has no PATH_INFO that is not UTF-8.
  assertEquals(await split({ REQUEST_URI: `${script}/%FF`, SCRIPT_NAME: script }), [
    script,
    "/\ufffd",
  ]);
  assertEquals(await split({ REQUEST_URI: "/other", SCRIPT_NAME: script }), ["", "/other"]);
});

Deno.test("basePath removes a path if the URL begins with it (rule A17)", async () => {
  const cases: [string, "" | `/${string}`, string, string, string][] = [
    ["/app/users?q", "/app", "/users?q", "/app", "/users"],
    ["/app", "/app", "/", "/app", ""],
    ["/app/", "/app", "/", "/app", "/"],
    ["/app/x", "/app/", "/x", "/app", "/x"],
    ["/apple", "/app", "/apple", "", "/apple"],
    ["/other/x", "/app", "/other/x", "", "/other/x"],
    ["/app/x", "/", "/app/x", "", "/app/x"],
    ["/app//x", "/app", "//x", "/app", "//x"],
    // Web servers compare decoded paths.
    ["/%61pp/x", "/app", "/x", "/app", "/x"],
    ["/the%20app/x", "/the app", "/x", "/the app", "/x"],
    ["/the%20app/x", "/the%20app/", "/x", "/the app", "/x"],
    ["/100%25/x", "/100%", "/x", "/100%", "/x"],
    ["/%C3%A9/x", "/é", "/x", "/é", "/x"],
    ["/app%2Fx", "/app", "/app%2Fx", "", "/app/x"],
    ["/app/x", "", "/app/x", "", "/app/x"],
  ];
  for (const [uri, basePath, path, scriptName, pathInfo] of cases) {
    const pairs = { REQUEST_URI: uri, SCRIPT_NAME: "/misleading", PATH_INFO: "/misleading" };
    const got = await seen(
      pairs,
      (request, info) => [request.url, info.scriptName, info.pathInfo],
      { basePath },
    );
    assertEquals(got, [`http://example.org${path}`, scriptName, pathInfo], uri);
  }
});

Deno.test("checkRequestOptions() rejects a basePath that could match no path", () => {
  for (const basePath of ["", "/", "/app", "auto", undefined] as const) {
    checkRequestOptions({ basePath });
  }
  for (const basePath of ["app", "app/", "Auto", " /app", 1]) {
    assertThrows(
      () => checkRequestOptions({ basePath: basePath as "auto" }),
      TypeError,
      `Cannot serve as basePath must be "auto" or a path such as "/app": current value is ${
        JSON.stringify(basePath)
      }`,
    );
  }
});

Deno.test("request.method is the method, normalized as by fetch (rule A5)", async () => {
  const methods: Record<string, string | number> = {
    GET: "GET",
    get: "GET",
    HEAD: "HEAD",
    POST: "POST",
    Delete: "DELETE",
    PATCH: "PATCH",
    patch: "patch",
    PROPFIND: "PROPFIND",
    "M-SEARCH": "M-SEARCH",
    "x!#$%&'*+-.^_`|~9": "x!#$%&'*+-.^_`|~9",
    CONNECT: 501,
    TRACE: 501,
    trace: 501,
    TRACK: 501,
    "": 500,
    "G T": 400,
    "GET\r\nX": 400,
    "G\xcbT": 400,
    "GET/": 400,
  };
  for (const [method, expected] of Object.entries(methods)) {
    assertEquals(
      await seen({ REQUEST_METHOD: method }, (request) => request.method),
      expected,
      method,
    );
  }
});

Deno.test("a request without a method gets 500, and the log says why (rule A2)", async () => {
  const response = await serveOne(() => new Response("called"), {
    variables: { REQUEST_METHOD: "" },
  });
  assertEquals(response.status, 500);
  assertEquals(text(response.body), "500 Internal Server Error\n");
  assertStringIncludes(
    response.stderr,
    "Cannot create request: REQUEST_METHOD is absent. In nginx one fastcgi_param in a location drops all inherited ones: include fastcgi_params there",
  );
});

Deno.test("a request needs neither GATEWAY_INTERFACE nor SERVER_PROTOCOL (rules A3, A4)", async () => {
  const pairs: Pairs = [["REQUEST_METHOD", "GET"], ["REQUEST_URI", ""], ["HTTP_HOST", ""]];
  assertEquals(await urlOf(pairs), "http://localhost/");
});

Deno.test("request.headers: host is that of an absolute target (rule A11)", async () => {
  const hostOf = (pairs: Record<string, string>) =>
    seen(pairs, (request) => request.headers.get("host"));
  assertEquals(await hostOf({ REQUEST_URI: "http://a.example:99/t" }), "a.example:99");
  assertEquals(await hostOf({ REQUEST_URI: "http://a.example?t", ...noHost }), "a.example");
  assertEquals(await hostOf({ REQUEST_URI: "/http://a.example/t" }), "example.org");
  assertEquals(await hostOf({ REQUEST_URI: "", PATH_INFO: "http://a.example/t" }), "example.org");
});

const headersOf = (pairs: Record<string, string> | Pairs, options?: AppOptions) =>
  seen(pairs, (request) => Object.fromEntries(request.headers), options);

Deno.test("request.headers: names are mapped, and those that are no tokens dropped (rule A24)", async () => {
  const headers = await headersOf([
    ["HTTP_ACCEPT_LANGUAGE", "en"],
    ["HTTP_X.DOT", "1"],
    ["HTTP_X Y", "no"],
    ["HTTP_X(Y)", "no"],
    ["HTTP_CAF\xc9", "no"],
    ["HTTP_", "no"],
    ["HTTPS", "no"],
    ["X_HTTP_A", "no"],
    ["HTTP_X_EMPTY", ""],
    ["HTTP___PROTO__", "p"],
    ["HTTP_X_BYTES", "caf\xe9\x80"],
  ]);
  assertEquals<unknown>(headers, {
    "--proto--": "p",
    "accept-language": "en",
    host: "example.org",
    "x-bytes": "caf\xe9\x80",
    "x-empty": "",
    "x.dot": "1",
  });
});

Deno.test("request.headers: an empty one that the web server invents is absent (rule A4)", async () => {
  const empty = { HTTP_ACCEPT: "", HTTP_COOKIE: "", HTTP_X_A: "1" };
  for (
    const [SERVER_SOFTWARE, headers] of Object.entries({
      "SimpleHTTP/0.6 Python/3.11.2": {},
      "fossil version 2.21 [3c53b6364e]": {},
      "nginx/1.22.1": { accept: "", cookie: "" },
    })
  ) {
    assertEquals<unknown>(
      await headersOf({ SERVER_SOFTWARE, ...empty }),
      { host: "example.org", "x-a": "1", ...headers },
      SERVER_SOFTWARE,
    );
  }
});

Deno.test("request.headers: those of the connection are dropped, and Proxy (rules A23, A27)", async () => {
  const names = [
    "CONNECTION",
    "KEEP_ALIVE",
    "PROXY",
    "PROXY_CONNECTION",
    "TE",
    "TRAILER",
    "TRANSFER_ENCODING",
    "UPGRADE",
  ];
  assertEquals<unknown>(
    await headersOf(names.map((name) => [`HTTP_${name}`, "x"] as [string, string])),
    { host: "example.org" },
  );
  assertEquals<unknown>(await headersOf({ HTTP_Proxy: "http://evil" }), { host: "example.org" });
  const proxy = await seen({ HTTP_PROXY: "http://evil" }, (request, info) => [
    request.headers.has("proxy"),
    info.variables.has("HTTP_PROXY"),
  ]);
  assertEquals(proxy, [false, false]);
});

Deno.test("request.headers: type and length come from variables of their own (rules A23, A25)", async () => {
  const headers = await seen(
    {
      REQUEST_METHOD: "POST",
      CONTENT_TYPE: "text/plain",
      CONTENT_LENGTH: "005",
      HTTP_CONTENT_TYPE: "evil/type",
      HTTP_CONTENT_LENGTH: "9",
    },
    (request) => [request.headers.get("content-type"), request.headers.get("content-length")],
    {},
    bytes("12345"),
  );
  assertEquals(headers, ["text/plain", "5"]);
  assertEquals<unknown>(
    await headersOf({ CONTENT_LENGTH: "", HTTP_CONTENT_LENGTH: "9", HTTP_CONTENT_TYPE: "a/b" }),
    { host: "example.org" },
  );
});

Deno.test("request.headers: a length of 0 on GET is dropped (rules A23, D3)", async () => {
  const lengthOf = (REQUEST_METHOD: string) =>
    seen(
      { REQUEST_METHOD, CONTENT_LENGTH: "0" },
      (request) => request.headers.get("content-length"),
    );
  assertEquals(await lengthOf("GET"), null);
  assertEquals(await lengthOf("HEAD"), null);
  assertEquals(await lengthOf("POST"), "0");
  assertEquals(await lengthOf("DELETE"), "0");
});

Deno.test("request.headers: the type that Caddy invents is dropped (rule A25)", async () => {
  const type = "application/x-www-form-urlencoded";
  const post = { REQUEST_METHOD: "POST", CONTENT_TYPE: type, SERVER_SOFTWARE: "Caddy/v2.6.2" };
  const typeOf = (pairs: Record<string, string>) =>
    seen(pairs, (request) => request.headers.get("content-type"));
  assertEquals(await typeOf(post), null);
  assertEquals(await typeOf({ ...post, HTTP_CONTENT_TYPE: type }), type);
  assertEquals(await typeOf({ ...post, SERVER_SOFTWARE: "nginx/1.22.1" }), type);
});

Deno.test("request.headers: the type that inets has in HTTP_CONTENT_TYPE only is found (rule A25)", async () => {
  const typeOf = (SERVER_SOFTWARE: string) =>
    seen(
      { REQUEST_METHOD: "POST", HTTP_CONTENT_TYPE: "a/b", SERVER_SOFTWARE },
      (request) => request.headers.get("content-type"),
    );
  assertEquals(await typeOf("inets/8.2.2"), "a/b");
  assertEquals(await typeOf("nginx/1.22.1"), null);
});

Deno.test("request.headers: values of a repeated header are joined (rules A24, A26)", async () => {
  assertEquals<unknown>(
    await headersOf([
      ["HTTP_COOKIE", "a=1"],
      ["HTTP_X_A", "1"],
      ["HTTP_COOKIE", "b=2"],
      ["HTTP_X_A", "2"],
    ]),
    { host: "example.org", cookie: "a=1; b=2", "x-a": "1, 2" },
  );
});

Deno.test("request.headers: a line break or NUL in a value is rejected (rule F1)", async () => {
  for (const value of ["a\r\nb: c", "a\nb", "a\rb", "a\0b"]) {
    assertEquals(await headersOf({ HTTP_X_A: value }), 400, JSON.stringify(value));
    assertEquals(await headersOf({ CONTENT_TYPE: value }), 400, JSON.stringify(value));
  }
});

Deno.test("request.headers: Authorization, redirected by option only (rule A28)", async () => {
  const get = (pairs: Record<string, string>, options?: AppOptions) =>
    seen(pairs, (request) => request.headers.get("authorization"), options);
  const redirected = { REDIRECT_HTTP_AUTHORIZATION: "Basic b" };
  assertEquals(await get({ HTTP_AUTHORIZATION: "Basic a" }), "Basic a");
  assertEquals(await get(redirected), null);
  assertEquals(await get(redirected, { redirectAuthorization: true }), "Basic b");
  assertEquals(
    await get({ ...redirected, HTTP_AUTHORIZATION: "Basic a" }, { redirectAuthorization: true }),
    "Basic a",
  );
});

Deno.test("info has the client's address and all variables (rules A29, A30, F10)", async () => {
  const pairs: Pairs = [
    ["REMOTE_ADDR", "2001:db8::1"],
    ["REMOTE_PORT", "4711"],
    ["REMOTE_USER", "jos\xc3\xa9"],
    ["AUTH_TYPE", "Basic"],
    ["SERVER_PROTOCOL", "HTTP/2.0"],
    ["SCRIPT_NAME", "/first"],
    ["SCRIPT_NAME", ""],
    ["__proto__", "polluted"],
    ["Variable-X", "y"],
  ];
  await seen(pairs, (_request, info) => {
    assertEquals<unknown>(info.remoteAddr, {
      transport: "tcp",
      hostname: "2001:db8::1",
      port: 4711,
    });
    assertEquals(info.protocol, "fastcgi");
    assertEquals(info.variables.get("REMOTE_USER"), "josé");
    assertEquals(info.variables.get("AUTH_TYPE"), "Basic");
    assertEquals(info.variables.get("SCRIPT_NAME"), "");
    assertEquals(info.variables.get("__proto__"), "polluted");
    assertEquals(info.variables.get("toString"), undefined);
    assertEquals(info.variables.get("Variable-X"), "y");
    assertEquals([...info.variables.keys()].includes("REQUEST_METHOD"), true);
    assertEquals(({} as Record<string, unknown>).polluted, undefined);
  }).then((result) => assertEquals(result, undefined));
});

Deno.test("info.remoteAddr: port 0 if the port is unknown, forwarded by option only", async () => {
  const get = (pairs: Record<string, string>, options?: AppOptions) =>
    seen(pairs, (_request, { remoteAddr }) => {
      const { hostname, port } = remoteAddr as Deno.NetAddr;
      return `${hostname} ${port}`;
    }, options);
  assertEquals(await get({}), " 0");
  for (const REMOTE_PORT of ["x", "-24560", "65536", "123456", "1.5", "1e3", " 80", "+80"]) {
    assertEquals(await get({ REMOTE_ADDR: "192.0.2.1", REMOTE_PORT }), "192.0.2.1 0", REMOTE_PORT);
  }
  assertEquals(await get({ REMOTE_ADDR: "192.0.2.1", REMOTE_PORT: "65535" }), "192.0.2.1 65535");
  const forwarded = {
    REMOTE_ADDR: "127.0.0.1",
    REMOTE_PORT: "9",
    HTTP_X_FORWARDED_FOR: "198.51.100.9, [2001:db8::2]",
  };
  assertEquals(await get(forwarded), "127.0.0.1 9");
  assertEquals(await get(forwarded, { trustForwarded: true }), "2001:db8::2 0");
});

Deno.test("info.remoteAddr: what a proxy forwards counts if it is an address (rule A30)", async () => {
  const remote = { REMOTE_ADDR: "127.0.0.1", REMOTE_PORT: "9" };
  const cases: Record<string, string> = {
    "198.51.100.9": "198.51.100.9 0",
    "198.51.100.9:5678": "198.51.100.9 5678",
    "[2001:db8::2]:443": "2001:db8::2 443",
    "2001:db8::2": "2001:db8::2 0",
    "::ffff:1.2.3.4": "::ffff:1.2.3.4 0",
    "evil, 198.51.100.9": "198.51.100.9 0",
    // As Apache's mod_remoteip and nginx's realip do.
    "not an address": "127.0.0.1 9",
    unknown: "127.0.0.1 9",
    _hidden: "127.0.0.1 9",
    "1.2.3.999": "127.0.0.1 9",
    "1.2.3": "127.0.0.1 9",
    "1.2.3.4:99999": "127.0.0.1 9",
    "198.51.100.9, ": "127.0.0.1 9",
    "::1]:80/[::2": "127.0.0.1 9",
    "[::1": "127.0.0.1 9",
    "localhost": "127.0.0.1 9",
  };
  for (const [text, expected] of Object.entries(cases)) {
    const pairs: [string, string][] = [["HTTP_X_FORWARDED_FOR", text]];
    if (!text.includes(",")) pairs.push(["HTTP_FORWARDED", `for="${text}"`]);
    for (const pair of pairs) {
      const address = await seen(
        { ...remote, ...Object.fromEntries([pair]) },
        (_request, { remoteAddr }) => {
          const { hostname, port } = remoteAddr as Deno.NetAddr;
          return `${hostname} ${port}`;
        },
        { trustForwarded: true },
      );
      assertEquals(address, expected, String(pair));
    }
  }
});

Deno.test("request.body: an invalid length is rejected (rules A19, F2)", async () => {
  const bad = ["+5", "5,5", "5, 5", " 5", "5 ", "0x5", "-2", "5.0", "1e3", "a", "9007199254740992"];
  for (const CONTENT_LENGTH of bad) {
    assertEquals(
      await seen({ REQUEST_METHOD: "POST", CONTENT_LENGTH }, () => 0, {}, bytes("12345")),
      400,
      CONTENT_LENGTH,
    );
  }
});

Deno.test("request.body: it is FCGI_STDIN, with a length or without (rules A19, A21)", async () => {
  const get = (CONTENT_LENGTH: string, body: string) =>
    seen(
      { REQUEST_METHOD: "POST", CONTENT_LENGTH },
      async (request) => [await request.text(), request.headers.get("content-length")],
      {},
      bytes(body),
    );
  assertEquals(await get("5", "12345"), ["12345", "5"]);
  assertEquals(await get("", "12345"), ["12345", null]);
  assertEquals(await get("-1", "12345"), ["12345", null]);
  assertEquals(await get("3", "12345"), ["123", "3"]);
  assertEquals(await get("0", ""), ["", "0"]);
  assertEquals(await get("", ""), ["", null]);
});

Deno.test("request.body: FCGI_STDIN is the body also if its web server loses those of scripts (rules A21, A22)", async () => {
  const variables = { REQUEST_METHOD: "POST", CONTENT_LENGTH: "", SERVER_SOFTWARE: "Yaws/2.1.1" };
  const text = await seen(variables, (request) => request.text(), {}, bytes("12345"));
  assertEquals(text, "12345");
});

Deno.test("request.body: one that ends early fails, and the response is 400 (rule A21)", async () => {
  let error: unknown;
  const response = await serveOne(
    async (request) => {
      try {
        return new Response(await request.text());
      } catch (thrown) {
        error = thrown;
        throw thrown;
      }
    },
    { variables: { REQUEST_METHOD: "POST", CONTENT_LENGTH: "9" }, body: bytes("12345") },
  );
  assertEquals(response.status, 400);
  assertInstanceOf(error, Error);
  const message = "Cannot read request body as it must have 9 bytes: it ended after 5";
  assertEquals(error.message, message);
  assertStringIncludes(response.stderr, message);
});

Deno.test("request.body: GET and HEAD have none, and theirs is drained (rule A6)", async () => {
  for (const REQUEST_METHOD of ["GET", "HEAD", "get"]) {
    const body = await seen(
      { REQUEST_METHOD },
      (request) => [request.body, request.headers.get("content-length")],
      {},
      bytes("12345"),
    );
    assertEquals(body, [null, "5"], REQUEST_METHOD);
  }
});

Deno.test("any variables result in a request or a status from 400 to 501, and pollute nothing (rules F1, F10)", async () => {
  const wild = fc.uint8Array({ maxLength: 12 }).map((array) => text(array));
  const known = fc.constantFrom(
    "REQUEST_METHOD",
    "REQUEST_URI",
    "HTTP_HOST",
    "SERVER_NAME",
    "SERVER_PORT",
    "SCRIPT_NAME",
    "PATH_INFO",
    "QUERY_STRING",
    "CONTENT_LENGTH",
    "CONTENT_TYPE",
    "HTTP_X_A",
    "HTTP_COOKIE",
    "HTTPS",
    "REMOTE_ADDR",
    "REMOTE_PORT",
    "__proto__",
    "HTTP___PROTO__",
    "constructor",
  );
  const value = fc.oneof(
    wild,
    fc.constantFrom(
      "GET",
      "POST",
      "/",
      "/a/../b",
      "//x",
      "http://a/b",
      "0",
      "-1",
      "a\r\nb: c",
      "[::1]",
    ),
  );
  const pairs = fc.array(fc.tuple(fc.oneof(known, wild), value), { maxLength: 8 });
  await fc.assert(
    fc.asyncProperty(pairs, async (pairs) => {
      let called = 0;
      const response = await serveOne((request, info) => {
        called++;
        for (const [name, value] of request.headers) {
          if (/[\r\n\0]/.test(name + value)) throw new Error("a line break");
        }
        void [info.scriptName, info.pathInfo, info.remoteAddr, request.url];
        return new Response(null, { status: 204 });
      }, { variables: pairs });
      if (called === 0) assertEquals([400, 500, 501].includes(response.status!), true);
      else assertEquals(response.status, 204);
      assertEquals(Object.keys(Object.prototype), []);
    }),
    { numRuns: 300 },
  );
});

Deno.test("requestHref() and requestURL() return what URL makes of an ordinary request", () => {
  const target = fc.array(
    fc.constantFrom(
      "/",
      "a",
      ".",
      "..",
      "%2e",
      "%41",
      "?",
      ";",
      "=",
      "+",
      " ",
      "é",
      "^",
      "|",
      "//",
    ),
    { maxLength: 8 },
  ).map((parts) => "/" + parts.join(""));
  const host = fc.constantFrom(
    ...[
      "example.org",
      "example.org:8080",
      "example.org:80",
      "EXAMPLE.org",
      "127.1",
      "xn--a",
      "a:443",
    ],
  );
  const name = fc.option(host, { nil: undefined });
  const proto = fc.constantFrom(undefined, "https", "HTTP");
  fc.assert(fc.property(target, host, name, proto, (target, host, forwardedHost, proto) => {
    const [path, query = ""] = target.split(/\?(.*)/s);
    const variables = new Variables([
      ["REQUEST_URI", target],
      ["QUERY_STRING", query],
      ["HTTP_HOST", host],
    ]);
    const forwarded = { host: forwardedHost, proto };
    const scheme = proto === "https" ? "https" : "http";
    const origin = `${scheme}://${forwardedHost ?? host}`;
    if (!URL.canParse(origin)) return;
    const href = requestHref(variables, forwarded);
    // Undefined means that it must be parsed.
    if (href !== undefined) assertEquals(href, new URL(origin + target).href);
    const { prefix, rest } = requestURL(variables, "/a", forwarded, "fastcgi", undefined);
    if (href !== undefined) assertEquals(prefix + rest, new URL(origin + path).pathname);
    assertEquals(/^(?:\/(?:a|%61))?$/i.test(prefix), true, prefix);
  }));
});

Deno.test("isAuthority() rejects an empty host, even the first one it sees", async () => {
  // A module of its own, as the function remembers the last valid host.
  const { isAuthority } = await import("../../bridge/request.ts?unused");
  assertEquals([isAuthority(""), isAuthority("a.example"), isAuthority("")], [false, true, false]);
});
