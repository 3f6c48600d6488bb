/**
 * A request that takes longer than `--request-timeout`, behind web servers as `config` prints them: with two back ends where
 * it does so.
 */
import { assertEquals } from "@std/assert";
import { served, startServe } from "../testing/command_line.ts";
import { apacheConfig, MODULES } from "./apache.ts";
import { caddyCommand, caddyOptions, caddySite } from "./caddy.ts";
import { request } from "./client.ts";
import { configuration, eventually, type Rig, Suite } from "./harness.ts";
import { nginxCommand } from "./nginx.ts";

/** Logs each request, and responds to that of /ready only. */
const APP = `
export default ({ method, url }) => {
  if (url.endsWith("/ready")) return new Response("ready");
  console.error("begins " + method + ".");
  return new Promise(() => {});
};
`;

type Command = (
  rig: Rig,
  args: string[],
  port: number,
) => [command: string, args: string[]];

const SERVERS: [
  name: string,
  protocol: string,
  backends: number,
  needs: Record<string, string>,
  Command,
][] = [
  ...["fastcgi", "scgi"].map((protocol): (typeof SERVERS)[number] => [
    "nginx",
    protocol,
    2,
    { nginx: "nginx-light", "/etc/nginx/fastcgi_params": "nginx-common" },
    (rig, args) => nginxCommand(rig, [configuration("nginx", ...args)]),
  ]),
  [
    "haproxy",
    "fastcgi",
    2,
    { haproxy: "haproxy" },
    (rig, args) => [
      "haproxy",
      ["-db", "-f", rig.write("haproxy.cfg", configuration("haproxy", ...args))],
    ],
  ],
  [
    "caddy",
    "fastcgi",
    2,
    { caddy: "caddy" },
    (rig, args) => caddyCommand(rig, [caddySite(...args)]),
  ],
  ...["fastcgi", "scgi"].map((protocol): (typeof SERVERS)[number] => [
    "apache",
    protocol,
    1,
    { apache2: "apache2", [`${MODULES}/mod_proxy_fcgi.so`]: "apache2-bin" },
    (rig, args) => {
      const proxy = protocol === "fastcgi" ? "proxy_fcgi" : "proxy_scgi";
      const config = apacheConfig(rig, ["mpm_event", "proxy", proxy], {});
      const text = `${config}\n${configuration("apache", ...args)}`;
      return ["apache2", ["-DFOREGROUND", "-f", rig.write("apache.conf", text)]];
    },
  ]),
  ...["fastcgi", "scgi"].map((protocol): (typeof SERVERS)[number] => [
    "lighttpd",
    protocol,
    1,
    { lighttpd: "lighttpd" },
    (rig, args, port) => {
      const text = `
server.bind = "127.0.0.1"
server.port = ${port}
server.document-root = "${rig.dir}/www"
server.errorlog = "${rig.logFile("error.log")}"
server.upload-dirs = ( "${rig.dir}" )
${configuration("lighttpd", ...args.slice(2))}
`;
      return ["lighttpd", ["-D", "-f", rig.write("lighttpd.conf", text)]];
    },
  ]),
  [
    "h2o",
    "fastcgi",
    1,
    { h2o: "h2o" },
    (rig, args) => {
      const config = configuration("h2o", ...args);
      const text = `
error-log: ${rig.logFile("error.log")}
${Deno.uid() === 0 ? config : config.replace(/^user: .*$/m, "")}
`;
      return ["h2o", ["-m", "worker", "-c", rig.write("h2o.yaml", text)]];
    },
  ],
];

for (const [server, protocol, count, needs, command] of SERVERS) {
  const of = count === 1 ? "one back end" : `${count} back ends`;
  const suite = new Suite(`${server} with ${of}, ${protocol}`, needs, async (rig) => {
    const app = rig.write("app.ts", APP);
    const daemons = Array.from(
      { length: count },
      () => startServe(app, ["--protocol", protocol, "--request-timeout", "1", "--log", "stderr"]),
    );
    for (const daemon of daemons) {
      rig.use({ [Symbol.dispose]: () => void daemon[Symbol.asyncDispose]() });
    }
    const backends = await Promise.all(daemons.map((daemon) => served(daemon)));
    const args = backends.flatMap((address) => ["--backend", address]);
    const { port } = await rig.serve(
      server,
      ["port"],
      ({ port }) =>
        command(rig, ["--listen", `127.0.0.1:${port}`, "--protocol", protocol, ...args], port),
      server === "caddy" ? caddyOptions(rig) : undefined,
    );
    const log = () => daemons.map((daemon) => daemon.log).join("");
    return { host: `127.0.0.1:${port}`, log };
  });

  for (const method of ["POST", "PUT", "GET"]) {
    suite.test(`${method} gets 503 after requestTimeout, and is not sent again`, async ({ host, log }) => {
      const body = method === "GET" ? undefined : new Uint8Array(100_000);
      const { status, text } = await request(host, method, "/slow", { body });
      assertEquals([status, text], [503, "503 Service Unavailable\n"]);
      // A second one would have begun by now, as each back end has had another request since.
      for (let i = 0; i < 4; i++) assertEquals((await request(host, "GET", "/ready")).status, 200);
      assertEquals(log().split(`begins ${method}.`).length - 1, 1);
      await eventually(
        "the log names the request",
        () => log().includes(`Responded with 503 to ${method} /slow.`),
      );
    });
  }
}
