import { assert, assertEquals, assertFalse, assertMatch, assertStringIncludes } from "@std/assert";
import fc from "fast-check";
import type { App, HandlerInfo } from "../../bridge/app.ts";
import { debugPage } from "../../debug/debug_page.ts";
import { stackOf } from "../../debug/stack.ts";
import { ownSources, readSource, type SourceReader } from "../../debug/source_file.ts";
import { Variables } from "../../wire/variables.ts";
import { IN_PROCESS } from "../conformance/transports.ts";
import { text } from "../testing/bytes.ts";
import { serveHTTP } from "../../http.ts";
import { testWith } from "../testing/needs.ts";
import { serveOne } from "../testing/fastcgi_client.ts";
import { silence } from "../testing/silence.ts";

interface PageParts {
  variables?: Record<string, string>;
  request?: Request;
  protocol?: HandlerInfo["protocol"];
  tools?: Partial<SourceReader> & { address?: Deno.Addr };
}

const NO_SOURCES: SourceReader = {
  readSource: () => Promise.resolve(undefined),
  readFrames: () => undefined,
};

async function page(error: unknown, parts: PageParts = {}): Promise<string> {
  const { variables = {}, request, protocol = "fastcgi", tools = {} } = parts;
  const info = {
    protocol,
    variables: new Variables(Object.entries(variables)),
  } as unknown as HandlerInfo;
  const { address, ...reader } = tools;
  const sources = { ...NO_SOURCES, ...reader };
  return await (await debugPage(error, request, info, address, sources)).text();
}

function assertNotMatch(text: string, pattern: RegExp): void {
  assertFalse(pattern.test(text), `${pattern} in ${text}`);
}

const PLAIN = { HTTP_ACCEPT: "text/plain" };

