import {
  assert,
  assertEquals,
  assertFalse,
  assertInstanceOf,
  assertLess,
  assertMatch,
  assertStringIncludes,
} from "@std/assert";
import { Buffer } from "@std/io/buffer";
import fc from "fast-check";
import { type App, type CGIInput, type CGIOptions, serveCGI } from "../cgi.ts";
import { bytes, concat, pattern, text } from "./testing/bytes.ts";
import { feed, run, runScript, spawn } from "./testing/cgi_script.ts";
import { deadline } from "./testing/deadline.ts";
import { turns } from "./testing/serving.ts";
import { toText } from "../wire/byte_string.ts";

const script = new URL("./testing/script.ts", import.meta.url);

/** The variables of a request for the test script's `path`. */
function env(path: string, others: Record<string, string> = {}): Record<string, string> {
  return {
    GATEWAY_INTERFACE: "CGI/1.1",
    REQUEST_METHOD: "GET",
    SERVER_NAME: "example.org",
    SERVER_PORT: "80",
    SERVER_PROTOCOL: "HTTP/1.1",
    SCRIPT_NAME: "/cgi-bin/script.ts",
    PATH_INFO: path,
    ...others,
  };
}

const post = (body: Uint8Array) => ({
  REQUEST_METHOD: "POST",
  CONTENT_LENGTH: String(body.length),
});

Deno.test("serveCGI() serves a request from the environment and streams in its options", async () => {
  const response = await run(
    async (request, info) => {
      info.log("logged");
      assertEquals(info.protocol, "cgi");
      assertEquals(info.remoteAddr, { transport: "tcp", hostname: "192.0.2.1", port: 5 });
      return new Response(`${request.method} ${request.url} ${await request.text()}`);
    },
    {
      REQUEST_METHOD: "POST",
      SCRIPT_NAME: "/a",
      CONTENT_LENGTH: "4",
      REMOTE_ADDR: "192.0.2.1",
      REMOTE_PORT: "5",
    },
    bytes("body"),
  );
  assertEquals(response.head.split("\r\n")[0], "Status: 200 OK");
  assertEquals(text(response.body), "POST http://example.org/a body");
  assertEquals(response.stderr, "logged\n");
});

/** An input that counts the bytes read, and fails past its end. */
class Counted implements CGIInput {
  reads = 0;
  count = 0;
  closed = false;
  #buffer: Buffer;

  constructor(body: Uint8Array) {
    this.#buffer = new Buffer(body.slice().buffer);
  }

  async read(buffer: Uint8Array): Promise<number | null> {
    this.reads++;
    const count = await this.#buffer.read(buffer);
    if (count === null) throw new Error("read past the end");
    this.count += count;
    return count;
  }

  close(): void {
    this.closed = true;
  }
}

Deno.test("serveCGI() reads CONTENT_LENGTH bytes and no more (rule A20)", async () => {
  const stdin = new Counted(bytes("bodyrest"));
  const read = (request: Request) => request.text().then((text) => new Response(text));
  const response = await run(read, env("", post(bytes("body"))), undefined, { stdin });
  assertEquals([text(response.body), stdin.count], ["body", 4]);
});

Deno.test("serveCGI() does not touch stdin without a length, nor before the app reads (rule A20)", async () => {
  const read = async (request: Request) => {
    assertEquals(await request.text(), "");
    return new Response("Hello");
  };
  const bodiless: Record<string, string>[] = [{}, { CONTENT_LENGTH: "" }, { CONTENT_LENGTH: "0" }];
  for (const others of bodiless) {
    const stdin = new Counted(bytes("rest"));
    const response = await run(read, env("", { REQUEST_METHOD: "POST", ...others }), undefined, {
      stdin,
    });
    assertEquals([response.status, stdin.reads], [200, 0]);
  }
  const stdin = new Counted(bytes("body"));
  const count = () => new Response(String(stdin.reads));
  const response = await run(count, env("", post(bytes("body"))), undefined, { stdin });
  assertEquals([response.status, text(response.body)], [200, "0"]);
});

