import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { fetchFastCGI, fetchSCGI } from "../gateway.ts";
import {
  callCommandLine,
  importMapFlags,
  runCommandLine,
  served,
  startServe,
} from "./testing/command_line.ts";
import { ROOT } from "./testing/daemon.ts";
import { deadline } from "./testing/deadline.ts";
import { handDown, type HandedDown } from "./testing/hand_down.ts";

const HELLO = `${ROOT}examples/hello.ts`;

const ALL = ["--allow-all"];

const run = (...args: string[]) => runCommandLine(args, [`--allow-read=${ROOT}`]);

Deno.test("cli prints its help and its version", async () => {
  for (const args of [["--help"], ["-h"], ["help"]]) {
    const { code, stdout, stderr } = await run(...args);
    assertStringIncludes(stdout, "gatehouse COMMAND");
    assertEquals([code, stderr], [0, ""]);
  }
  const { version } = JSON.parse(await Deno.readTextFile(`${ROOT}deno.json`));
  assertEquals((await run("--version")).stdout.trim(), version);
  assertEquals((await run("-V")).stdout.trim(), version);
});

Deno.test("cli prints the help of a command, with an example", async () => {
  const { code, stdout } = await run("help", "serve");
  assertStringIncludes(stdout, "--protocol");
  assertStringIncludes(stdout, "Example:");
  assertEquals(code, 0);
  for (const args of [["serve", "--help"], ["serve", "app.ts", "-h"]]) {
    assertEquals((await run(...args)).stdout, stdout);
  }
});

Deno.test("cli prints its help on stderr if a command or operand is missing", async () => {
  for (const [args, text] of [[[], "gatehouse COMMAND"], [["serve"], "gatehouse serve MODULE"]]) {
    const { code, stdout, stderr } = await run(...args);
    assertStringIncludes(stderr, text as string);
    assertEquals([code, stdout], [2, ""]);
  }
});

