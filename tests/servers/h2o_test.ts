import { assertEquals } from "@std/assert";
import { behaviours, checkAuthority, type Site } from "./behaviours.ts";
import { request } from "./client.ts";
import { configuration, type Rig, snippet, Suite } from "./harness.ts";

const h2o = new Suite("h2o", { h2o: "h2o" }, async (rig) => {
  const tcp = await rig.daemon("fastcgi", "127.0.0.1:0");
  const unix = await rig.daemon("fastcgi", `unix:${rig.dir}/app.sock`, "/app");
  const script = rig.script("app.fcgi");
  const spawned = await rig.serve("h2o (spawned)", ["spawned", "hello"], (ports) => {
    const indent = (text: string) => text.replaceAll(/^/gm, "        ");
    const file = rig.write(
      "h2o.yaml",
      `
${Deno.uid() === 0 ? "user: root" : ""}
error-log: ${rig.logFile("error.log")}
pid-file: ${rig.dir}/h2o.pid
hosts:
  spawned:
    listen: { host: 127.0.0.1, port: ${ports.spawned} }
    paths:
      /:
${indent(snippet("yaml", "h2o-spawned", { "/srv/app/app.fcgi": script }))}
  hello:
    listen: { host: 127.0.0.1, port: ${ports.hello} }
    paths:
      /:
${indent(snippet("yaml", "h2o-spawned", { "/srv/app/app.fcgi": `${rig.root}/examples/hello.ts` }))}
`,
    );
    return ["h2o", ["-m", "worker", "-c", file]];
  });
  return {
    ...spawned,
    tcp: await serve(rig, "tcp", "--backend", tcp),
    unix: await serve(rig, "unix", "--backend", `unix:${unix}`, "--path", "/app"),
  };
});

/** Starts an h2o with the configuration that `config` prints. @returns Its port. */
async function serve(rig: Rig, name: string, ...args: string[]): Promise<number> {
  const { port } = await rig.serve(`h2o (${name})`, ["port"], ({ port }) => {
    const config = configuration("h2o", "--listen", `127.0.0.1:${port}`, ...args);
    const file = rig.write(
      `h2o-${name}.yaml`,
      `
error-log: ${rig.logFile("error.log")}
${Deno.uid() === 0 ? config : config.replace(/^user: .*$/m, "")}
`,
    );
    return ["h2o", ["-m", "worker", "-c", file]];
  });
  return port;
}

const site = (port: number, differences: Partial<Site> = {}): Site => ({
  host: `127.0.0.1:${port}`,
  dots: "/d/y//z",
  cookies: "a=1;b=2",
  closesAfterHead: true,
  truncated: "whole",
  ...differences,
});

behaviours(h2o, "FastCGI over TCP", ({ tcp }) => site(tcp));
behaviours(h2o, "FastCGI over a Unix socket", ({ unix }) =>
  site(unix, {
    base: "/app",
    // It takes the whole target for the path.
    absolute: "no route",
    split: { scriptName: "", pathInfo: "/app/café/x" },
    dots: "/app/d/y//z",
  }));
behaviours(h2o, "FastCGI, spawned on descriptor 0", ({ spawned }) => site(spawned));

h2o.test("the authority of HTTP/2 reaches the app", ({ tcp }) => checkAuthority(tcp));

h2o.test("spawns examples/hello.ts", async ({ hello }) => {
  const { status, text } = await request(site(hello).host, "GET", "/");
  assertEquals([status, text], [200, "Hello from Gatehouse\n"]);
});
