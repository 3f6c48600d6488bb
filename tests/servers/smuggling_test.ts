/** The ambiguous requests of tests/testing/smuggling.ts, through each web server in front of `serveFastCGI()` (rule F2). */
import { assert, assertEquals } from "@std/assert";
import { serveFastCGI } from "../../fastcgi.ts";
import { Observer, smuggle } from "../testing/smuggling.ts";
import { apacheConfig, MODULES } from "./apache.ts";
import { caddyCommand, caddyOptions, caddySite } from "./caddy.ts";
import { configuration, type Rig, Suite } from "./harness.ts";
import { nginxCommand } from "./nginx.ts";

/** Serves an observer over FastCGI. Returns its address. */
function observe(rig: Rig): { observer: Observer; backend: string } {
  const observer = new Observer();
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const stop = new AbortController();
  serveFastCGI(observer.app, listener, { log() {}, signal: stop.signal });
  rig.use({ [Symbol.dispose]: () => stop.abort() });
  return { observer, backend: `127.0.0.1:${listener.addr.port}` };
}

type Command = (rig: Rig, port: number, backend: string) => [command: string, args: string[]];

/** What a web server passes on by itself, by the name of the case. */
type Allowed = Parameters<typeof smuggle>[2];

/** Registers the test of one web server. */
function testServer(
  name: string,
  needs: Record<string, string>,
  command: Command,
  allowed: Allowed = {},
  options: (rig: Rig) => Deno.CommandOptions = () => ({}),
): void {
  const suite = new Suite(name, needs, async (rig) => {
    const { observer, backend } = observe(rig);
    const { port } = await rig.serve(
      name,
      ["port"],
      ({ port }) => command(rig, port, backend),
      options(rig),
    );
    return { port, observer };
  });
  suite.test("no request is smuggled past it", async ({ port, observer }) => {
    assertEquals(await smuggle(port, observer, allowed), []);
    assert(observer.seen.some(({ path, body }) => path === "/a-0" && body === "hello"));
  });
}

const print = (name: string, port: number, backend: string, ...more: string[]) =>
  configuration(name, "--listen", `127.0.0.1:${port}`, "--backend", backend, ...more);

testServer(
  "nginx",
  { nginx: "nginx-light" },
  (rig, port, backend) => nginxCommand(rig, [print("nginx", port, backend)]),
);

testServer(
  "Apache",
  { apache2: "apache2", [`${MODULES}/mod_proxy_fcgi.so`]: "apache2-bin" },
  (rig, port, backend) => {
    const modules = ["mpm_event", "proxy", "proxy_fcgi"];
    const config = `${apacheConfig(rig, modules, {})}\n${print("apache", port, backend)}\n`;
    return ["apache2", ["-DFOREGROUND", "-f", rig.write("apache.conf", config)]];
  },
);

testServer("lighttpd", { lighttpd: "lighttpd" }, (rig, port, backend) => {
  const config = `
server.bind = "127.0.0.1"
server.port = ${port}
server.document-root = "${rig.dir}/www"
server.errorlog = "${rig.logFile("error.log")}"
server.upload-dirs = ( "${rig.dir}/cache" )
${configuration("lighttpd", "--backend", backend)}
`;
  return ["lighttpd", ["-D", "-f", rig.write("lighttpd.conf", config)]];
});

testServer("HAProxy", { haproxy: "haproxy" }, (rig, port, backend) => {
  const file = rig.write("haproxy.cfg", print("haproxy", port, backend));
  return ["haproxy", ["-db", "-f", file]];
});

testServer(
  "Caddy",
  { caddy: "caddy" },
  (rig, port, backend) =>
    caddyCommand(rig, [caddySite("--listen", `127.0.0.1:${port}`, "--backend", backend)]),
  // Takes an empty length for 0.
  { "no length": () => [""] },
  caddyOptions,
);

const h2o: Command = (rig, port, backend) => {
  const config = print("h2o", port, backend);
  const text = `
error-log: ${rig.logFile("error.log")}
${Deno.uid() === 0 ? config : config.replace(/^user: .*$/m, "")}
`;
  return ["h2o", ["-m", "worker", "-c", rig.write("h2o.yaml", text)]];
};

testServer("h2o", { h2o: "h2o" }, h2o, {
  // 2.2.5 takes the first length, and the digits before the x.
  "two lengths": () => [""],
  "a chunk size with 0x": () => [""],
});
