import { assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { fetchFastCGI, fetchSCGI } from "../gateway.ts";
import { Daemon, ROOT } from "./testing/daemon.ts";
import { deadline } from "./testing/deadline.ts";
import { handDown, type HandedDown } from "./testing/hand_down.ts";

const HELLO = `${ROOT}examples/hello.ts`;

async function run(...args: string[]): Promise<{ code: number; stdout: string; stderr: string }> {
  const importMap = Deno.env.get("GATEHOUSE_IMPORT_MAP");
  const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: [
      "run",
      "--no-prompt",
      ...(importMap ? [`--import-map=${importMap}`] : []),
      `--allow-read=${ROOT}`,
      `${ROOT}cli.ts`,
      ...args,
    ],
    stdin: "null",
  }).output();
  const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
  return { code, stdout: text(stdout), stderr: text(stderr) };
}

Deno.test("cli prints its help and its version", async () => {
  const help = await run("--help");
  assertEquals(help.code, 0);
  assertStringIncludes(help.stdout, "--protocol");
  const { version } = JSON.parse(await Deno.readTextFile(`${ROOT}deno.json`));
  assertEquals((await run("--version")).stdout.trim(), version);
});

const MISTAKES: [args: string[], message: string][] = [
  [["serv", HELLO], `There is no command "serv": type serve and a module, as in: serve app.ts`],
  [["serve"], "Name the app's module, as in: serve app.ts"],
  [["serve", HELLO, "more"], `One module is served: "more" is one too many.`],
  [["serve", HELLO, "--protocl", "scgi"], "There is no option --protocl."],
  [["serve", HELLO, "--protocol", "uwsgi"], "--protocol must be fastcgi, scgi, http"],
  [["serve", HELLO, "--listen", "9000"], "it must be host:port or unix:/path"],
  [["serve", HELLO, "--listen"], "--listen needs a value."],
  [["serve", HELLO, "--listen", "0.0.0.0:9000"], "use --allow-remote"],
  [["serve", HELLO, "--protocol", "http", "--listen", "unix:/x"], "http must have host:port"],
  [["serve", HELLO, "--mode", "rw"], "--mode must be octal"],
  [["serve", HELLO, "--workers", "0"], "--workers must be a number from 1"],
  [["serve", HELLO, "--protocol", "http", "--workers", "2"], "deno serve --parallel"],
  [["serve", HELLO, "--base-path", "app"], "--base-path must be auto or begin with /"],
  [["serve", `${ROOT}wire/cgi.ts`], "must export an app as its default"],
];
for (const [args, message] of MISTAKES) {
  Deno.test(`cli says what to type: ${args.slice(2).join(" ") || args.join(" ").slice(0, 20)}`, async () => {
    const { code, stderr } = await run(...args);
    assertStringIncludes(stderr, message);
    assertEquals(code, 2);
  });
}

Deno.test("cli says which permission is missing", async () => {
  const { code, stderr } = await run("serve", HELLO, "--listen", "127.0.0.1:0");
  assertEquals(code, 1);
  assertMatch(stderr, /--allow-net/);
});

async function served(daemon: Daemon): Promise<string> {
  await daemon.says(" on ");
  return / on (\S+)/.exec(daemon.log)![1];
}

for (const [protocol, ask] of [["fastcgi", fetchFastCGI], ["scgi", fetchSCGI]] as const) {
  Deno.test(`cli serves a module over ${protocol}, TCP and Unix, and ends at SIGTERM`, async () => {
    const directory = await Deno.makeTempDir();
    for (const address of ["127.0.0.1:0", `unix:${directory}/app.sock`]) {
      await using daemon = new Daemon([
        "--allow-read",
        "--allow-write",
        "--allow-net",
        `${ROOT}cli.ts`,
        "serve",
        HELLO,
        "--protocol",
        protocol,
        "--listen",
        address,
        "--mode",
        "600",
      ]);
      const actual = await served(daemon) as "127.0.0.1:0";
      assertEquals(await (await ask("http://localhost/", actual)).text(), "Hello from Gatehouse\n");
      if (address.startsWith("unix:")) {
        assertEquals((await Deno.stat(address.slice(5))).mode! & 0o777, 0o600);
      }
      assertEquals(await daemon.stop(), { success: true, code: 0, signal: null });
    }
    // The sockets went with their daemons.
    assertEquals([...Deno.readDirSync(directory)], []);
    await Deno.remove(directory);
  });
}

Deno.test("cli serves a module over HTTP", async () => {
  await using daemon = new Daemon([
    "--allow-read",
    "--allow-net",
    `${ROOT}cli.ts`,
    "serve",
    HELLO,
    "--protocol",
    "http",
    "--listen",
    "127.0.0.1:0",
  ]);
  const response = await fetch(`http://${await served(daemon)}/`);
  assertEquals(await response.text(), "Hello from Gatehouse\n");
});