for (const [name, serve] of Object.entries(IN_PROCESS)) {
  const failing: App = () => {
    throw new TypeError("the failure", { cause: new Error("the cause") });
  };
  const request = {
    method: "GET",
    target: "/broken?a=b",
    headers: [["x-shown", "shown"]] as [string, string][],
  };

  Deno.test(`${name}: a response without the option debug shows nothing of an error`, async () => {
    using _ = silence();

    await using transport = serve(failing);
    const { status, body, head } = await transport.send(request);
    assertEquals([status, text(body)], [500, "500 Internal Server Error\n"]);
    assertNotMatch(head, /failure|cause|debug|\.ts/);
  });

  Deno.test(`${name}: the option debug shows the error, its source and the request`, async () => {
    using _ = silence();

    await using transport = serve(failing, { debug: true });
    const { status, headers, body } = await transport.send(request);
    const html = text(body);
    assertEquals(status, 500);
    assertEquals(headers.get("content-type"), "text/html;charset=UTF-8");
    assertEquals(headers.get("cache-control"), "no-store");
    assertMatch(headers.get("content-security-policy")!, /^default-src 'none'/);
    assertStringIncludes(html, "<h1>TypeError: the failure</h1>");
    assertStringIncludes(html, "caused by</small> Error: the cause");
    assertMatch(html, /<mark> *\d+ {4,}throw new TypeError\(&#34;the failure&#34;/);
    assertMatch(html, /GET http:\/\/example\.org:?\d*\/broken\?a=b over/);
    assertStringIncludes(html, "<th>x-shown<td>shown");
    assertStringIncludes(html, "<th>QUERY_STRING<td>a=b");
  });
}

Deno.test("debugPage() puts the app's frames first and folds those of libraries", async () => {
  const error = new Error("x");
  error.stack = [
    "Error: x",
    "    at query (https://jsr.io/@db/db/1.0.0/mod.ts:3:1)",
    `    at async save (${import.meta.url}:1:1)`,
    "    at fetch (file:///srv/node_modules/router/index.js:7:2)",
    `    at respond (${new URL("../../server/respond.ts", import.meta.url)}:9:2)`,
    "    at ext:core/01_core.js:5:6",
    "    at new Promise (<anonymous>)",
  ].join("\n");
  const html = await page(error, { tools: { readSource } });
  const [first, folded] = html.split("<details><summary>4 frames in libraries</summary>");
  assertStringIncludes(first, "async save file://");
  assertStringIncludes(first, "<mark>    1  import {");
  assertFalse(/db\/db|router|respond\.ts/.test(first));
  for (const part of ["@db/db", "router", "respond.ts", "ext:core"]) {
    assertStringIncludes(folded, part);
  }
});

Deno.test("debugPage() shows each cause and each error of an AggregateError once", async () => {
  const cause = new Error("third");
  const errors = [new Error("first", { cause }), "second", new AggregateError([cause], "nested")];
  const error = new AggregateError(errors, "several");
  cause.cause = error;
  const titles = [...(await page(error)).matchAll(/<h[12]>(?:<small>(.*?)<\/small> )?(.*?)</g)]
    .map(([, relation, title]) => [relation, title]).filter(([, title]) => /: /.test(title));
  assertEquals(titles, [
    [undefined, "AggregateError: several"],
    ["error 1 of it", "Error: first"],
    ["error 2 of it", "Thrown: second"],
    ["error 3 of it", "AggregateError: nested"],
    ["caused by", "Error: third"],
  ]);
});

Deno.test("debugPage() shows whatever was thrown", async () => {
  const trap = new Proxy(new Error("x"), {
    get() {
      throw new Error("trapped");
    },
  });
  for (const thrown of [undefined, null, 0, "<b>", Symbol("s"), Object.create(null), {}, trap]) {
    assertMatch(await page(thrown), /^<!doctype html>/);
  }
  assertStringIncludes(await page("<b>"), "Thrown: &#60;b&#62;");
  const endless = new Error("0");
  let last = endless;
  for (let i = 1; i < 1000; i++) last = last.cause = new Error(String(i));
  assertEquals((await page(endless)).match(/<small>caused by/g)?.length, 19);
});

/** A frame that a client's text would like to be. */
const FORGED = "\n    at forged (file:///srv/secrets.ts:1:1)";
/** Errors whose message, or part of it, is a client's. */
const FORGERIES: Record<string, () => unknown> = {
  "in its message": () => new Error(`x${FORGED}`),
  "in a message that is all of the client's": () => new Error(FORGED),
  "in a message that is longer now"() {
    const error = new Error(`x${FORGED}`);
    error.message = `while reading: ${error.message}`;
    return error;
  },
  "in a message that is another now"() {
    const error = new Error(`x${FORGED}`);
    error.message = "internal";
    return error;
  },
  "in a message that is shorter now"() {
    const error = new Error(`x${FORGED}`);
    error.message = "x";
    return error;
  },
  "in a message that is empty now"() {
    const error = new Error(`x${FORGED}`);
    error.message = "";
    return error;
  },
  "in its name"() {
    const error = new Error("x");
    error.name = `x${FORGED}`;
    return error;
  },
  "in a function's name"() {
    const functions = { [`x${FORGED}`]: () => new Error("x") };
    return functions[`x${FORGED}`]();
  },
  "in a stack that the app has made"() {
    const error = new Error("x");
    error.stack = `Error: y${FORGED}\n    at file:///srv/app.ts:1:1`;
    return error;
  },
  "in a cause": () => new Error("x", { cause: new Error(FORGED) }),
  "in what is no error": () => `x${FORGED}`,
};
for (const [how, make] of Object.entries(FORGERIES)) {
  Deno.test(`a client's text forges no frame ${how}`, async () => {
    const error = make();
    const read: string[] = [];
    const source = (url: string) => {
      read.push(url);
      return Promise.resolve("const password = 1;\n");
    };
    for (const ofRuntime of [false, true]) {
      // The text of a stack does not show that the app has shortened a message.
      if (!ofRuntime && /shorter|function/.test(how)) continue;
      const tools = {
        readSource: source,
        ...ofRuntime ? { readFrames: ownSources.readFrames } : {},
      };
      const plain = await page(error, { variables: PLAIN, tools });
      const html = await page(error, { tools });
      assertEquals(read.filter((url) => url.includes("secrets")), []);
      if (!ofRuntime || /the app has made/.test(how)) continue;
      assertNotMatch(plain, /^ {4}at forged/m);
      assertNotMatch(html, /<li><code>forged/);
    }
  });
}

Deno.test("ownSources.readFrames() returns the frames as the stack has them", async () => {
  class Store {
    async load(): Promise<Store> {
      await null;
      throw new Error("x");
    }
    static async open(): Promise<void> {
      await new Store().load();
    }
  }
  const error = await Store.open().catch((error) => error);
  const { frames, isCertain } = stackOf(error, ownSources.readFrames);
  assertEquals(isCertain, true);
  assertEquals(frames, stackOf(error).frames);
  assertEquals(frames.slice(0, 2).map(({ name }) => name), ["Store.load", "async Store.open"]);
  const made = new (class Made extends Error {})("x");
  made.stack = "Made: x\n    at file:///srv/app.ts:2:7";
  assertEquals(ownSources.readFrames(made), undefined);
  assertEquals(stackOf(made, ownSources.readFrames).frames.map(({ url }) => url), [
    "file:///srv/app.ts",
  ]);
});

Deno.test("only sources are read", async () => {
  assertEquals(await readSource("file:///etc/passwd"), undefined);
  assertEquals(await readSource("https://example.org/a.ts"), undefined);
  assertEquals(await readSource("file:///nowhere/a.ts"), undefined);
  assertStringIncludes((await readSource(import.meta.url))!, "only sources are read");
});

Deno.test("a client's text forges no line of the page", async () => {
  const text = "x\nRun it again\n  forged\r\n\x1b[2Jforged\u202e";
  const request = new Request("http://localhost/", { headers: { "x-a": "b" } });
  const shown = await page(new Error(text), {
    variables: { ...PLAIN, PATH_INFO: text, [text]: text },
    request,
    protocol: "cgi",
  });
  assertEquals(shown.match(/^Run it again$/gm)?.length, 1);
  assertNotMatch(shown, /^ *forged/m);
  // deno-lint-ignore no-control-regex
  assertNotMatch(shown, /[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]/);
});

Deno.test({
  name: "readSource() reads nothing and does not prompt without permission",
  permissions: { read: false },
  async fn() {
    assertEquals(await readSource(import.meta.url), undefined);
    const html = await page(new Error("unreadable"), { tools: { readSource } });
    assertStringIncludes(html, "debug_page_test.ts");
    assertFalse(html.includes("<mark>"));
  },
});

const SECRET = "hunter2hunter2";

Deno.test("debugPage() redacts secrets wherever they are (rule F6)", async () => {
  const variables: Record<string, string> = {
    HTTP_AUTHORIZATION: `Basic ${SECRET}`,
    HTTP_PROXY_AUTHORIZATION: `Bearer ${SECRET}`,
    HTTP_COOKIE: `theme=dark; sid=${SECRET}`,
    HTTP_X_API_KEY: SECRET,
    HTTP_X_CSRF_TOKEN: SECRET,
    HTTP_REFERER: `https://example.org/?user=1&access_token=${SECRET}x`,
    HTTP_X_NOTE: `Bearer ${SECRET}`,
    REMOTE_PASSWD: SECRET,
    PHP_AUTH_PW: SECRET,
    PGPASS: SECRET,
    SMTP_PASS: SECRET,
    MYSQL_PWD: SECRET,
    AWS_ACCESS_ID: SECRET,
    APP_SESSION: SECRET,
    GOOGLE_CREDENTIALS: SECRET,
    DATABASE_URL: `postgres://ann:${SECRET}@db.example/x?sslmode=on`,
    REDIS: `redis://:p@${SECRET}@cache:6379`,
    REQUEST_URI: `/a?name=Ann&%74oken=${SECRET}&next=%2Flogin%3Fpassword%3D${SECRET}`,
    QUERY_STRING: `name=Ann&%74oken=${SECRET}&next=%2Flogin%3Fpassword%3D${SECRET}`,
    CONFIG: `{"user":"ann","password":"${SECRET} \\" ${SECRET}"}`,
    TUPLE: `host=db;Pwd=${SECRET};user=ann`,
  };
  const url = `http://example.org/a?name=Ann&token=${SECRET}`;
  const request = new Request(url, {
    method: "POST",
    headers: { "authorization": `Basic ${SECRET}`, "x-auth": SECRET, "set-cookie": `a=${SECRET}` },
  });
  const error = new Error(`no login for ${SECRET}: password='${SECRET}', "apiKey": "${SECRET}"`);
  for (const accept of ["text/html", "text/plain"]) {
    for (const protocol of ["cgi", "fastcgi", "scgi", "http"] as const) {
      const shown = await page(error, {
        variables: { ...variables, HTTP_ACCEPT: accept },
        request,
        protocol,
      });
      assertFalse(shown.includes(SECRET), shown.slice(Math.max(shown.indexOf(SECRET) - 80, 0)));
      for (const harmless of ["name=Ann", "db.example", "user=ann", "sslmode=on", "user=1"]) {
        assertStringIncludes(shown, harmless);
      }
    }
  }
});

Deno.test("each known name of a secret is redacted, by name alone", async () => {
  const names = "AUTHORIZATION COOKIE SET_COOKIE TOKEN MY_SECRET PASSWORD PASS DB_PASSWD PGPASS " +
    "PWD_DB AUTH KEY SESSION CREDENTIAL PHP_AUTH_PW PHPSESSID AWS_ANYTHING JWT";
  for (const name of names.split(" ")) {
    assertFalse((await page(new Error("x"), { variables: { [name]: "v4lu3" } })).includes("v4lu3"));
    const query = `a=1&${name.toLowerCase()}=v4lu3`;
    for (const variable of ["QUERY_STRING", "REQUEST_URI", "HTTP_REFERER"]) {
      const shown = await page(new Error("x"), { variables: { [variable]: `/?${query}` } });
      assertFalse(shown.includes("v4lu3"), `${name} in ${variable}`);
    }
  }
  const harmless = { PWD: "/srv/app", AUTH_TYPE: "Basic", SERVER_SIGNATURE: "nginx here" };
  for (const [name, value] of Object.entries(harmless)) {
    assertStringIncludes(await page(new Error("x"), { variables: { [name]: value } }), value);
  }
});

Deno.test("source lines show no literals of secret names", async () => {
  const source = 'const a = 1;\nconst password = "s3cr3t", key = readKey();\nfail(password);\n';
  const error = new Error("x");
  error.stack = "Error: x\n    at file:///srv/app.ts:2:7";
  const html = await page(error, { tools: { readSource: () => Promise.resolve(source) } });
  assertFalse(html.includes("s3cr3t"));
  assertStringIncludes(html, "const password = (redacted), key = readKey();");
});

Deno.test("debugPage() escapes everything", async () => {
  const clean = (html: string) => {
    assertNotMatch(
      html,
      /<(?!\/?(?:html|meta|title|style|h1|h2|small|p|code|ul|li|ol|pre|mark)\b)(?!\/?(?:details|summary|table|tr|th|td|footer)\b)(?!!doctype)/,
    );
    assertNotMatch(html, /<[^>]*(?:\bon\w+=|\bsrc=|\bhref=|javascript:|url\()/i);
    assertEquals(html.match(/<style>/g)?.length, 1);
    assertNotMatch(html, /<script|<img|<link|@import|https?:\/\/[^&\s<]*\.(?:js|css)/i);
  };
  const evil = fc.constantFrom(
    "<script>evil()</script>",
    "</title><b>",
    "</style>",
    "--><x>",
    '"><svg onload=evil()>',
    "' onmouseover='evil()",
    "&lt;",
    "\0<i>",
    "\u2028",
    "\ud800",
    "${x}`",
  );
  const any = fc.oneof(evil, fc.string({ unit: "binary" }));
  await fc.assert(fc.asyncProperty(
    any,
    any,
    any,
    any,
    fc.constantFrom("cgi", "fastcgi", "scgi", "http"),
    async (message, name, value, source, protocol) => {
      const error = new Error(message, { cause: value });
      error.name = name;
      error.stack = `Error: ${message}\n    at ${value} (file:///a${value}.ts:1:1)\n` +
        `    at f (file:///a.ts:1:1)\n    at ${name} (https://x/${name}:1:2)`;
      clean(
        await page(error, {
          variables: { [name]: value, [value]: name, REQUEST_URI: value, SCRIPT_FILENAME: name },
          protocol: protocol as HandlerInfo["protocol"],
          tools: {
            readSource: () => Promise.resolve(source),
            address: { transport: "unix", path: name },
          },
        }),
      );
    },
  ));
  clean(await page(new Error("<b>"), { variables: { "HTTP_<script>": "<i>" } }));
});

Deno.test("a client that prefers text gets text, without control characters", async () => {
  const cases: [accept: string, html: boolean][] = [
    ["", true],
    ["*/*", true],
    ["text/html,application/xhtml+xml,*/*;q=0.8", true],
    ["text/*", true],
    ["text/plain", false],
    ["application/json", false],
    ["text/plain, */*;q=0.1", false],
    ["text/html;q=0, */*", false],
  ];
  for (const [accept, html] of cases) {
    const shown = await page(new Error("a <b>\x1b[31m"), { variables: { HTTP_ACCEPT: accept } });
    assertEquals(shown.startsWith("<!doctype html>"), html, accept);
    assertEquals(shown.startsWith("Error: a <b>\\x1b[31m\n    at "), !html, accept);
  }
});

Deno.test("what is known of the web server is shown where it matters", async () => {
  const cases: [variables: Record<string, string>, quirk: RegExp, protocol?: "cgi"][] = [
    [{ SERVER_SOFTWARE: "nginx/1.22.1", SCRIPT_NAME: "/a" }, /stock fastcgi_params/],
    [{ SERVER_SOFTWARE: "nginx/1.22.1", HTTP_HOST: "a", SERVER_PORT: "8080" }, /without its port/],
    [{ SERVER_SOFTWARE: "Apache/2.4.71 (Debian)" }, /CGIPassAuth On/, "cgi"],
    [{ SERVER_SOFTWARE: "Apache/2.4.71 (Debian) mod_fcgid/2.3.9" }, /FcgidOutputBufferSize 0/],
    [{ SERVER_SOFTWARE: "HAProxy 2.6.12" }, /daemon's own stderr/],
    [{ SERVER_SOFTWARE: "HAProxy 2.6.12" }, /pass-header Authorization/],
    [{ SERVER_SOFTWARE: "Caddy/2.6.2", CONTENT_LENGTH: "-1" }, /CONTENT_LENGTH -1/],
    [{ REQUEST_URI: "/a%2Fb" }, /has %2F/],
    [{ HTTP_UPGRADE: "websocket" }, /only HTTP carries/],
  ];
  for (const [variables, quirk, protocol] of cases) {
    const shown = await page(new Error("x"), { variables: { ...variables, ...PLAIN }, protocol });
    assertMatch(shown, quirk);
    assertNotMatch(await page(new Error("x"), { variables: PLAIN }), quirk);
  }
  const quiet = {
    SERVER_SOFTWARE: "nginx/1.22.1",
    PATH_INFO: "/a",
    HTTP_HOST: "a:8080",
    SERVER_PORT: "8080",
  };
  assertFalse(
    (await page(new Error("x"), { variables: { ...quiet, ...PLAIN } })).includes("What to know"),
  );
});

/** Runs a command of the page with programs that print what they get. */
async function runCommand(command: string): Promise<string> {
  const { stdout, stderr, success } = await new Deno.Command("sh", { args: ["-c", command] })
    .output();
  assert(success, new TextDecoder().decode(stderr));
  return new TextDecoder().decode(stdout);
}

function commandOf(plain: string): string {
  return /^Run it again\n((?: {2}.*\n)+)/m.exec(plain)![1];
}

Deno.test("the command runs a script again with these variables", async () => {
  const variables = {
    ...PLAIN,
    GATEWAY_INTERFACE: "CGI/1.1",
    REQUEST_METHOD: "GET",
    REQUEST_URI: "/it's $HOME `id`?token=abcdef",
    HTTP_COOKIE: "a=abcdef",
    LANG: "C",
    SCRIPT_FILENAME: "/usr/bin/env",
  };
  const shown = await page(new Error("x"), { variables, protocol: "cgi" });
  assertEquals((await runCommand(commandOf(shown))).trim().split("\n"), [
    "GATEWAY_INTERFACE=CGI/1.1",
    "HTTP_ACCEPT=text/plain",
    "HTTP_COOKIE=(redacted)",
    "REQUEST_METHOD=GET",
    "REQUEST_URI=/it's $HOME `id`?token=(redacted)",
    "SCRIPT_FILENAME=/usr/bin/env",
  ]);
});

Deno.test("the command sends a request to a daemon again", async () => {
  const request = new Request("http://example.org/it's?c=d", {
    method: "PUT",
    headers: { "x-a": "it's", authorization: "Basic abcdef" },
  });
  const shown = await page(new Error("x"), {
    variables: PLAIN,
    request,
    tools: { readSource, address: { transport: "tcp", hostname: "::1", port: 9000 } },
  });
  const words = await runCommand(`deno() { printf '%s\\n' "$@"; }\n${commandOf(shown)}`);
  assertEquals(words.trim().split("\n").slice(5), [
    "fetch",
    "-i",
    "-X",
    "PUT",
    "-H",
    "authorization: (redacted)",
    "-H",
    "x-a: it's",
    "[::1]:9000",
    "/it's?c=d",
  ]);
  const http = await page(new Error("x"), { variables: PLAIN, request, protocol: "http" });
  assertStringIncludes(commandOf(http), "curl -g -i");
});

testWith({ curl: "curl" }, "the command of curl sends the same request", async () => {
  // What is read of a request after its end fails.
  const requests: Request[] = [];
  const options = { hostname: "127.0.0.1", port: 0, onListen: () => {} };
  await using server = serveHTTP((request) => {
    const { url, method, headers } = request;
    requests.push(new Request(url, { method, headers }));
    return new Response();
  }, options);
  const url = `http://127.0.0.1:${server.addr.port}/[1-3]{a,b}?c=it's&d=[]`;
  const headers = { "x-empty": "", "x-text": "it's $HOME @file" };
  const request = new Request(url, { method: "DELETE", headers });
  const shown = await page(new Error("x"), { variables: PLAIN, request, protocol: "http" });
  await runCommand(commandOf(shown).replace("curl", "curl --silent"));
  assertEquals(requests.map(({ method, url }) => [method, url]), [["DELETE", request.url]]);
  assertEquals(
    Object.keys(headers).map((name) => requests[0].headers.get(name)),
    Object.values(headers),
  );
});

Deno.test("after the headers the page is not sent, and the log has the error", async () => {
  const body = () =>
    new ReadableStream({
      async pull(controller) {
        await new Promise((resolve) => setTimeout(resolve, 0));
        controller.enqueue(new TextEncoder().encode("begun"));
        await new Promise((resolve) => setTimeout(resolve, 0));
        controller.error(new Error("too late"));
      },
    }, { highWaterMark: 0 });
  const response = await serveOne(() => new Response(body()), {}, { debug: true });
  assertEquals([response.status, text(response.body), response.complete], [200, "begun", false]);
  assertStringIncludes(response.stderr, "Error: too late");
});

Deno.test("a script without debug loads neither the page nor what it needs", async () => {
  const graph = async (entry: string) => {
    const { stdout } = await new Deno.Command(Deno.execPath(), {
      args: ["info", "--json", "--no-config", new URL(`../../${entry}`, import.meta.url).href],
    }).output();
    const { modules } = JSON.parse(new TextDecoder().decode(stdout));
    return modules as {
      specifier: string;
      dependencies?: { code?: { specifier: string }; isDynamic?: boolean }[];
    }[];
  };
  const modules = new Map((await graph("cgi.ts")).map((module) => [module.specifier, module]));
  const loaded = new Set<string>();
  const visit = (specifier: string) => {
    if (loaded.has(specifier)) return;
    loaded.add(specifier);
    for (const { code, isDynamic } of modules.get(specifier)?.dependencies ?? []) {
      if (code && !isDynamic) visit(code.specifier);
    }
  };
  visit(new URL("../../cgi.ts", import.meta.url).href);
  assert(loaded.size > 10);
  for (
    const name of ["debug_page", "redact", "stack", "server_hints", "shell_command", "source_file"]
  ) {
    assert([...modules.keys()].some((url) => url.endsWith(`/${name}.ts`)), name);
    assertFalse([...loaded].some((url) => url.endsWith(`/${name}.ts`)), name);
  }
});

Deno.test("debugPage() through dev reloads itself, and is for this machine alone", async () => {
  const pageFor = async (hostname: string, method = "GET") => {
    const info = {
      protocol: "fastcgi",
      variables: new Variables([["SERVER_SOFTWARE", "Gatehouse dev/7"]]),
      remoteAddr: { transport: "tcp", hostname, port: 1 },
    } as unknown as HandlerInfo;
    const request = new Request("http://localhost/", { method });
    const response = await debugPage(new Error("no ink"), request, info, undefined, NO_SOURCES);
    return { policy: response.headers.get("content-security-policy"), text: await response.text() };
  };
  const { policy, text } = await pageFor("127.0.0.1");
  const [, version, script] = /<script data-version="(.*?)">([^]*?)<\/script>/.exec(text)!;
  assertEquals(version, "7");
  const hash = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(script));
  const base64 = btoa(String.fromCharCode(...new Uint8Array(hash)));
  assertEquals(
    policy,
    `default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-${base64}'; connect-src 'self'`,
  );
  // Reloading would send a form again.
  assertNotMatch((await pageFor("127.0.0.1", "POST")).text, /<script/);
  for (const remote of ["192.168.1.6", "2001:db8::6"]) {
    assertEquals(await pageFor(remote), { policy: null, text: "500 Internal Server Error\n" });
  }
});
