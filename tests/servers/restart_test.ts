/** Back ends that are restarted one after the other, while nginx asks them. */
import { assert, assertEquals } from "@std/assert";
import { Client, request, Witness } from "./client.ts";
import { eventually, snippet, Suite, within } from "./harness.ts";
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
        snippet("nginx", "balanced", {
          "127.0.0.1:9000": daemons[0],
          "127.0.0.1:9001": daemons[1],
          "listen 80;": `listen 127.0.0.1:${port};`,
        }),
      ]));
    return { host: `127.0.0.1:${port}`, daemons };
  },
);

/** Asks again and again, and checks every byte of every answer. */
class Load {
  answers = 0;
  #host: string;
  #stopped = false;
  #done: Promise<unknown>;

  constructor(host: string, workers: number) {
    this.#host = host;
    this.#done = Promise.all(Array.from({ length: workers }, (_, i) => this.#work(i)));
    // Told by stop().
    this.#done.catch(() => {});
  }

  async #work(worker: number): Promise<void> {
    for (let round = 0; !this.#stopped; round++) {
      const body = new Uint8Array(100_000).fill(worker * 16 + round % 16);
      const answer = await request(this.#host, "POST", "/echo", { body });
      assertEquals([answer.status, answer.body.length], [200, body.length]);
      assert(answer.body.every((byte) => byte === body[0]));
      this.answers++;
    }
  }

  /** Waits until so many more were answered. */
  async more(count: number): Promise<void> {
    const until = this.answers + count;
    await Promise.race([
      eventually(`${count} more answers come`, () => this.answers >= until),
      this.#done,
    ]);
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    await within("the last answers come", this.#done);
  }
}

/** Answers that are under way until `end` is called. */
async function holdStreams(host: string, count: number) {
  const witnesses = Array.from({ length: count }, () => new Witness());
  const clients = await Promise.all(witnesses.map(() => Client.connect(host)));
  for (const [i, client] of clients.entries()) {
    await client.sendHead("GET", `/stream?witness=${witnesses[i].port}`);
    assertEquals(await witnesses[i].next("the app streams"), "ready");
  }
  return async () => {
    for (const witness of witnesses) await witness.say("go on");
    const answers = await Promise.all(clients.map((client) => client.readAnswer()));
    for (const open of [...witnesses, ...clients]) open[Symbol.dispose]();
    return answers.map(({ text }) => text);
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

balanced.test("are restarted under load without a byte lost", async ({ host, daemons }, rig) => {
  for (const address of daemons) {
    const before = rig.daemonAt(address);
    // Before there is load: then nginx gives each back end as many.
    const endStreams = await holdStreams(host, 4);
    const load = new Load(host, 4);
    await load.more(20);
    before.process.kill("SIGTERM");
    await eventually("it accepts no more", () => isRefused(address));
    await load.more(20);
    assertEquals(before.status, undefined, "it must wait for its answers");
    assertEquals(await endStreams(), Array(4).fill("first\nlast\n"));
    const { code } = await within("it ends", before.process.status);
    assertEquals(code, 0);
    await rig.daemon("fastcgi", address);
    await load.more(20);
    await load.stop();
  }
});