/** What `deno run` needs where it finds no JSR. */
function importMap(): string[] {
  const url = Deno.env.get("GATEHOUSE_IMPORT_MAP");
  return url ? [`--import-map=${url}`] : [];
}

async function assertGreets({ address, stop }: HandedDown): Promise<void> {
  try {
    const response = fetchFastCGI("http://localhost/", address as "127.0.0.1:0");
    const text = await (await deadline(response, "the response")).text();
    assertEquals(text, "Hello from Gatehouse\n");
  } finally {
    assertEquals(await stop(), 0);
  }
}

for (const descriptor of [0, 3]) {
  Deno.test(`cli has workers serve a socket handed down as descriptor ${descriptor}`, async () => {
    const program = await handDown({ host: "127.0.0.1", port: 0 }, descriptor, {}, [
      ...importMap(),
      "--allow-all",
      `${ROOT}cli.ts`,
      "serve",
      HELLO,
      "--listen",
      `fd:${descriptor}`,
      "--workers",
      "2",
      `--worker-flags=${[...importMap(), "--allow-read"].join(" ")}`,
    ]);
    program.closeOurs();
    await assertGreets(program);
  });
}

Deno.test("cli serves the socket that systemd hands over, where it is not told another", async () => {
  const program = await handDown({ host: "127.0.0.1", port: 0 }, 3, { LISTEN_FDS: "1" }, [
    ...importMap(),
    "--allow-read",
    "--allow-env",
    `${ROOT}cli.ts`,
    "serve",
    HELLO,
  ]);
  program.closeOurs();
  await assertGreets(program);
});

Deno.test("cli refuses to share a descriptor that is no socket", async () => {
  const { code, stderr } = await run("serve", HELLO, "--listen", "fd:1234", "--workers", "2");
  assertStringIncludes(stderr, "file descriptor 1234 as it must be a listening socket");
  assertEquals(code, 1);
});

Deno.test("cli ends with an error where no worker starts", async () => {
  const module = await Deno.makeTempFile({ suffix: ".ts" });
  await Deno.writeTextFile(module, "throw new Error('broken release')");
  await using daemon = new Daemon([
    "--allow-all",
    `${ROOT}cli.ts`,
    "serve",
    module,
    "--listen",
    "127.0.0.1:0",
    "--workers",
    "2",
    `--worker-flags=${[...importMap(), "--allow-read"].join(" ")}`,
  ]);
  const { code } = await deadline(daemon.child.status, "the end of the command line");
  assertStringIncludes(daemon.log, "broken release");
  assertStringIncludes(daemon.log, "Cannot start the workers as at least one must serve");
  assertEquals(code, 1);
  await Deno.remove(module);
});

for (const workers of [[], ["--workers", "1"]]) {
  Deno.test(`cli goes on at SIGHUP, and says what it is for: ${workers.join(" ")}`, async () => {
    await using daemon = new Daemon([
      "--allow-read",
      "--allow-net",
      `${ROOT}cli.ts`,
      "serve",
      HELLO,
      "--listen",
      "127.0.0.1:0",
      ...workers,
    ]);
    const address = await served(daemon) as "127.0.0.1:0";
    daemon.child.kill("SIGHUP");
    await daemon.says("Ignored SIGHUP as it replaces workers");
    const response = await fetchFastCGI("http://localhost/", address);
    assertEquals(await response.text(), "Hello from Gatehouse\n");
    assertEquals(await daemon.stop(), { success: true, code: 0, signal: null });
  });
}

Deno.test("cli with workers replaces them at SIGHUP, and does not say that it ignores it", async () => {
  await using daemon = new Daemon([
    "--allow-all",
    `${ROOT}cli.ts`,
    "serve",
    HELLO,
    "--listen",
    "127.0.0.1:0",
    "--workers",
    "2",
    `--worker-flags=${[...importMap(), "--allow-read"].join(" ")}`,
  ]);
  await daemon.says("Serving ", 2);
  daemon.child.kill("SIGHUP");
  await daemon.says("Serving ", 4);
  assertEquals(daemon.log.includes("Ignored SIGHUP"), false, daemon.log);
});

Deno.test("cli serves a module whose path has what a URL sets apart", async () => {
  const directory = await Deno.makeTempDir();
  await Deno.writeTextFile(`${directory}/a`, "throw new Error('another module')");
  const app = `${directory}/a#b?c%20d.ts`;
  await Deno.writeTextFile(app, `export default () => new Response("the right one");`);
  for (const [module, cwd] of [[app, ROOT], ["a#b?c%20d.ts", directory]]) {
    await using daemon = new Daemon(
      [
        "--allow-read",
        "--allow-net",
        `${ROOT}cli.ts`,
        "serve",
        module,
        "--listen",
        "127.0.0.1:0",
      ],
      { cwd },
    );
    const response = await fetchFastCGI("http://localhost/", await served(daemon) as "127.0.0.1:0");
    assertEquals(await response.text(), "the right one");
  }
  await Deno.remove(directory, { recursive: true });
});