const MISTAKES: [args: string[], message: string][] = [
  [["serv", HELLO], `There is no command "serv". Did you mean serve?`],
  [["help", "deploy"], `There is no command "deploy". Type --help for all commands.`],
  [["serve"], "Name the app's module, as in: serve app.ts"],
  [["serve", HELLO, "more"], `One module is served: "more" is one too many.`],
  [["serve", `${ROOT}absent.ts`], `${ROOT}absent.ts does not exist.`],
  [["serve", `${ROOT}examples/`], `${ROOT}examples/ is a folder. Name the app's module in it`],
  [
    ["serve", HELLO, "--protcol", "scgi"],
    "There is no option --protcol. Did you mean --protocol?",
  ],
  [["serve", HELLO, "-x"], "There is no option -x."],
  [["serve", HELLO, "-p", "scgi", "--protocol=http"], "--protocol is given twice."],
  [["serve", HELLO, "--debug", "--debug"], "--debug is given twice."],
  [["serve", HELLO, "--protocol", "uwsgi"], "--protocol must be fastcgi, scgi, http"],
  [["serve", HELLO, "--listen", "9000"], "it must be host:port or unix:/path"],
  [["serve", HELLO, "--listen", "9000"], "Did you mean 127.0.0.1:9000?"],
  [["serve", HELLO, "--listen", "/tmp/x.sock"], "Did you mean unix:/tmp/x.sock?"],
  [["serve", HELLO, "--listen", "./x.sock"], "Did you mean unix:./x.sock?"],
  [["serve", HELLO, "--listen", "localhost"], "Did you mean localhost:9000?"],
  [["serve", HELLO, "--listen", "http://127.0.0.1:9000/"], "Did you mean 127.0.0.1:9000?"],
  [["serve", HELLO, "--listen", "::1:9000"], "Did you mean [::1]:9000?"],
  [["serve", HELLO, "--listen", "::1"], "Did you mean [::1]:9000?"],
  [["serve", HELLO, "--port", "3000"], "There is no option --port. Use --listen 127.0.0.1:3000."],
  [["serve", HELLO, "--port=3000"], "Use --listen 127.0.0.1:3000."],
  [["serve", HELLO, "--port", "--debug"], "Use --listen 127.0.0.1:PORT."],
  [["serve", HELLO, "--host", "10.0.0.1"], "Use --listen 10.0.0.1:PORT."],
  [["serve", HELLO, "--bind", "10.0.0.1:80"], "Use --listen 10.0.0.1:80."],
  [["serve", HELLO, "--socket", "/tmp/a"], "Use --listen unix:/tmp/a."],
  [["serve", HELLO, "--threads", "4"], "Use --workers 4."],
  [["serve", HELLO, "--scgi"], "Use --protocol scgi."],
  [["serve", HELLO, "--reload"], "Use dev, which loads the app again when it changes"],
  [["serve", HELLO, "--constructor"], "There is no option --constructor."],
  [["--verison"], `There is no command "--verison". Did you mean --version?`],
  [["-v"], "Did you mean --version?"],
  [["--hepl"], "Did you mean --help?"],
  [["run", HELLO], "Did you mean serve?"],
  [["./app.ts"], "Did you mean serve ./app.ts?"],
  [["serve", HELLO, "--listen"], "--listen needs a value."],
  [["serve", HELLO, "--listen", "0.0.0.0:9000"], "use --allow-remote"],
  [["serve", HELLO, "-l", "127.0.0.1:0", "-l", "[::]:9000"], "use --allow-remote"],
  [["serve", HELLO, "-p", "http", "-l", "fd:3"], "http cannot take an inherited socket"],
  [["serve", HELLO, "-p", "http", "--redact-query"], "over HTTP Deno exports the URL"],
  [["serve", HELLO, "--mode", "rw"], "--mode must be octal"],
  [["serve", HELLO, "--workers", "0"], "--workers must be a number from 1"],
  [["serve", HELLO, "--workers", "2", "-l", ":1", "-l", ":2"], "name one --listen"],
  [["serve", HELLO, "--protocol", "http", "--workers", "2"], "deno serve --parallel"],
  [["serve", HELLO, "--base-path", "app"], "--base-path must be auto or begin with /"],
  [["serve", HELLO, "--trust-forwarded=proxy"], "--trust-forwarded must be addresses, ranges"],
  [["serve", HELLO, "--max-body", "big"], "--max-body must be a number of bytes"],
  [["serve", HELLO, "-p", "http", "--max-body", "1m"], "--max-body is for fastcgi and scgi"],
  [["serve", HELLO, "--shutdown-timeout", "x"], "--shutdown-timeout must be a number from 0"],
  [["serve", HELLO, "--access-log=csv"], "--access-log must be common, combined, json"],
  [["serve", HELLO, "-p", "scgi", "--log", "server"], "scgi does not carry a log"],
  [["serve", `${ROOT}wire/cgi.ts`], "must export an app as its default"],
];
for (const [args, message] of MISTAKES) {
  Deno.test(`cli explains how to correct: ${args.slice(2).join(" ") || args.join(" ").slice(0, 20)}`, async () => {
    const { code, stderr } = await callCommandLine(...args);
    assertStringIncludes(stderr, message);
    assertEquals(code, 2);
  });
}

Deno.test("cli reports the missing permission", async () => {
  const { code, stderr } = await run("serve", HELLO, "--listen", "127.0.0.1:0");
  assertEquals(code, 1);
  assertStringIncludes(stderr, `Type --allow-net=127.0.0.1:0 after "deno run"`);
});

