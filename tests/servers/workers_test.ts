/** Workers on one socket behind web servers that keep connections to them (rule C32). */
import { assert } from "@std/assert";
import { Client } from "./client.ts";
import { configuration, eventually, type Rig, Suite } from "./harness.ts";
import { nginxCommand } from "./nginx.ts";
import { startWorkers } from "./workers.ts";

const CLIENTS = 8;
/** How many of the last responses are looked at, and how many must come from each worker. */
const LAST = 200;
const FAIR = 50;

const SERVERS: Record<string, {
  needs: Record<string, string>;
  command(rig: Rig, port: number, backend: string): [command: string, args: string[]];
}> = {
  nginx: {
    needs: { nginx: "nginx-light", "/etc/nginx/fastcgi_params": "nginx-common" },
    command: (rig, port, backend) =>
      nginxCommand(rig, [`
upstream app {
  server ${backend};
  keepalive ${CLIENTS};
  keepalive_requests 1000000;
}
server {
  listen 127.0.0.1:${port};
  keepalive_requests 1000000;
  location / {
    include fastcgi_params;
    fastcgi_pass app;
    fastcgi_keep_conn on;
  }
}`]),
  },
  haproxy: {
    needs: { haproxy: "haproxy" },
    command: (rig, port, backend) => [
      "haproxy",
      [
        "-db",
        "-f",
        rig.write(
          "haproxy.cfg",
          configuration("haproxy", "--listen", `127.0.0.1:${port}`, "--backend", backend),
        ),
      ],
    ],
  },
};

for (const [server, { needs, command }] of Object.entries(SERVERS)) {
  for (const over of ["TCP", "a Unix socket"]) {
    const suite = new Suite(
      `${server} that keeps connections to workers over ${over}`,
      needs,
      async (rig) => {
        // The second worker waits for a file before it serves. Each response is its worker's process id.
        const worker = rig.write(
          "worker.ts",
          `
import { serve } from "${rig.root}/mod.ts";
const isFirst = await Deno.mkdir("${rig.dir}/first").then(() => true, () => false);
while (!isFirst && !await Deno.stat("${rig.dir}/go").catch(() => null)) {
  await new Promise((resolve) => setTimeout(resolve, 20));
}
console.log("serves");
await serve(() => {
  const end = performance.now() + 1;
  while (performance.now() < end);
  return new Response(String(Deno.pid));
});
`,
        );
        const address = over === "TCP" ? "127.0.0.1:0" : `unix:${rig.dir}/app.sock`;
        const flags = ["--allow-read", "--allow-write"];
        const [workers, backend] = await startWorkers(rig, worker, address, flags);
        const { port } = await rig.serve(
          server,
          ["port"],
          ({ port }) => command(rig, port, backend),
        );
        return { host: `127.0.0.1:${port}`, workers };
      },
    );

    suite.test(
      "a worker with most of the connections leaves some to others, and loses no request",
      async ({ host, workers }, rig) => {
        const last: string[] = [];
        let stopped = false;
        const load = Promise.all(Array.from({ length: CLIENTS }, async () => {
          using client = await Client.connect(host);
          while (!stopped) {
            await client.sendHead("GET", "/");
            const { status, text } = await client.readResponse();
            assert(status === 200 && /^\d+$/.test(text), `${status} ${text}`);
            last.push(text);
            if (last.length > LAST) last.shift();
          }
        }));
        const counts = () =>
          Object.values(Object.groupBy(last, (pid) => pid)).map((of) => of!.length);
        const until = (label: string, condition: () => boolean) =>
          Promise.race([eventually(label, condition), load]);
        await until("the first worker responds", () => counts()[0] === LAST);
        rig.write("go", "");
        await until("both serve", () => workers.output.split("serves").length === 3);
        await until(
          "each worker responds to its share",
          () => counts().length === 2 && Math.min(...counts()) >= FAIR,
        );
        stopped = true;
        await load;
      },
    );
  }
}
