import { assertEquals, assertMatch } from "@std/assert";
import { once } from "node:events";
import { connect } from "node:http2";
import { RecordDecoder, RecordType } from "../../wire/fastcgi.ts";
import { behaviours, checkAuthority, type Site } from "./behaviours.ts";
import { Client, request, sendSlowHead, Witness } from "./client.ts";
import { configuration, snippet, Suite, within } from "./harness.ts";

/** Relays connections to a daemon, and tracks the requests on each. */
class Relay implements Disposable {
  #listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  /** The ids of the requests in progress, for each connection that was opened. */
  readonly connections: Set<number>[] = [];
  #daemon: Deno.ConnectOptions;

  constructor(daemon: string) {
    const [hostname, port] = daemon.split(":");
    this.#daemon = { hostname, port: Number(port) };
    this.#accept();
  }

  get address(): string {
    return `127.0.0.1:${this.#listener.addr.port}`;
  }

  [Symbol.dispose](): void {
    this.#listener.close();
  }

  async #accept(): Promise<void> {
    for await (const front of this.#listener) this.#relay(front);
  }

  async #relay(front: Deno.Conn): Promise<void> {
    const back = await Deno.connect(this.#daemon);
    const requests = new Set<number>();
    this.connections.push(requests);
    const track = () => {
      const decoder = new RecordDecoder();
      return new TransformStream<Uint8Array<ArrayBuffer>, Uint8Array<ArrayBuffer>>({
        transform(chunk, controller) {
          decoder.push(chunk, {
            record(type, id) {
              if (type === RecordType.beginRequest) requests.add(id);
              if (type === RecordType.endRequest) requests.delete(id);
            },
          });
          controller.enqueue(chunk);
        },
      });
    };
    await Promise.allSettled([
      front.readable.pipeThrough(track()).pipeTo(back.writable),
      back.readable.pipeThrough(track()).pipeTo(front.writable),
    ]);
  }
}

const needs = { haproxy: "haproxy", fcgiwrap: "fcgiwrap" };
const haproxy = new Suite("HAProxy", needs, async (rig) => {
  const tcp = await rig.daemon("fastcgi", "127.0.0.1:0");
  const unix = await rig.daemon("fastcgi", `unix:${rig.dir}/app.sock`);
  const fcgiwrap = `${rig.dir}/fcgiwrap.sock`;
  rig.spawn("fcgiwrap", "fcgiwrap", ["-f", "-s", `unix:${fcgiwrap}`]);
  rig.script("cgi-bin/app.ts");
  const relay = rig.use(new Relay(tcp));
  const ports = await rig.serve(
    "haproxy",
    ["tcp", "unix", "multiplexed", "http2", "cgi"],
    (port) => {
      const config = (name: keyof typeof port, ...args: string[]) =>
        configuration("haproxy", "--name", name, "--listen", `127.0.0.1:${port[name]}`, ...args);
      // As a thread of its own would open a connection of its own.
      const threads = rig.write("threads.cfg", "global\n  nbthread 1\n");
      const files = [
        rig.write(
          "tcp.cfg",
          config("tcp", "--backend", tcp)
            .replace("  bind ", `  bind 127.0.0.1:${port.http2} proto h2\n$&`),
        ),
        rig.write("unix.cfg", config("unix", "--backend", `unix:${unix}`)),
        rig.write(
          "cgi.cfg",
          `frontend cgi
  bind 127.0.0.1:${port.cgi}
  default_backend cgi
backend cgi
  use-fcgi-app cgi
  server cgi unix@${fcgiwrap} proto fcgi
fcgi-app cgi
  docroot ${rig.dir}
  path-info ^(/cgi-bin/[^/]+)(/.*)?$
`,
        ),
        rig.write(
          "multiplexed.cfg",
          `frontend multiplexed
  bind 127.0.0.1:${port.multiplexed}
  default_backend app
${snippet("haproxy", "multiplexed", { "127.0.0.1:9000": relay.address })}
`,
        ),
      ];
      return ["haproxy", ["-db", ...[threads, ...files].flatMap((file) => ["-f", file])]];
    },
  );
  return { ...ports, relay };
});

const site = (port: number, differences: Partial<Site> = {}): Site => ({
  host: `127.0.0.1:${port}`,
  absolute: "rejected",
  dots: "/d/./x/../y//z",
  // A body without a length must fit in HAProxy's buffer.
  chunked: 400,
  split: { scriptName: undefined },
  // Rule C17: the daemon keeps its log.
  log: (rig) => rig.output("daemon (fastcgi)"),
  ...differences,
});