Deno.test("serveCGI() drains the rest of a body after the response (rule B20)", async () => {
  const stdin = new Counted(bytes("body, and then more"));
  const length = { REQUEST_METHOD: "POST", CONTENT_LENGTH: "4" };
  const response = await run(() => new Response("Hello"), env("", length), undefined, { stdin });
  assertEquals([response.status, stdin.count], [200, 4]);
});

Deno.test("serveCGI() drains a body that does not end for 30 seconds in total (rule B20)", async () => {
  const { setTimeout } = globalThis;
  let elapsed = 0;
  let elapse: (() => void) | undefined;
  let closed = false;
  // A byte arrives in each 5 seconds, which take no time.
  const stdin: CGIInput = {
    async read(buffer) {
      await new Promise((resolve) => setTimeout(resolve, 0));
      elapse?.();
      buffer[0] = 0;
      return closed ? null : 1;
    },
    close: () => void (closed = true),
  };
  globalThis.setTimeout = ((callback: () => void, ms?: number) => {
    if (ms !== 5000) return setTimeout(callback, ms);
    elapse = () => {
      elapse = undefined;
      elapsed += ms;
      callback();
    };
    return 0;
  }) as typeof setTimeout;
  try {
    const length = { REQUEST_METHOD: "POST", CONTENT_LENGTH: "1000000000" };
    const app = () => new Response("Hello");
    const response = await run(app, env("", length), undefined, { stdin });
    assertEquals([response.status, closed, elapsed], [200, true, 30_000]);
  } finally {
    globalThis.setTimeout = setTimeout;
    closed = true;
  }
});

Deno.test("serveCGI() reads to the end if the server decoded chunks (rule A20)", async () => {
  const read = (request: Request) => request.text().then((text) => new Response(text));
  const chunked = env("", { REQUEST_METHOD: "POST", HTTP_TRANSFER_ENCODING: "chunked" });
  assertEquals(text((await run(read, chunked, bytes("body"))).body), "body");
  const both = { ...chunked, CONTENT_LENGTH: "2" };
  assertEquals(text((await run(read, both, bytes("body"))).body), "bo");
});

Deno.test("serveCGI() rejects reads of a body that ends early (rule A21)", async () => {
  let error: unknown;
  const response = await run(
    async (request) => {
      await request.text().catch((thrown) => {
        error = thrown;
        throw thrown;
      });
      return new Response("not sent");
    },
    env("", { REQUEST_METHOD: "POST", CONTENT_LENGTH: "9" }),
    bytes("12345"),
  );
  assertEquals(response.status, 400);
  assertInstanceOf(error, Error);
  assertEquals(
    error.message,
    "Cannot read request body as it must have 9 bytes: it ended after 5",
  );
});

Deno.test("maxBodyBytes: a response at the limit, 413 above it, with and without CONTENT_LENGTH (rule F8)", async () => {
  const read = (request: Request) => request.text().then((text) => new Response(text));
  const cases: [Record<string, string>, string, number][] = [
    [{ CONTENT_LENGTH: "4" }, "body", 200],
    [{ CONTENT_LENGTH: "5" }, "body.", 413],
    [{ HTTP_TRANSFER_ENCODING: "chunked" }, "body", 200],
    [{ HTTP_TRANSFER_ENCODING: "chunked" }, "body.", 413],
  ];
  for (const [others, body, status] of cases) {
    const response = await run(read, env("", { REQUEST_METHOD: "POST", ...others }), bytes(body), {
      maxBodyBytes: 4,
    });
    assertEquals(response.status, status, body);
  }
});

Deno.test("serveCGI() rejects variables that make no request, and logs why (rules A2, A5, A8, A19)", async () => {
  const cases: [Record<string, string>, number, string][] = [
    [{ REQUEST_METHOD: "" }, 500, "REQUEST_METHOD is absent"],
    [{ REQUEST_METHOD: "TRACE" }, 501, "its method must be one that fetch allows"],
    [{ REQUEST_METHOD: "A B" }, 400, "REQUEST_METHOD must be a token"],
    [{ HTTP_HOST: "a b" }, 400, "its host must be a valid one"],
    [
      {
        REQUEST_METHOD: "POST",
        SERVER_SOFTWARE: "uWSGI/2.0.21",
        HTTP_TRANSFER_ENCODING: "chunked",
      },
      411,
      '"uWSGI/" does not pass on a body without CONTENT_LENGTH',
    ],
    [{ CONTENT_LENGTH: "+5" }, 400, "CONTENT_LENGTH must be a whole number"],
  ];
  for (const [others, status, message] of cases) {
    const response = await run(() => new Response("called"), env("", others));
    assertEquals(response.status, status);
    assertStringIncludes(response.stderr, message);
  }
});