const DENIED: [args: string[], flags: string[], message: string][] = [
  [
    ["serve", HELLO],
    [],
    `Cannot load ${HELLO} as Deno denies read access to "${HELLO}". Type --allow-read=${ROOT}examples after "deno run"`,
  ],
  [
    ["serve", HELLO, "--check"],
    [`--allow-read=${HELLO}`],
    `as Deno denies read access to "${ROOT}mod.ts". Type --allow-read=${ROOT.slice(0, -1)} after`,
  ],
  [
    ["dev", HELLO],
    [],
    `Deno denies read access to "${HELLO}". Type --allow-read=${HELLO} after "deno run", as in:\n\n  deno run --allow-all jsr:@gatehouse/cgi@0.3/cli dev app.ts`,
  ],
  [
    ["dev", `${ROOT}examples`],
    [`--allow-read=${ROOT}`],
    `Deno denies env access to "HOME". Type --allow-env=HOME after`,
  ],
  [
    ["doctor", HELLO],
    [],
    `after "deno run", as in:\n\n  deno run --allow-all jsr:@gatehouse/cgi@0.3/cli doctor`,
  ],
];
for (const [args, flags, message] of DENIED) {
  Deno.test(`cli reports what Deno denies to ${[...flags, ...args].join(" ").replaceAll(ROOT, "")}`, async () => {
    const { code, stderr } = await runCommandLine(args, flags);
    assertStringIncludes(stderr, message);
    assert(!stderr.includes("    at "), stderr);
    assertEquals(code, 1);
  });
}

