/** Back ends that restart one after the other while nginx sends them requests. */
import { assert, assertEquals } from "@std/assert";

import { Client, request, Witness } from "./client.ts";
import { configuration, eventually, type Rig, Suite, within } from "./harness.ts";
import { handDown, keepSocket } from "../testing/hand_down.ts";
import { suspend } from "../testing/processes.ts";
import { Load } from "./load.ts";
import { nginxCommand } from "./nginx.ts";
import { startWorkers } from "./workers.ts";

const NGINX = { nginx: "nginx-light", "/etc/nginx/fastcgi_params": "nginx-common" };

const balanced = new Suite(
  "nginx with two back ends",
  NGINX,
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

/**
 * Starts clients that check every byte of every response.
 *
 * @param length How many bytes each body has.
 */
function startLoad(host: string, clients: number, length: number): Load {
  return new Load(
    Array.from({ length: clients }, (_, i) => (load) => sendBodies(load, host, i, length)),
  );
}

async function sendBodies(
  load: Load,
  host: string,
  number: number,
  length: number,
): Promise<void> {
  let client = await Client.connect(host);
  for (let round = 0; !load.stopped; round++) {
    const body = new Uint8Array(length).fill(number * 16 + round % 16);
    await client.sendHead("POST", "/echo", [["Content-Length", String(body.length)]]);
    await client.send(body);
    const response = await client.readResponse();
    assertEquals([response.status, response.body.length], [200, body.length]);
    assert(response.body.every((byte) => byte === body[0]));
    load.responses++;
    // nginx closes a connection after some requests.
    if (response.head.get("connection") !== "close") continue;
    client[Symbol.dispose]();
    client = await Client.connect(host);
  }
  client[Symbol.dispose]();
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
  const path = /^unix:(.*)/.exec(address)?.[1];
  const [hostname, port] = address.split(":");
  try {
    const conn = path === undefined
      ? await Deno.connect({ hostname, port: Number(port) })
      : await Deno.connect({ transport: "unix", path });
    conn.close();
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
    const load = startLoad(host, 4, 100_000);
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

/** Writes a program that serves its descriptor 0, and prints a line when it begins. */
function writeWorker(rig: Rig): string {
  return rig.write(
    "worker.ts",
    `
import { serve } from "${rig.root}/mod.ts";
import app from "${rig.root}/tests/servers/app.ts";
console.log("begins");
await serve(app);
`,
  );
}

for (const over of ["TCP", "a Unix socket"]) {
  const fleet = new Suite(
    `nginx that keeps connections to workers over ${over}`,
    NGINX,
    async (rig) => {
      const address = over === "TCP" ? "127.0.0.1:0" : `unix:${rig.dir}/app.sock`;
      const [workers, backend] = await startWorkers(rig, writeWorker(rig), address);
      const { port } = await rig.serve("nginx", ["port"], ({ port }) =>
        nginxCommand(rig, [
          configuration("nginx", "--listen", `127.0.0.1:${port}`, "--backend", backend),
        ]));
      return { host: `127.0.0.1:${port}`, workers };
    },
  );

  fleet.test("SIGHUP loses no request", async ({ host, workers }) => {
    const begun = () => workers.output.split("begins").length - 1;
    await eventually("both workers begin", () => begun() === 2);
    const load = startLoad(host, 10, 100);
    for (let reload = 1; reload <= 3; reload++) {
      await load.more(100);
      workers.process.kill("SIGHUP");
      await eventually("both are replaced", () => begun() === 2 + 2 * reload);
    }
    await load.more(100);
    await load.stop();
  });

  const sockets = new Suite(
    `nginx that keeps connections to a socket of systemd over ${over}`,
    NGINX,
    async (rig) => {
      const socket = await keepSocket(
        over === "TCP" ? { host: "127.0.0.1", port: 0 } : { path: `${rig.dir}/app.sock` },
      );
      const worker = writeWorker(rig);
      const start = () => handDown(socket, 0, {}, ["--no-config", "--allow-env", worker]);
      const { port } = await rig.serve("nginx", ["port"], ({ port }) =>
        nginxCommand(rig, [
          configuration("nginx", "--listen", `127.0.0.1:${port}`, "--backend", socket.address),
        ]));
      return { host: `127.0.0.1:${port}`, start };
    },
  );

  sockets.test("SIGTERM loses no request", async ({ host, start }) => {
    let daemon = await start();
    try {
      const load = startLoad(host, 10, 100);
      for (let restart = 1; restart <= 3; restart++) {
        await load.more(100);
        assertEquals(await daemon.stop(), 0, daemon.log);
        daemon = await start();
      }
      await load.more(100);
      await load.stop();
    } finally {
      await daemon.stop();
    }
  });
}

/** Web servers that keep connections to one daemon, in one process that can be suspended. */
const KEEPING: [
  server: string,
  needs: Record<string, string>,
  command: (rig: Rig, site: string) => [command: string, args: string[]],
][] = [
  ["nginx", NGINX, (rig, site) => {
    const [command, args] = nginxCommand(rig, [site]);
    return [command, [...args, "-g", "master_process off;"]];
  }],
  ["haproxy", { haproxy: "haproxy" }, (rig, site) => {
    return ["haproxy", ["-db", "-f", rig.write("haproxy.cfg", site)]];
  }],
];

for (const [server, needs, command] of KEEPING) {
  for (const over of ["TCP", "a Unix socket"]) {
    const kept = new Suite(`${server} that keeps connections over ${over}`, needs, async (rig) => {
      const path = `unix:${rig.dir}/app.sock`;
      const daemon = await rig.daemon("fastcgi", over === "TCP" ? "127.0.0.1:0" : path);
      const backend = over === "TCP" ? daemon : path;
      const { port } = await rig.serve(
        server,
        ["port"],
        ({ port }) =>
          command(
            rig,
            configuration(server, "--listen", `127.0.0.1:${port}`, "--backend", backend),
          ),
      );
      return { host: `127.0.0.1:${port}`, daemon, backend };
    });

    kept.test("a request that it is about to send when the daemon stops is served", async ({
      host,
      daemon,
      backend,
    }, rig) => {
      const { process } = rig.daemonAt(daemon);
      using client = await Client.connect(host);
      const post = `POST /echo HTTP/1.1\r\nHost: ${host}\r\nContent-Length: 4\r\n\r\nbody`;
      await client.send(post);
      assertEquals((await client.readResponse()).text, "body");
      {
        using _suspended = await suspend(rig.program(server).process);
        // When it goes on it finds the request first, then what the daemon has sent on the kept connection.
        await client.send(post);
        process.kill("SIGTERM");
        await eventually("the daemon closes its listener", () => isRefused(backend));
        // One that closes its idle connections at once has done so after a moment.
        await Promise.race([process.status, new Promise((resolve) => setTimeout(resolve, 200))]);
      }
      const { status, text } = await client.readResponse();
      assertEquals([status, text], [200, "body"]);
      assertEquals((await within("the daemon ends", process.status)).code, 0);
    });
  }
}

/** After how many requests a worker is replaced, how many are at least, and how many requests that takes. */
const MAX_REQUESTS = 500;
const REPLACED = 10;
/** Over both kinds of sockets 20,000. */
const MIN_SENT = 10_000;
const MAX_SENT = 100_000;

for (const over of ["TCP", "a Unix socket"]) {
  const recycled = new Suite(
    `nginx with workers that are replaced after ${MAX_REQUESTS} requests, over ${over}`,
    NGINX,
    async (rig) => {
      const address = over === "TCP" ? "127.0.0.1:0" : `unix:${rig.dir}/app.sock`;
      const [workers, backend] = await startWorkers(rig, writeWorker(rig), address, [], {
        maxRequests: MAX_REQUESTS,
      });
      const { port } = await rig.serve("nginx", ["port"], ({ port }) =>
        nginxCommand(rig, [
          configuration("nginx", "--listen", `127.0.0.1:${port}`, "--backend", backend),
        ]));
      return { host: `127.0.0.1:${port}`, workers };
    },
  );

  recycled.test("no request is lost", async ({ host, workers }) => {
    let sent = 0;
    const lost: string[] = [];
    const replaced = () => workers.output.split("is replaced as it has begun").length - 1;
    const load = Array.from({ length: 16 }, async () => {
      while ((replaced() < REPLACED || sent < MIN_SENT) && sent < MAX_SENT) {
        const number = sent++;
        try {
          const response = await fetch(`http://${host}/hello?${number}`);
          const text = await response.text();
          if (response.status !== 200 || text === "") lost.push(`${number}: ${response.status}`);
        } catch (error) {
          lost.push(`${number}: ${error}`);
        }
      }
    });
    await within("the responses", Promise.all(load), 300_000);
    assertEquals(lost, []);
    assert(replaced() >= REPLACED, `${replaced()} workers were replaced: ${workers.output}`);
  });
}

/** How often HAProxy is reloaded, and how many requests are sent between. */
const RELOADS = 6;
const BETWEEN = 100;

const reloaded = new Suite("HAProxy", { haproxy: "haproxy" }, async (rig) => {
  const daemon = await rig.daemon("fastcgi", "127.0.0.1:0");
  const { port } = await rig.serve("haproxy", ["port"], ({ port }) => {
    const site = configuration("haproxy", "--listen", `127.0.0.1:${port}`, "--backend", daemon);
    return ["haproxy", ["-W", "-f", rig.write("haproxy.cfg", site)]];
  });
  return `127.0.0.1:${port}`;
});

reloaded.test("loses no request when it is reloaded", async (host, rig) => {
  let responses = 0;
  let stopped = false;
  const load = Promise.all(Array.from({ length: 6 }, async () => {
    while (!stopped) {
      const { status, text } = await request(host, "POST", "/echo", { body: new Uint8Array([97]) });
      assertEquals([status, text], [200, "a"]);
      responses++;
    }
  }));
  const more = () => {
    const target = responses + BETWEEN;
    return Promise.race([eventually(`${BETWEEN} responses`, () => responses >= target), load]);
  };
  for (let reload = 0; reload < RELOADS; reload++) {
    await more();
    rig.program("haproxy").process.kill("SIGUSR2");
  }
  await more();
  stopped = true;
  await within("the last responses", load);
});