Deno.test("serveCGI() rejects a body that the web server loses without a length (rule A22)", async () => {
  const busybox = "busybox httpd/1.35.0";
  const python = "SimpleHTTP/0.6 Python/3.11.2";
  const cases: [software: string, request: Record<string, string>, status: number][] = [
    [busybox, { HTTP_TRANSFER_ENCODING: "chunked" }, 411],
    [busybox, { HTTP_TRANSFER_ENCODING: "gzip, Chunked" }, 411],
    [busybox, { REQUEST_METHOD: "PUT", HTTP_CONTENT_LENGTH: "5" }, 411],
    [busybox, { REQUEST_METHOD: "PUT", HTTP_CONTENT_LENGTH: "x" }, 411],
    [busybox, { REQUEST_METHOD: "PUT", HTTP_CONTENT_LENGTH: "0" }, 200],
    [busybox, { REQUEST_METHOD: "DELETE", HTTP_TRANSFER_ENCODING: "chunked" }, 411],
    [busybox, { HTTP_TRANSFER_ENCODING: "chunked", CONTENT_LENGTH: "5" }, 411],
    [busybox, { CONTENT_LENGTH: "5" }, 200],
    [busybox, {}, 200],
    [busybox, { REQUEST_METHOD: "GET", HTTP_TRANSFER_ENCODING: "chunked" }, 200],
    ["uWSGI/2.0.21-debian", { HTTP_TRANSFER_ENCODING: "chunked" }, 411],
    ["uWSGI/2.0.21-debian", { HTTP_TRANSFER_ENCODING: "chunked", CONTENT_LENGTH: "5" }, 411],
    ["uWSGI/2.0.21-debian", {}, 200],
    [python, {}, 411],
    [python, { REQUEST_METHOD: "PATCH" }, 411],
    [python, { CONTENT_LENGTH: "5" }, 200],
    [python, { CONTENT_LENGTH: "0" }, 200],
    [python, { REQUEST_METHOD: "DELETE" }, 200],
    ["fossil version 2.21 [3c53b6364e]", {}, 411],
    ["mini_httpd/1.30 26Oct2018", {}, 411],
    ["Yaws/2.1.1", {}, 411],
    ["CivetWeb/1.15", { HTTP_TRANSFER_ENCODING: "chunked" }, 200],
    ["nginx/1.22.1", { HTTP_TRANSFER_ENCODING: "chunked" }, 200],
    ["nginx/1.22.1", { HTTP_TRANSFER_ENCODING: "chunked", CONTENT_LENGTH: "5" }, 200],
    ["nginx/1.22.1", { REQUEST_METHOD: "PUT", HTTP_CONTENT_LENGTH: "5" }, 200],
    ["", { HTTP_TRANSFER_ENCODING: "chunked" }, 200],
  ];
  for (const [SERVER_SOFTWARE, request, expected] of cases) {
    const variables = env("", { REQUEST_METHOD: "POST", SERVER_SOFTWARE, ...request });
    const length = Number(request.CONTENT_LENGTH ?? "5");
    const read = async (request: Request) => new Response(await request.text());
    const { status } = await run(read, variables, bytes("12345".slice(0, length)));
    assertEquals(status, expected, JSON.stringify(variables));
  }
});

