/** A worker that is killed in the middle of requests, behind web servers with one back end as `config` prints it. */
import { assert, assertEquals } from "@std/assert";
import { served, startServe } from "../testing/command_line.ts";
import type { Daemon } from "../testing/daemon.ts";
import { ended, suspend } from "../testing/processes.ts";
import { request } from "./client.ts";
import { configuration, eventually, type Rig, Suite } from "./harness.ts";
import { nginxCommand } from "./nginx.ts";

/** How many requests of each method are in progress. */
const REQUESTS = 6;
/** How many connections are idle meanwhile, if the server keeps them: as many as it may. */
const IDLE = 8;

/** Logs each request with its worker, and waits until there is a file: "idle" for those of /idle, "go" for others. */
const APP = `
export default async ({ method, url }) => {
  const { pathname, search } = new URL(url);
  const isIdle = pathname === "/idle";
  console.error(isIdle ? "idle" : "begins " + method + " " + search + " in " + Deno.pid + ".");
  while (!await Deno.stat(import.meta.dirname + (isIdle ? "/idle" : "/go")).catch(() => null)) {
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  return new Response(String(Deno.pid));
};
`;

/** The process ids in which requests of a method began, each with the number of the request. */
function begun({ log }: Daemon, method: string): [query: string, pid: string][] {
  return [...log.matchAll(/begins (\w+) \?(\d+) in (\d+)\./g)]
    .filter(([, found]) => found === method).map(([, , query, pid]) => [query, pid]);
}

/** Web servers that repeat requests, each with the methods that it repeats. */
const SERVERS: [
  name: string,
  protocol: string,
  needs: Record<string, string>,
  repeated: string[],
  command: (rig: Rig, site: string) => [command: string, args: string[]],
][] = [
  ...["fastcgi", "scgi"].map((protocol): (typeof SERVERS)[number] => [
    "nginx",
    protocol,
    { nginx: "nginx-light", "/etc/nginx/fastcgi_params": "nginx-common" },
    ["GET", "PUT"],
    (rig, site) => {
      const [command, args] = nginxCommand(rig, [site]);
      return [command, [...args, "-g", "master_process off;"]];
    },
  ]),
  [
    "haproxy",
    "fastcgi",
    { haproxy: "haproxy" },
    ["GET", "PUT"],
    (rig, site) => ["haproxy", ["-db", "-f", rig.write("haproxy.cfg", site)]],
  ],
];

for (const [server, protocol, needs, repeated, command] of SERVERS) {
  for (const over of ["TCP", "a Unix socket"]) {
    const suite = new Suite(
      `${server} with two workers, ${protocol} over ${over}`,
      needs,
      async (rig) => {
        const app = rig.write("app/app.ts", APP);
        const socket = `unix:${rig.dir}/app.sock`;
        const workers = startServe(
          app,
          [
            ...["--protocol", protocol, "--workers", "2", "--mode", "666"],
            ...["--listen", over === "TCP" ? "127.0.0.1:0" : socket],
          ],
          ["--allow-read", "--allow-write", "--allow-env", "--allow-run", "--allow-net"],
        );
        rig.use({ [Symbol.dispose]: () => void workers[Symbol.asyncDispose]() });
        const address = await served(workers);
        const args = [
          ...["--backend", over === "TCP" ? address : socket],
          ...["--protocol", protocol, "--workers", "2"],
        ];
        const { port } = await rig.serve(
          server,
          ["port"],
          ({ port }) =>
            command(rig, configuration(server, "--listen", `127.0.0.1:${port}`, ...args)),
        );
        return { host: `127.0.0.1:${port}`, workers };
      },
    );

    suite.test("requests that may be repeated are not lost when one is killed", async (
      { host, workers },
      rig,
    ) => {
      const methods = [...repeated, "POST"];
      const responses = methods.map((method) =>
        Array.from({ length: REQUESTS }, (_, i) => {
          const body = method === "GET" ? undefined : new Uint8Array(100);
          return request(host, method, `/?${i}`, { body });
        })
      );
      responses.flat().forEach((response) => response.catch(() => {}));
      const inProgress = () => methods.map((method) => begun(workers, method)).flat();
      await eventually(
        "all requests are in progress",
        () => inProgress().length === methods.length * REQUESTS,
      );
      const idle = Array.from({ length: IDLE }, () => request(host, "GET", "/idle"));
      await workers.says("idle\n", IDLE);
      rig.write("app/idle", "");
      await Promise.all(idle);
      const [[, killed]] = begun(workers, "POST");
      const lost = begun(workers, "POST").filter(([, pid]) => pid === killed);
      {
        // It finds all connections of the worker closed at once.
        using _suspended = await suspend(rig.program(server).process);
        Deno.kill(Number(killed), "SIGKILL");
        await ended(Number(killed));
      }
      await eventually(
        "a new worker or the other begins the repeated requests",
        () => {
          const again = repeated.flatMap((method) => begun(workers, method));
          return again.filter(([, pid]) => pid !== killed).length === repeated.length * REQUESTS;
        },
      );
      rig.write("app/go", "");
      for (const [i, method] of methods.entries()) {
        for (const [query, response] of responses[i].entries()) {
          const { status, text } = await response;
          const isLost = method === "POST" && lost.some(([found]) => found === String(query));
          assertEquals(status, isLost ? 502 : 200, `${method} ${query}: ${workers.log}`);
          assert(isLost || text !== killed);
        }
      }
      assertEquals(begun(workers, "POST").length, REQUESTS, "no POST begins twice");
    });
  }
}
