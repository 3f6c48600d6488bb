/** A request that takes longer than `--request-timeout`, behind web servers with two back ends as `config` prints them. */
import { assertEquals, assertStringIncludes } from "@std/assert";
import { served, startServe } from "../testing/command_line.ts";
import { caddyCommand, caddyOptions, caddySite } from "./caddy.ts";
import { request } from "./client.ts";
import { configuration, type Rig, Suite } from "./harness.ts";
import { nginxCommand } from "./nginx.ts";

/** Logs each request, and responds to that of /ready only. */
const APP = `
export default ({ method, url }) => {
  if (url.endsWith("/ready")) return new Response("ready");
  console.error("begins " + method + ".");
  return new Promise(() => {});
};
`;

type Command = (rig: Rig, args: string[]) => [command: string, args: string[]];

const SERVERS: [name: string, protocol: string, needs: Record<string, string>, Command][] = [
  ...["fastcgi", "scgi"].map((protocol): (typeof SERVERS)[number] => [
    "nginx",
    protocol,
    { nginx: "nginx-light", "/etc/nginx/fastcgi_params": "nginx-common" },
    (rig, args) => nginxCommand(rig, [configuration("nginx", ...args)]),
  ]),
  [
    "haproxy",
    "fastcgi",
    { haproxy: "haproxy" },
    (rig, args) => [
      "haproxy",
      ["-db", "-f", rig.write("haproxy.cfg", configuration("haproxy", ...args))],
    ],
  ],
  [
    "caddy",
    "fastcgi",
    { caddy: "caddy" },
    (rig, args) => caddyCommand(rig, [caddySite(...args)]),
  ],
];

for (const [server, protocol, needs, command] of SERVERS) {
  const suite = new Suite(`${server} with two back ends, ${protocol}`, needs, async (rig) => {
    const app = rig.write("app.ts", APP);
    const daemons = [1, 2].map(() =>
      startServe(app, ["--protocol", protocol, "--request-timeout", "1", "--log", "stderr"])
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
        command(rig, ["--listen", `127.0.0.1:${port}`, "--protocol", protocol, ...args]),
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
      assertStringIncludes(log(), `Responded with 503 to ${method} /slow.`);
    });
  }
}
