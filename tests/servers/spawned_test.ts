/** Applications that another program starts with a listening socket, called with libfcgi's client. */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { eventually, freePort, type Rig, Suite, within } from "./harness.ts";

const CLIENT = { "cgi-fcgi": "libfcgi-bin" };

/** Sends a request with libfcgi's client, which takes its variables and body as a CGI script does. */
async function sendRequest(address: string, env: Record<string, string>, body?: Uint8Array) {
  const child = new Deno.Command("cgi-fcgi", {
    args: ["-bind", "-connect", address.replace("unix:", "")],
    clearEnv: true,
    env: {
      GATEWAY_INTERFACE: "CGI/1.1",
      REQUEST_METHOD: body ? "POST" : "GET",
      REQUEST_URI: "/hello",
      HTTP_HOST: "example.com",
      ...(body ? { CONTENT_LENGTH: String(body.length) } : {}),
      ...env,
    },
    stdin: "piped",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  const send = async () => {
    const writer = child.stdin.getWriter();
    if (body) await writer.write(body);
    await writer.close();
  };
  const [{ stdout, stderr }] = await within(
    "cgi-fcgi ends",
    Promise.all([child.output(), send()]),
  );
  const text = new TextDecoder().decode(stdout);
  const end = text.indexOf("\r\n\r\n");
  return {
    head: text.slice(0, end).split("\r\n"),
    body: text.slice(end + 4),
    stderr: new TextDecoder().decode(stderr),
  };
}

const HELLO = "Hello from Gatehouse\n";

const spawned = new Suite("spawn-fcgi", { "spawn-fcgi": "spawn-fcgi", ...CLIENT }, async (rig) => {
  const tcp = `127.0.0.1:${freePort()}`;
  const unix = `unix:${rig.dir}/spawned.sock`;
  return {
    tcp,
    unix,
    three: await spawn(rig, ["-a", "127.0.0.1", "-p", tcp.split(":")[1], "-F", "3"]),
    one: await spawn(rig, ["-s", unix.slice("unix:".length)]),
  };
});

/** Runs spawn-fcgi with examples/hello.ts, and returns the pids of the processes that it starts. */
async function spawn(rig: Rig, args: string[]): Promise<number[]> {
  const program = rig.spawn("spawn-fcgi", "spawn-fcgi", [
    ...args,
    "--",
    `${rig.root}/examples/hello.ts`,
  ]);
  const { success } = await within("spawn-fcgi forks", program.process.status);
  assert(success, rig.takeLog());
  const pids = [...program.output.matchAll(/PID: (\d+)/g)].map((match) => Number(match[1]));
  rig.use({
    [Symbol.dispose]() {
      for (const pid of pids.filter(isAlive)) Deno.kill(pid, "SIGKILL");
    },
  });
  return pids;
}

/** Returns whether a process runs and is no zombie. Uses `cat` since Deno reads /proc with --allow-all only. */
function isAlive(pid: number): boolean {
  const { stdout } = new Deno.Command("cat", { args: [`/proc/${pid}/status`] }).outputSync();
  return /^State:\s+[^ZX]/m.test(new TextDecoder().decode(stdout));
}

spawned.test("runs examples/hello.ts in one process on a Unix socket", async ({ unix, one }) => {
  const { head, body } = await sendRequest(unix, {});
  assertEquals([head[0], body], ["Status: 200 OK", HELLO]);
  assertEquals(one.length, 1);
});

spawned.test("runs examples/hello.ts in three processes that share a socket", async (started) => {
  const { tcp, three } = started;
  assertEquals(three.length, 3);
  for (const left of [3, 2, 1]) {
    assertEquals(three.filter(isAlive).length, left);
    assertEquals((await sendRequest(tcp, {})).body, HELLO);
    const pid = three.find(isAlive)!;
    Deno.kill(pid, "SIGTERM");
    await eventually("a process ends on SIGTERM", () => !isAlive(pid));
  }
});

const systemd = new Suite(
  "systemd",
  { "systemd-socket-activate": "systemd", ...CLIENT },
  async (rig) => {
    const address = `127.0.0.1:${freePort()}`;
    const program = rig.spawn("systemd-socket-activate", "systemd-socket-activate", [
      ...["-l", address, "-E", "PATH", "-E", "DENO_DIR"],
      `${rig.root}/examples/hello.ts`,
    ]);
    await eventually("systemd-socket-activate listens", () => program.output.includes("Listening"));
    return address;
  },
);

systemd.test("runs examples/hello.ts on a socket of LISTEN_FDS", async (address) => {
  for (let i = 0; i < 2; i++) {
    const { head, body } = await sendRequest(address, {});
    assertEquals([head[0], body], ["Status: 200 OK", HELLO]);
  }
});

const libfcgi = new Suite(
  "cgi-fcgi",
  CLIENT,
  (rig) => rig.daemon("fastcgi", `unix:${rig.dir}/app.sock`),
);

libfcgi.test("sends a GET with the variables of the environment", async (address) => {
  const { head, body } = await sendRequest(address, { REQUEST_URI: "/x?q=1", HTTP_COOKIE: "a=1" });
  assertEquals(head[0], "Status: 200 OK");
  const { url, headers } = JSON.parse(body);
  assertEquals([url, headers.cookie], ["http://example.com/x?q=1", "a=1"]);
});

libfcgi.test("sends a POST larger than the pipe buffers", async (address) => {
  const body = new Uint8Array(2_000_000).fill(97);
  const response = await sendRequest(address, { REQUEST_URI: "/pipe" }, body);
  assertEquals(response.body.length, body.length);
});

libfcgi.test("writes the app's log to stderr", async (address) => {
  const { head, stderr } = await sendRequest(address, { REQUEST_URI: "/throw" });
  assertEquals(head[0], "Status: 500 Internal Server Error");
  assertStringIncludes(stderr, "the cause, which is secret");
});