behaviours(haproxy, "FastCGI over TCP", ({ tcp }) => site(tcp));
behaviours(haproxy, "FastCGI over a Unix socket", ({ unix }) => site(unix));

haproxy.test("a Location of a script reaches the client with its status", async ({ cgi }) => {
  for (const [path, status] of Object.entries({ redirect: 303, created: 201, hello: 200 })) {
    const { head } = await request(site(cgi).host, "GET", `/cgi-bin/app.ts/${path}`);
    assertEquals(head.status, status);
  }
});

haproxy.test("the authority of HTTP/2 reaches the app", ({ http2 }) => checkAuthority(http2));

haproxy.test("multiplexes requests over one connection", async ({ multiplexed, relay }) => {
  const { host } = site(multiplexed);
  // HAProxy multiplexes a connection once the response to FCGI_GET_VALUES has allowed it.
  assertEquals((await request(host, "GET", "/hello")).text, "Hello\n");
  const witnesses = Array.from({ length: 8 }, () => new Witness());
  const clients = await Promise.all(witnesses.map(() => Client.connect(host)));
  for (const [i, client] of clients.entries()) {
    await client.sendHead("GET", `/stream?witness=${witnesses[i].port}`);
    assertEquals(await witnesses[i].next("the app streams"), "ready");
  }
  assertEquals(relay.connections.map(({ size }) => size), [8]);
  // No request blocks another.
  assertEquals((await request(host, "GET", "/hello")).text, "Hello\n");
  assertEquals(relay.connections.map(({ size }) => size), [8]);
  for (const witness of witnesses.toReversed()) await witness.write("go on");
  const responses = await within(
    "all streams end",
    Promise.all(clients.map((client) => client.readResponse())),
  );
  assertEquals(responses.map(({ text }) => text), Array(8).fill("first\nlast\n"));
  for (const open of [...witnesses, ...clients]) open[Symbol.dispose]();
});

for (const path of ["/early", "/hello", "/redirect", "/nothing"]) {
  haproxy.test(`${path} responds while the client uploads, and the connection stays usable`, async ({ tcp, unix, multiplexed }) => {
    const { status, text } = await request(site(tcp).host, "GET", path);
    for (const port of [tcp, unix, multiplexed]) {
      using client = await Client.connect(site(port).host);
      for (let round = 0; round < 2; round++) {
        await client.sendHead("POST", path, [["Content-Length", "40000"]]);
        await client.send(new Uint8Array(20_000));
        const response = await client.readResponse();
        assertEquals([response.status, response.text], [status, text]);
        for (let i = 0; i < 20; i++) await client.send(new Uint8Array(1000));
      }
      await client.sendHead("GET", "/hello");
      assertEquals((await client.readResponse()).text, "Hello\n");
    }
  });
}

haproxy.test("an upload over HTTP/2 ends although its response came before", async ({ http2 }) => {
  const session = connect(`http://127.0.0.1:${http2}`);
  const half = new Uint8Array(200_000);
  try {
    const stream = session.request({
      ":method": "POST",
      ":path": "/early",
      "content-length": String(2 * half.length),
    });
    const [responded, ended, closed] = ["response", "end", "close"].map((event) =>
      once(stream, event)
    );
    let text = "";
    stream.on("data", (part) => text += part);
    stream.write(half);
    const [headers] = await within("the response", responded);
    await within("its end", ended);
    assertEquals([headers[":status"], text], [413, "Too much\n"]);
    stream.end(half);
    await within("the end of the upload", closed);
    assertEquals(stream.rstCode, 0);
  } finally {
    session.destroy();
  }
});

haproxy.test("a header that takes too long is not waited for", async (_started, rig) => {
  const { slow } = await rig.serve("haproxy", ["slow"], (port) => {
    const text = configuration("haproxy", "--listen", `127.0.0.1:${port.slow}`)
      .replace("timeout http-request 10s", "timeout http-request 500ms");
    return ["haproxy", ["-db", "-f", rig.write("slow.cfg", text)]];
  });
  const end = sendSlowHead(`127.0.0.1:${slow}`);
  assertMatch(await within("HAProxy closes the connection", end), /^HTTP\/1\.1 408 /);
});