Deno.test("serveCGI() writes head and small body at once, and a stream chunk by chunk (rules B15, B16)", async () => {
  const writes: string[] = [];
  const stdout = {
    write: (part: Uint8Array) => (writes.push(text(part)), Promise.resolve(part.length)),
  };
  const serve = (body: BodyInit) =>
    serveCGI(() => new Response(body), { env: env(""), stdin: new Buffer(), stdout });
  await serve("Hello");
  assertEquals(writes.length, 1);
  assert(writes[0].endsWith("\r\n\r\nHello"));
  writes.length = 0;
  let at = 0;
  const chunks = ["one", "two"];
  await serve(
    new ReadableStream({
      async pull(controller) {
        await new Promise((resolve) => setTimeout(resolve, 0));
        if (at === chunks.length) controller.close();
        else controller.enqueue(bytes(chunks[at++]));
      },
    }, { highWaterMark: 0 }),
  );
  assertEquals(writes.slice(1), ["one", "two"]);
});

Deno.test("serveCGI() writes Status first, but Location first for HAProxy and inets (rule B1)", async () => {
  const firstOf = async (SERVER_SOFTWARE: string) => {
    const response = () => Response.redirect("http://example.org/x", 303);
    const { head, status } = await run(response, { SERVER_SOFTWARE });
    assertEquals(status, 303);
    return head.split("\r\n").slice(0, 2).map((line) => line.split(":")[0]);
  };
  assertEquals(await firstOf("busybox httpd/1.35.0"), ["Status", "Location"]);
  assertEquals(await firstOf("uWSGI/2.0.21-debian"), ["Status", "Location"]);
  assertEquals(await firstOf(""), ["Status", "Location"]);
  assertEquals(await firstOf("HAProxy 2.6.12"), ["Location", "Status"]);
  assertEquals(await firstOf("inets/8.2.2"), ["Location", "Status"]);
});

Deno.test("serveCGI() logs to stderr, but not behind a server that shows it to the client (rule B19)", async () => {
  const stderrOf = async (SERVER_SOFTWARE: string, env: Record<string, string> = {}) => {
    const app: App = (_request, info) => {
      info.log("a line");
      throw new Error("the cause");
    };
    const { status, stderr } = await run(app, { SERVER_SOFTWARE, ...env });
    assert(status! >= 400);
    return stderr;
  };
  assertMatch(await stderrOf("nginx/1.22.1"), /^a line\nError: the cause\n/);
  assertMatch(await stderrOf("nginx/1.22.1", { HTTP_HOST: "a b" }), /its host must be a valid one/);
  for (
    const software of [
      "mini_httpd/1.30 26Oct2018",
      "merecat/2.32-rc4",
      "thttpd/2.29 23May2018",
      "sthttpd/2.27.0 Oct 3, 2014",
    ]
  ) {
    assertEquals(await stderrOf(software), "");
    assertEquals(await stderrOf(software, { HTTP_HOST: "a b" }), "");
    assertEquals(await stderrOf(software, { CONTENT_LENGTH: "x" }), "");
  }
});

Deno.test("serveCGI() logs to the option log in place of stderr (rule B19)", async () => {
  const app: App = (_request, info) => {
    info.log("a line");
    return new Response("x");
  };
  for (const SERVER_SOFTWARE of ["nginx/1.22.1", "mini_httpd/1.30"]) {
    const lines: string[] = [];
    const log = (line: string) => void lines.push(line);
    const { stderr } = await run(app, { SERVER_SOFTWARE }, undefined, { log });
    assertEquals([lines, stderr], [["a line"], ""]);
    const failing = () => {
      throw new Error("the disk is full");
    };
    const { stderr: rest, body } = await run(app, { SERVER_SOFTWARE }, undefined, { log: failing });
    assertEquals([rest, text(body)], [SERVER_SOFTWARE.startsWith("nginx") ? "a line\n" : "", "x"]);
  }
});

Deno.test("serveCGI() continues after a partial write", async () => {
  const stdout = new Buffer();
  const one = { write: (part: Uint8Array) => stdout.write(part.slice(0, 7)) };
  const body = pattern(1000);
  const served = serveCGI(() => new Response(body), {
    env: env(""),
    stdin: new Buffer(),
    stdout: one,
  });
  await deadline(served, "the response");
  assertEquals(stdout.bytes().slice(-1000), body);
});