Deno.test("cli shows where an app does what Deno denies", async () => {
  const module = await Deno.makeTempFile({ suffix: ".ts" });
  await Deno.writeTextFile(module, "function load() { Deno.env.get('HOME'); }\nload();");
  const { code, stderr } = await runCommandLine(["serve", module], [`--allow-read=${module}`]);
  assertStringIncludes(stderr, 'NotCapable: Requires env access to "HOME"');
  assertMatch(stderr, /at load \(file:.*\.ts:1:/);
  assertEquals(code, 1);
  await Deno.remove(module);
});

Deno.test("cli reports the flags that workers need", async () => {
  const { code, stderr } = await run("serve", HELLO, "--workers", "2");
  assertStringIncludes(stderr, `--workers needs --allow-run=${Deno.execPath()} --allow-env`);
  assertEquals(code, 1);
});

Deno.test("cli prints no control characters in its messages", async () => {
  const folder = await Deno.makeTempDir();
  const app = `${folder}/app.ts`;
  await Deno.writeTextFile(app, 'throw new Error("a\\x1b[2Jb\\n\\u202ec");\n');
  const commands = [
    ["\x1b[2Jserve"],
    ["serve", "--\x1b[2J"],
    ["doctor", "a\x9bb", "c\x07"],
    ["serve", app, "--check"],
  ];
  for (const args of commands) {
    const { stdout, stderr } = await runCommandLine(args, ALL);
    assertEquals(stdout, "");
    assertMatch(stderr, /\\x1b|\\x07/);
    // deno-lint-ignore no-control-regex
    assertEquals(/[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]/.exec(stderr), null, stderr);
  }
  await Deno.remove(folder, { recursive: true });
});

Deno.test("cli reports that systemd passes no socket", async () => {
  const { code, stderr } = await run("serve", HELLO, "--listen", "systemd");
  assertStringIncludes(stderr, "Cannot listen on systemd's socket as LISTEN_FDS must name one");
  assertEquals(code, 1);
});

Deno.test("cli reports that systemd passes the socket to another process", async () => {
  const args = ["serve", HELLO, "--listen", "systemd"];
  const env = { LISTEN_FDS: "1", LISTEN_PID: "1" };
  const { code, stderr } = await runCommandLine(args, ["--allow-read", "--allow-env"], { env });
  assertMatch(stderr, /LISTEN_PID must be this process, \d+: current value is "1"\. .* by exec\n$/);
  assertEquals(code, 1);
});

Deno.test("cli reports an address in use, and suggests another", async () => {
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const { port } = listener.addr;
  for (const more of [["-p", "fastcgi"], ["-p", "http"], ["--workers", "2"]]) {
    await using daemon = startServe(HELLO, ["--listen", `127.0.0.1:${port}`, ...more], ALL);
    const { code } = await deadline(daemon.child.status, "the end of the command line");
    await daemon.ended;
    assertStringIncludes(
      daemon.log,
      `Cannot listen on 127.0.0.1:${port}: it is in use. Try --listen 127.0.0.1:${port + 1}`,
    );
    assertEquals(code, 1);
  }
});

Deno.test("cli shows the stack of an app that throws when it is imported", async () => {
  const directory = await Deno.makeTempDir({ dir: `${ROOT}tests` });
  try {
    const module = `${directory}/broken.ts`;
    await Deno.writeTextFile(
      module,
      `function load() { throw new Error("no database"); }\nload();`,
    );
    for (const more of [[], ["--check"]]) {
      const { code, stderr } = await run("serve", module, ...more);
      assertStringIncludes(stderr, "no database");
      assertMatch(stderr, /at load \(file:.*broken\.ts:1:/);
      assertEquals(code, 1);
    }
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
});

Deno.test("cli --check loads the app and ends", async () => {
  const { code, stdout } = await run("serve", HELLO, "--check");
  assertEquals([code, stdout], [0, `${HELLO} is an app\n`]);
});

for (const [protocol, request] of [["fastcgi", fetchFastCGI], ["scgi", fetchSCGI]] as const) {
  Deno.test(`cli serves a module over ${protocol}, TCP and Unix, and ends at SIGTERM`, async () => {
    const directory = await Deno.makeTempDir();
    for (const address of ["127.0.0.1:0", `unix:${directory}/app.sock`]) {
      await using daemon = startServe(HELLO, [
        "--protocol",
        protocol,
        "--listen",
        address,
        "--mode",
        "600",
      ], ["--allow-read", "--allow-write", "--allow-net"]);
      const actual = await served(daemon);
      assertEquals(
        await (await request("http://localhost/", actual)).text(),
        "Hello from Gatehouse\n",
      );
      if (address.startsWith("unix:")) {
        assertEquals((await Deno.stat(address.slice(5))).mode! & 0o777, 0o600);
      }
      assertEquals(await daemon.stop(), { success: true, code: 0, signal: null });
    }
    // The daemons removed their sockets.
    assertEquals([...Deno.readDirSync(directory)], []);
    await Deno.remove(directory);
  });
}

Deno.test("cli serves a module over HTTP", async () => {
  await using daemon = startServe(HELLO, ["--protocol", "http"]);
  const response = await fetch(`http://${await served(daemon)}/`);
  assertEquals(await response.text(), "Hello from Gatehouse\n");
});

Deno.test("cli serves HTTP on a Unix socket, with its mode", async () => {
  const directory = await Deno.makeTempDir();
  await Deno.writeTextFile(
    `${directory}/app.ts`,
    "export default (request) => new Response(request.url);",
  );
  const path = `${directory}/app.sock`;
  await using daemon = startServe(`${directory}/app.ts`, [
    "-p",
    "http",
    "-l",
    `unix:${path}`,
    "--mode",
    "600",
  ], ["--allow-read", "--allow-write", "--allow-net"]);
  assertEquals(await served(daemon), `unix:${path}`);
  assertEquals((await Deno.stat(path)).mode! & 0o777, 0o600);
  using client = Deno.createHttpClient({ proxy: { transport: "unix", path } });
  const response = await fetch("http://example.org/a?b", { client });
  assertEquals(await response.text(), "http://example.org/a?b");
  assertEquals((await daemon.stop()).code, 0);
  await Deno.remove(directory, { recursive: true });
});

Deno.test("cli --trust-forwarded takes the proxies to trust", async () => {
  for (const [proxies, scheme] of [["10.0.0.0/8,loopback", "https"], ["10.0.0.0/8", "http"]]) {
    const args = ["-p", "http", `--trust-forwarded=${proxies}`];
    await using daemon = startServe(`${ROOT}tests/conformance/app.ts`, args);
    const url = `http://${await served(daemon)}/`;
    const response = await fetch(url, { headers: { "x-forwarded-proto": "https" } });
    assertEquals(new URL((await response.json()).url).protocol, `${scheme}:`);
    assertEquals((await daemon.stop()).code, 0);
  }
});

Deno.test("cli serves several addresses", async () => {
  const directory = await Deno.makeTempDir();
  const unix = `unix:${directory}/app.sock`;
  await using daemon = startServe(HELLO, ["-l", "127.0.0.1:0", "-l", unix], ALL);
  await daemon.says(" on ", 2);
  for (const address of [/ on (127\S+)/.exec(daemon.log)![1], unix]) {
    const response = await fetchFastCGI("http://localhost/", address);
    assertEquals(await response.text(), "Hello from Gatehouse\n");
  }
  assertEquals((await daemon.stop()).code, 0);
  assertEquals([...Deno.readDirSync(directory)], []);
  await Deno.remove(directory);
});

const THROWS = "export default () => { throw new Error('out of ink'); };";

for (
  const [to, atServer, atStderr] of [["server", true, false], ["stderr", false, true], [
    "both",
    true,
    true,
  ]] as const
) {
  Deno.test(`cli --log ${to} writes errors of the app there`, async () => {
    const module = await Deno.makeTempFile({ suffix: ".ts" });
    await Deno.writeTextFile(module, THROWS);
    await using daemon = startServe(module, to === "both" ? [] : ["--log", to]);
    const lines: string[] = [];
    const response = await fetchFastCGI("http://localhost/", await served(daemon), {
      log: (line) => lines.push(line),
    });
    await response.body?.cancel();
    assertEquals((await daemon.stop()).code, 0);
    await daemon.ended;
    assertEquals(lines.join().includes("out of ink"), atServer);
    assertEquals(daemon.log.includes("out of ink"), atStderr);
    await Deno.remove(module);
  });
}

Deno.test("cli --max-body and --trust-forwarded reach the server, and --access-log writes a line", async () => {
  const module = await Deno.makeTempFile({ suffix: ".ts" });
  await Deno.writeTextFile(
    module,
    "export default async (request) => new Response(request.url + await request.text());",
  );
  await using daemon = startServe(
    module,
    ["--max-body", "1k", "--trust-forwarded", "--access-log"],
    ["--allow-read", "--allow-net"],
    { stdout: "piped" },
  );
  const address = await served(daemon);
  const headers = { "x-forwarded-proto": "https", "x-forwarded-host": "example.org" };
  const first = await fetchFastCGI(new Request("http://localhost/a", { headers }), address);
  assertEquals(await first.text(), "https://example.org/a");
  // Too long for the gateway to announce its length, so that the app is called.
  const body = "x".repeat(100_000);
  const second = await fetchFastCGI(
    new Request("http://localhost/b", { method: "POST", body }),
    address,
  );
  assertEquals(second.status, 413);
  await second.body?.cancel();
  assertEquals((await daemon.stop()).code, 0);
  const lines = (await new Response(daemon.child.stdout).text()).trim().split("\n");
  assertMatch(
    lines[0],
    /^- - - \[\d\d\/[A-Z][a-z]{2}\/\d{4}:[\d:]{8} \+0000\] "GET \/a HTTP\/1\.1" 200 21$/,
  );
  assertMatch(lines[1], /"POST \/b HTTP\/1\.1" 413 22$/);
  await Deno.remove(module);
});

async function assertGreets({ address, stop }: HandedDown): Promise<void> {
  try {
    const response = fetchFastCGI("http://localhost/", address);
    const text = await (await deadline(response, "the response")).text();
    assertEquals(text, "Hello from Gatehouse\n");
  } finally {
    assertEquals(await stop(), 0);
  }
}

for (const descriptor of [0, 3]) {
  Deno.test(`cli starts workers on a socket inherited as descriptor ${descriptor}`, async () => {
    const program = await handDown({ host: "127.0.0.1", port: 0 }, descriptor, {}, [
      ...importMapFlags(),
      "--allow-all",
      `${ROOT}cli.ts`,
      "serve",
      HELLO,
      "--listen",
      `fd:${descriptor}`,
      "--workers",
      "2",
      `--worker-flags=${[...importMapFlags(), "--allow-read"].join(" ")}`,
    ]);
    program.closeOurs();
    await assertGreets(program);
  });
}

Deno.test("cli serves the socket that systemd passes, unless --listen names another", async () => {
  const program = await handDown({ host: "127.0.0.1", port: 0 }, 3, { LISTEN_FDS: "1" }, [
    ...importMapFlags(),
    "--allow-read",
    "--allow-env",
    `${ROOT}cli.ts`,
    "serve",
    HELLO,
  ]);
  program.closeOurs();
  await assertGreets(program);
});

Deno.test("cli rejects a descriptor that is not a socket for workers", async () => {
  await using daemon = startServe(HELLO, ["--listen", "fd:1234", "--workers", "2"], ALL);
  const { code } = await deadline(daemon.child.status, "the end of the command line");
  await daemon.ended;
  assertStringIncludes(daemon.log, "file descriptor 1234: it is not a listening socket");
  assertEquals(code, 1);
});

Deno.test("cli fails if no worker starts", async () => {
  const module = await Deno.makeTempFile({ suffix: ".ts" });
  await Deno.writeTextFile(module, "throw new Error('broken release')");
  await using daemon = startServe(module, [
    "--workers",
    "2",
    `--worker-flags=${[...importMapFlags(), "--allow-read"].join(" ")}`,
  ], ALL);
  const { code } = await deadline(daemon.child.status, "the end of the command line");
  assertStringIncludes(daemon.log, "broken release");
  assertStringIncludes(daemon.log, "Cannot start the workers: all ended before one served");
  assertEquals(code, 3);
  await Deno.remove(module);
});

Deno.test("cli without workers ignores SIGHUP, and logs its purpose", async () => {
  await using daemon = startServe(HELLO);
  const address = await served(daemon);
  daemon.child.kill("SIGHUP");
  await daemon.says("Ignored SIGHUP as it replaces workers");
  const response = await fetchFastCGI("http://localhost/", address);
  assertEquals(await response.text(), "Hello from Gatehouse\n");
  assertEquals(await daemon.stop(), { success: true, code: 0, signal: null });
});

for (const workers of [1, 2]) {
  Deno.test(`cli with --workers ${workers} replaces them at SIGHUP`, async () => {
    await using daemon = startServe(HELLO, ["--workers", String(workers)], ALL);
    await daemon.says("Workers: ");
    await daemon.says("Serving ", workers);
    daemon.child.kill("SIGHUP");
    await daemon.says("Serving ", 2 * workers);
    assertEquals(daemon.log.includes("Ignored SIGHUP"), false, daemon.log);
  });
}

Deno.test("cli passes its own permissions to workers, including partial ones", async () => {
  const module = await Deno.makeTempFile({ suffix: ".ts" });
  await Deno.writeTextFile(
    module,
    `const state = (descriptor) => Deno.permissions.querySync(descriptor).state;
export default () => Response.json([
  state({ name: "net", host: "127.0.0.1:0" }),
  state({ name: "net" }),
  state({ name: "write", path: "/srv/data" }),
  state({ name: "write" }),
]);`,
  );
  await using daemon = startServe(module, ["--workers", "1"], [
    "--allow-read",
    "--allow-env",
    `--allow-run=${Deno.execPath()}`,
    "--allow-net=127.0.0.1:0",
    "--allow-write=/srv/data",
  ]);
  const response = await fetchFastCGI("http://localhost/", await served(daemon));
  assertEquals(await response.json(), ["granted", "prompt", "granted", "prompt"]);
  await Deno.remove(module);
});

Deno.test("cli serves a module whose path has reserved characters of URLs", async () => {
  const directory = await Deno.makeTempDir();
  await Deno.writeTextFile(`${directory}/a`, "throw new Error('another module')");
  const app = `${directory}/a#b?c%20d.ts`;
  await Deno.writeTextFile(app, `export default () => new Response("the right one");`);
  for (const [module, cwd] of [[app, ROOT], ["a#b?c%20d.ts", directory]]) {
    await using daemon = startServe(module, [], ["--allow-read", "--allow-net"], { cwd });
    const response = await fetchFastCGI("http://localhost/", await served(daemon));
    assertEquals(await response.text(), "the right one");
  }
  await Deno.remove(directory, { recursive: true });
});
