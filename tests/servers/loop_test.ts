/** Requests that end their worker or loop until it is killed, behind web servers as `config` prints them. */
import { assert, assertEquals } from "@std/assert";
import { served, startServe } from "../testing/command_line.ts";
import type { Daemon } from "../testing/daemon.ts";
import { request } from "./client.ts";
import { configuration, type Rig, Suite } from "./harness.ts";
import { nginxCommand } from "./nginx.ts";

const APP = `
export default (request) => {
  const { pathname } = new URL(request.url);
  if (pathname === "/ready") return new Response("ready");
  console.error("begins in " + Deno.pid + ".");
  if (pathname === "/end") Deno.kill(Deno.pid, "SIGKILL");
  for (;;);
};
`;

/** Web servers, and what of a configuration limits the age of a request that is sent again. */
const SERVERS: [
  name: string,
  protocol: string,
  needs: Record<string, string>,
  limit: string,
  command: (rig: Rig, site: string) => [command: string, args: string[]],
][] = [
  ...["fastcgi", "scgi"].map((protocol): (typeof SERVERS)[number] => [
    "nginx",
    protocol,
    { nginx: "nginx-light", "/etc/nginx/fastcgi_params": "nginx-common" },
    `${protocol}_next_upstream_timeout 30s;`,
    (rig, site) => nginxCommand(rig, [site]),
  ]),
  [
    "haproxy",
    "fastcgi",
    { haproxy: "haproxy" },
    "timeout server 30s",
    (rig, site) => ["haproxy", ["-db", "-f", rig.write("haproxy.cfg", site)]],
  ],
];

/** How many workers have begun a request. */
const begun = ({ log }: Daemon) => log.match(/begins in \d+\./g)?.length ?? 0;

for (const [server, protocol, needs, limit, command] of SERVERS) {
  const start = async (rig: Rig, adapt: (site: string) => string) => {
    const socket = `unix:${rig.dir}/app.sock`;
    const workers = startServe(
      rig.write("app/app.ts", APP),
      [
        ...["--protocol", protocol, "--workers", "2", "--worker-timeout", "1"],
        ...["--mode", "666", "--listen", socket],
      ],
      ["--allow-read", "--allow-write", "--allow-env", "--allow-run", "--allow-net"],
    );
    rig.use({ [Symbol.dispose]: () => void workers[Symbol.asyncDispose]() });
    await served(workers);
    const { port } = await rig.serve(server, ["port"], ({ port }) => {
      const args = ["--listen", `127.0.0.1:${port}`, "--backend", socket, "--protocol", protocol];
      return command(rig, adapt(configuration(server, ...args, "--workers", "2")));
    });
    return { host: `127.0.0.1:${port}`, workers };
  };

  const impatient = new Suite(
    `${server} that does not wait, ${protocol}`,
    needs,
    (rig) =>
      start(rig, (site) => {
        assert(site.includes(limit));
        return site.replace(limit, limit.replace("30s", "900ms"));
      }),
  );
  impatient.test("a GET that loops takes one worker", async ({ host, workers }) => {
    const { status } = await request(host, "GET", "/loop");
    assertEquals(status, server === "haproxy" ? 504 : 502);
    assertEquals((await request(host, "GET", "/ready")).status, 200);
    assertEquals(begun(workers), 1, workers.log);
  });

  const printed = new Suite(
    `${server} as printed, ${protocol}`,
    needs,
    (rig) => start(rig, (site) => site),
  );
  printed.test("a GET that ends its worker takes two workers", async ({ host, workers }) => {
    const { status } = await request(host, "GET", "/end");
    assertEquals(status, 502);
    assertEquals((await request(host, "GET", "/ready")).status, 200);
    assertEquals(begun(workers), 2, workers.log);
  });
}