Deno.test("serveCGI() aborts the signal when a write to stdout fails (rule B22)", async () => {
  const cancelled = Promise.withResolvers<unknown>();
  let signal: AbortSignal | undefined;
  const stderr = new Buffer();
  const options: CGIOptions = {
    env: env(""),
    stdin: new Buffer(),
    stdout: { write: () => Promise.reject(new Deno.errors.BrokenPipe("Broken pipe")) },
    stderr,
  };
  const served = serveCGI((request) => {
    signal = request.signal;
    return new Response(new ReadableStream({ cancel: cancelled.resolve }));
  }, options);
  await deadline(served, "the script's end");
  await deadline(cancelled.promise, "the cancelling of the body");
  assert(signal!.aborted);
  assertEquals(signal!.reason.name, "AbortError");
  assertEquals(text(stderr.bytes()), "");
});

Deno.test("serveCGI() buffers no more than maxBufferedBody while stdout blocks (rule B20)", async () => {
  const body = pattern(1_000_000);
  const stdin = new Counted(body);
  const buffered = Promise.withResolvers<void>();
  const gate = Promise.withResolvers<void>();
  const stdout = new Buffer();
  const served = serveCGI((request) => new Response(request.body), {
    env: env("", post(body)),
    stdin: {
      read(buffer) {
        if (stdin.count >= 300_000) buffered.resolve();
        return stdin.read(buffer);
      },
    },
    stdout: {
      async write(part) {
        await gate.promise;
        return stdout.write(part);
      },
    },
    maxBufferedBody: 400_000,
  });
  await deadline(buffered.promise, "the body to be read on");
  for (let i = 0; i < 20; i++) await new Promise((resolve) => setTimeout(resolve, 0));
  // The buffered part, the part that the app has taken, and a read.
  assertLess(stdin.count, 400_000 + 3 * 65536);
  gate.resolve();
  await deadline(served, "the script's end");
  assertEquals(stdout.bytes().slice(-body.length), body);
});

Deno.test("serveCGI() accepts an object with fetch, and does not change its options", async () => {
  const app = {
    name: "Site",
    fetch() {
      return new Response(this.name);
    },
  };
  assertEquals(text((await run(app)).body), "Site");
  const failing = () => Promise.reject(new Error("the secret"));
  const plain = await run(failing);
  assertEquals([plain.status, text(plain.body)], [500, "500 Internal Server Error\n"]);
  assertStringIncludes(plain.stderr, "Error: the secret\n    at ");
  const onError = () => new Response("sorry", { status: 503 });
  assertEquals((await run(failing, {}, undefined, { onError })).status, 503);
  const debug = await run(failing, {}, undefined, { debug: true });
  assertStringIncludes(text(debug.body), "the secret");
});

Deno.test("serveCGI() leaves the console and the exit code alone if streams and environment are options", async () => {
  const { log } = console;
  await run(() => new Response(), { REQUEST_METHOD: "" });
  assertEquals([console.log === log, Deno.exitCode], [true, 0]);
});

Deno.test("a script serves its environment's request with only --allow-env", async () => {
  const outcome = await runScript(script, env("/a b", { QUERY_STRING: "q=1" }));
  assertEquals([outcome.status, outcome.code, outcome.stderr], [200, 0, ""]);
  assertEquals(JSON.parse(text(outcome.body)), {
    url: "http://example.org/cgi-bin/script.ts/a%20b?q=1",
    script: "/cgi-bin/script.ts",
    path: "/a b",
    protocol: "cgi",
  });
});

Deno.test("a script without --allow-env logs this, and responds with 500 (rule B18)", async () => {
  for (const permissions of [[], ["--allow-env=HOME"]]) {
    const outcome = await runScript(script, env("/"), undefined, { permissions });
    assertEquals([outcome.status, text(outcome.body)], [500, "500 Internal Server Error\n"]);
    assertMatch(outcome.stderr, /^Cannot serve CGI as the script must be run with --allow-env: /);
    assertEquals(outcome.code, 1);
  }
});

