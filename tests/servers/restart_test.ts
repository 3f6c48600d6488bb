/** Back ends that restart one after the other while nginx sends them requests. */
import { assert, assertEquals } from "@std/assert";
import { Client, request, Witness } from "./client.ts";
import { configuration, eventually, Suite, within } from "./harness.ts";
import { nginxCommand } from "./nginx.ts";

const balanced = new Suite(
  "nginx with two back ends",
  { nginx: "nginx-light", "/etc/nginx/fastcgi_params": "nginx-common" },
  async (rig) => {
    const daemons = [
      await rig.daemon("fastcgi", "127.0.0.1:0"),
      await rig.daemon("fastcgi", "127.0.0.1:0"),
    ];
    const { port } = await rig.serve("nginx", ["port"], ({ port }) =>
      nginxCommand(rig, [
        configuration(
          "nginx",
          "--listen",
          `127.0.0.1:${port}`,
          ...daemons.flatMap((daemon) => ["--backend", daemon]),
        ),
      ]));
    return { host: `127.0.0.1:${port}`, daemons };
  },
);

/** Sends requests until it is stopped, and checks every byte of every response. */
class Load {
  responses = 0;
  #host: string;
  #stopped = false;
  #done: Promise<unknown>;

  constructor(host: string, workers: number) {
    this.#host = host;
    this.#done = Promise.all(Array.from({ length: workers }, (_, i) => this.#work(i)));
    // stop() reports the error.
    this.#done.catch(() => {});
  }

  async #work(worker: number): Promise<void> {
    for (let round = 0; !this.#stopped; round++) {
      const body = new Uint8Array(100_000).fill(worker * 16 + round % 16);
      const response = await request(this.#host, "POST", "/echo", { body });
      assertEquals([response.status, response.body.length], [200, body.length]);
      assert(response.body.every((byte) => byte === body[0]));
      this.responses++;
    }
  }

  /** Waits for a number of further responses. */
  async more(count: number): Promise<void> {
    const target = this.responses + count;
    await Promise.race([
      eventually(`${count} more responses`, () => this.responses >= target),
      this.#done,
    ]);
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    await within("the last responses", this.#done);
  }
}

/** Starts streamed responses; the function that it returns ends them and returns their bodies. */
async function openStreams(host: string, count: number) {
  const witnesses = Array.from({ length: count }, () => new Witness());
  const clients = await Promise.all(witnesses.map(() => Client.connect(host)));
  for (const [i, client] of clients.entries()) {
    await client.sendHead("GET", `/stream?witness=${witnesses[i].port}`);
    assertEquals(await witnesses[i].next("the app streams"), "ready");
  }
  return async () => {
    for (const witness of witnesses) await witness.write("go on");
    const responses = await Promise.all(clients.map((client) => client.readResponse()));
    for (const open of [...witnesses, ...clients]) open[Symbol.dispose]();
    return responses.map(({ text }) => text);
  };
}

async function isRefused(address: string): Promise<boolean> {
  try {
    using _client = await Client.connect(address);
    return false;
  } catch {
    return true;
  }
}

balanced.test("restart under load without losing a byte", async ({ host, daemons }, rig) => {
  for (const address of daemons) {
    const before = rig.daemonAt(address);
    // Without load, nginx gives each back end the same number.
    const endStreams = await openStreams(host, 4);
    const load = new Load(host, 4);
    await load.more(20);
    before.process.kill("SIGTERM");
    await eventually("the daemon closes its listener", () => isRefused(address));
    await load.more(20);
    assertEquals(before.status, undefined, "the daemon must wait for its responses");
    assertEquals(await endStreams(), Array(4).fill("first\nlast\n"));
    const { code } = await within("the daemon ends", before.process.status);
    assertEquals(code, 0);
    await rig.daemon("fastcgi", address);
    await load.more(20);
    await load.stop();
  }
});
