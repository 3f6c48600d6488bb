/** Requests that end their worker or loop until it is killed, behind web servers as `config` prints them. */
import { assert, assertEquals } from "@std/assert";
import { served, startServe } from "../testing/command_line.ts";
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

/** The --worker-timeout, by the number of machines: the web server must notice before. */
const TIMEOUTS: Record<number, string> = { 1: "2", 2: "20" };

/** How many workers have begun a request. */
const begun = (log: string) => log.match(/begins in \d+\./g)?.length ?? 0;

for (const [server, protocol, needs, limit, command] of SERVERS) {
  const start = async (rig: Rig, adapt: (site: string) => string, machines = 1) => {
    const sockets = Array.from({ length: machines }, (_, i) => `unix:${rig.dir}/app${i}.sock`);
    const daemons = sockets.map((socket) => {
      const daemon = startServe(
        rig.write("app/app.ts", APP),
        [
          ...["--protocol", protocol, "--workers", "2", "--worker-timeout", TIMEOUTS[machines]],
          ...["--mode", "666", "--listen", socket],
        ],
        ["--allow-read", "--allow-write", "--allow-env", "--allow-run", "--allow-net"],
      );
      rig.use({ [Symbol.dispose]: () => void daemon[Symbol.asyncDispose]() });
      return daemon;
    });
    for (const daemon of daemons) await served(daemon);
    const { port } = await rig.serve(server, ["port"], ({ port }) => {
      const args = ["--listen", `127.0.0.1:${port}`, "--protocol", protocol, "--workers", "2"];
      const backends = sockets.flatMap((socket) => ["--backend", socket]);
      return command(rig, adapt(configuration(server, ...args, ...backends)));
    });
    return { host: `127.0.0.1:${port}`, log: () => daemons.map(({ log }) => log).join("") };
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
  impatient.test("a GET that loops takes one worker", async ({ host, log }) => {
    const { status } = await request(host, "GET", "/loop");
    assertEquals(status, server === "haproxy" ? 504 : 502);
    assertEquals((await request(host, "GET", "/ready")).status, 200);
    assertEquals(begun(log()), 1, log());
  });

  const printed = new Suite(
    `${server} as printed, ${protocol}`,
    needs,
    (rig) => start(rig, (site) => site),
  );
  printed.test("a GET that ends its worker takes two workers", async ({ host, log }) => {
    const { status } = await request(host, "GET", "/end");
    assertEquals(status, 502);
    assertEquals((await request(host, "GET", "/ready")).status, 200);
    assertEquals(begun(log()), 2, log());
  });

  const several = new Suite(
    `${server} with two machines, ${protocol}`,
    needs,
    (rig) =>
      start(rig, (site) => {
        const short = site.replace("next_upstream_timeout 90s;", "next_upstream_timeout 2250ms;")
          .replace(`${protocol}_pass app;`, `$& ${protocol}_read_timeout 1500ms;`)
          .replace("timeout server 30s", "timeout server 1500ms");
        assert(short !== site);
        return short;
      }, 2),
  );
  const taken = server === "haproxy" ? 4 : 2;
  several.test(`a GET that loops takes at most ${taken} workers`, async ({ host, log }) => {
    const { status } = await request(host, "GET", "/loop");
    assertEquals(status, 504);
    assert(begun(log()) <= taken, log());
  });
}