Deno.test("a script without REQUEST_METHOD refuses to run (rules A2, B18)", async () => {
  const outcome = await runScript(script, env("/", { REQUEST_METHOD: "" }));
  assertEquals([outcome.status, outcome.code], [500, 1]);
  assertMatch(outcome.stderr, /REQUEST_METHOD is absent/);
});

Deno.test("a script takes a path that is not UTF-8 from REQUEST_URI (rule A18)", async () => {
  // No string of ours becomes such an environment; a shell's does.
  const child = new Deno.Command("sh", {
    args: [
      "-c",
      `PATH_INFO=$(printf '/caf\\351') HTTP_X_BAD=$(printf '\\351') exec "$0" run --no-prompt --no-config --allow-env "$1"`,
      Deno.execPath(),
      script.href,
    ],
    env: env("/", { REQUEST_URI: "/cgi-bin/script.ts/caf%E9" }),
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
  });
  const { stdout, stderr, code } = await deadline(child.output(), "the script's end");
  assertEquals([code, text(stderr)], [0, ""]);
  const seen = JSON.parse(text(stdout).split("\r\n\r\n")[1]);
  assertEquals(seen.url, "http://example.org/cgi-bin/script.ts/caf%E9");
  assertEquals(seen.script, "/cgi-bin/script.ts");
});

/** Runs the test script with variables of any bytes, which no string of ours becomes. */
async function runWithBytes(variables: Record<string, string>): Promise<Record<string, unknown>> {
  const entries = { ...env("/variables"), ...variables };
  const list = await Deno.makeTempFile();
  const args = Object.entries(entries).map(([name, value]) => `${name}=${value}\0`);
  const command = [
    Deno.execPath(),
    "run",
    "--no-prompt",
    "--no-config",
    "--allow-env",
    script.href,
  ];
  await Deno.writeFile(list, bytes(args.join("") + command.map((arg) => `${arg}\0`).join("")));
  const child = new Deno.Command("xargs", {
    args: ["-0", "-a", list, "env"],
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
  });
  const { stdout, stderr } = await deadline(child.output(), "the script's end");
  await Deno.remove(list);
  assertEquals(text(stderr), "");
  return JSON.parse(new TextDecoder().decode(stdout).split("\r\n\r\n")[1]);
}

Deno.test("a script has the query and the cookies that are not UTF-8 (rule A18)", async () => {
  const seen = await runWithBytes({
    REQUEST_URI: "/cgi-bin/script.ts/variables?q=caf\xe9",
    QUERY_STRING: "q=caf\xe9",
    HTTP_COOKIE: "a=caf\xe9; b=2",
  });
  assertEquals(seen.url, "http://example.org/cgi-bin/script.ts/variables?q=caf%E9");
  assertEquals(seen.cookie, "a=caf\xe9; b=2");
});

Deno.test("a script has its variables byte for byte, whatever the bytes (rule A18)", async () => {
  const names = "AUTH_TYPE PATH_TRANSLATED QUERY_STRING REMOTE_HOST REMOTE_IDENT REMOTE_USER " +
    "SERVER_SOFTWARE DOCUMENT_ROOT SCRIPT_FILENAME REDIRECT_URL HTTP_ACCEPT HTTP_ACCEPT_LANGUAGE " +
    "HTTP_AUTHORIZATION HTTP_COOKIE HTTP_FROM HTTP_IF_NONE_MATCH HTTP_RANGE HTTP_REFERER HTTP_USER_AGENT " +
    "HTTP_X_FORWARDED_FOR";
  const byte = fc.integer({ min: 1, max: 255 }).filter((byte) => byte !== 10 && byte !== 13);
  // Bytes of UTF-8 sequences and of escapes, whole and cut off, besides any others.
  const piece = fc.oneof(
    byte.map((byte) => String.fromCharCode(byte)),
    fc.constantFrom(
      "\xe2\x82\xac",
      "\xcc\x81",
      "\xf0\x9f\x98\x80",
      "\xf0\x9f",
      "\\",
      '"',
      "'",
      "\\x41",
      "\x7f",
    ),
  );
  const value = fc.array(piece, { minLength: 1, maxLength: 30 }).map((pieces) => pieces.join(""));
  const rounds = fc.sample(fc.tuple(...names.split(" ").map(() => value)), {
    numRuns: 20,
    seed: 7,
  });
  for (const values of rounds) {
    const given = Object.fromEntries(names.split(" ").map((name, i) => [name, values[i]]));
    const { variables } = await runWithBytes(given);
    for (const [name, value] of Object.entries(given)) {
      assertEquals((variables as Record<string, string>)[name], toText(value), name);
    }
  }
});

const aliveScript = new URL("./testing/alive_script.ts", import.meta.url);

Deno.test("a script that leaves something alive ends after exitTimeout, and the log says so", async () => {
  const after = "after serveCGI()\n";
  const runs: [path: string, timeout: string | undefined, code: number][] = [
    ["/timer", "100", 0],
    ["/timer", "0", 0],
    ["/timer", undefined, 0],
    ["/channel", "100", 1],
  ];
  for (const [path, timeout, code] of runs) {
    const variables: Record<string, string> = timeout === undefined
      ? {}
      : { X_EXIT_TIMEOUT: timeout };
    const outcome = await runScript(aliveScript, env(path, variables));
    assertEquals([outcome.status, outcome.code, text(outcome.body)], [200, code, "alive"]);
    assertStringIncludes(outcome.stderr, after);
    assertStringIncludes(
      outcome.stderr,
      `Exited the script ${timeout ?? 1000} ms after its response`,
    );
  }
  const outcome = await runScript(aliveScript, env("/over", { X_EXIT_TIMEOUT: "0" }));
  assertEquals([outcome.status, outcome.code, outcome.stderr], [200, 0, after]);
});

Deno.test("a script's log is written at once if options.stderr has writeSync(), as the script may exit next", async () => {
  let log = "";
  const stderr = {
    write: () => new Promise<number>(() => {}),
    writeSync(bytes: Uint8Array): number {
      log += text(bytes);
      return bytes.length;
    },
  };
  const app: App = (_request, { log }) => {
    log("from the app");
    return new Response();
  };
  await serveCGI(app, { env: env("/"), stdin: new Buffer(), stdout: new Buffer(), stderr });
  assertEquals(log, "from the app\n");
});

Deno.test("requestTimeout: a script responds with 503 and exits, whatever its app waits for (rule B18)", async () => {
  for (const path of ["/never", "/slow"]) {
    const outcome = await runScript(aliveScript, env(path, { X_EXIT_TIMEOUT: "0" }));
    assertEquals([outcome.status, outcome.code], [503, 0]);
    assertStringIncludes(
      outcome.stderr,
      `Responded with 503 to GET /cgi-bin/script.ts${path}. The app must respond within 50 ms (requestTimeout): it has not\n`,
    );
    assertEquals(outcome.stderr.includes("Exited the script"), path === "/slow");
  }
});

Deno.test("exitTimeout: Infinity keeps a script alive", async () => {
  const child = spawn(aliveScript, env("/timer", { X_EXIT_TIMEOUT: "Infinity" }));
  await child.stdin.close();
  // stdout stays open as long as the script lives.
  const reader = child.stdout.getReader();
  for (let seen = ""; !seen.endsWith("alive");) {
    seen += text((await deadline(reader.read(), "the response")).value!);
  }
  const ended = reader.read().then(({ done }) => done);
  const log = child.stderr.getReader();
  await deadline(log.read(), "the line after serveCGI()");
  assertEquals(await Promise.race([ended, turns(200).then(() => "alive")]), "alive");
  child.kill();
  assertEquals(await deadline(ended, "the script's end"), true);
  await log.cancel();
  await child.status;
});

Deno.test("a script has no HTTP_PROXY, nor have its children (rule A27)", async () => {
  const outcome = await runScript(script, env("/proxy", { HTTP_PROXY: "http://127.0.0.1:1/" }));
  assertEquals(JSON.parse(text(outcome.body)), [false, false, false]);
});

Deno.test("a script takes nothing from its arguments (rules A31, F11)", async () => {
  const args = ["--help", "-d", "x=1"];
  const outcome = await runScript(script, env("/arguments"), undefined, { args });
  assertEquals(JSON.parse(text(outcome.body)), "http://example.org/cgi-bin/script.ts/arguments");
});

Deno.test("what a script logs goes to stderr, whatever method of the console it uses (rule B19)", async () => {
  const outcome = await runScript(script, env("/console"));
  assertEquals(text(outcome.stdout), outcome.head + "clean");
  assertEquals([outcome.status, outcome.code], [200, 0]);
  assert(outcome.stderr.split("corrupted").length > 15, outcome.stderr);
  assertStringIncludes(outcome.stderr, "corrupted: 2\n");
  // deno-lint-ignore no-control-regex
  assertFalse(/\x1b/.test(outcome.stderr));
});

Deno.test("a script that throws: 500, the stack on stderr (rules B17, B18)", async () => {
  const outcome = await runScript(script, env("/throw"));
  assertEquals([outcome.status, text(outcome.body)], [500, "500 Internal Server Error\n"]);
  assertMatch(outcome.stderr, /^Error: the secret\n\s+at .*script\.ts/);
});

Deno.test("a script whose response is aborted exits with 1 (rules B17, B18)", async () => {
  const outcome = await runScript(script, env("/break"));
  assertEquals([outcome.status, text(outcome.body), outcome.code], [200, "xxx", 1]);
  assertStringIncludes(outcome.stderr, "Error: broken");
});

Deno.test("a script echoes what is written while it is read", async () => {
  const body = pattern(1_000_000);
  const outcome = await runScript(script, env("/echo", post(body)), body);
  assertEquals([outcome.status, outcome.code], [200, 0]);
  assertEquals(outcome.body, body);
});

for (const path of ["/echo", "/echo-small", "/length", "/unread"]) {
  Deno.test(`a script does ${path} for a server that writes all 10 MB before it reads (rule B20)`, async () => {
    const body = pattern(10_000_000);
    const child = spawn(script, env(path, post(body)));
    // As mod_cgi: nothing is read before all is written.
    await deadline(feed(child, body), "the end of the body", 30_000);
    const { stdout, stderr, code } = await deadline(child.output(), "the script's end", 30_000);
    assertEquals([code, text(stderr)], [0, ""]);
    const response = stdout.slice(text(stdout.subarray(0, 1000)).indexOf("\r\n\r\n") + 4);
    if (path === "/length") assertEquals(text(response), "10000000");
    else if (path === "/unread") assertEquals(response.length, 10_000_000);
    else assertEquals(concat([response]), body);
  });
}

Deno.test("a script does not wait for a body that it no longer wants (rule B20)", async () => {
  const child = spawn(script, env("/begun", { REQUEST_METHOD: "POST", CONTENT_LENGTH: "1000" }));
  const writer = child.stdin.getWriter();
  await writer.write(bytes("some"));
  // Standard input stays open, and nothing more comes.
  const { stdout, stderr, code } = await deadline(child.output(), "the script's end");
  assertEquals([code, text(stderr)], [0, ""]);
  assertStringIncludes(text(stdout), "Status: 413 ");
  await writer.abort().catch(() => {});
});

Deno.test("a script ends quietly when the server reads no more (rule B22)", async () => {
  const child = spawn(script, env("/endless"));
  await child.stdin.close();
  const reader = child.stdout.getReader();
  assertStringIncludes(
    text((await deadline(reader.read(), "the response")).value!),
    "Status: 200 OK",
  );
  await reader.cancel();
  const stderr = await deadline(new Response(child.stderr).text(), "stderr's end");
  const { code } = await deadline(child.status, "the script's end");
  assertEquals([stderr, code], ["aborted\n", 0]);
});

Deno.test("examples/hello.ts is a CGI script by its environment (rule A1)", async () => {
  const hello = new URL("../examples/hello.ts", import.meta.url);
  const outcome = await runScript(hello, env(""));
  assertEquals([outcome.status, outcome.code, outcome.stderr], [200, 0, ""]);
  assertEquals(text(outcome.body), "Hello from Gatehouse\n");
  const head = await runScript(hello, env("", { REQUEST_METHOD: "HEAD" }));
  assertEquals([head.status, head.body.length], [200, 0]);
});
