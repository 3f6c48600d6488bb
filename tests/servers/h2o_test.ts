import { assertEquals } from "@std/assert";
import { behaviours, type Site } from "./behaviours.ts";
import { request } from "./client.ts";
import { snippet, Suite } from "./harness.ts";

const h2o = new Suite("h2o", { h2o: "h2o" }, async (rig) => {
  const [host, port] = (await rig.daemon("fastcgi", "127.0.0.1:0")).split(":");
  const unix = await rig.daemon("fastcgi", `unix:${rig.dir}/app.sock`, "/app");
  const script = rig.script("app.fcgi");
  return await rig.serve("h2o", ["tcp", "unix", "spawned", "hello"], (ports) => {
    const indent = (text: string) => text.replaceAll(/^/gm, "        ");
    const file = rig.write(
      "h2o.yaml",
      `
${Deno.uid() === 0 ? "user: root" : ""}
error-log: ${rig.logFile("error.log")}
pid-file: ${rig.dir}/h2o.pid
hosts:
  tcp:
    listen: { host: 127.0.0.1, port: ${ports.tcp} }
    paths:
      /:
${indent(snippet("yaml", "h2o-tcp", { "127.0.0.1": host, "9000": port }))}
  unix:
    listen: { host: 127.0.0.1, port: ${ports.unix} }
    paths:
      /app:
${indent(snippet("yaml", "h2o-unix", { "/run/app.sock": unix }))}
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
});

const site = (port: number, differences: Partial<Site> = {}): Site => ({
  host: `127.0.0.1:${port}`,
  dots: "/d/y//z",
  closesAfterHead: true,
  truncated: "hidden",
  ...differences,
});

behaviours(h2o, "FastCGI over TCP", ({ tcp }) => site(tcp));
behaviours(h2o, "FastCGI over a Unix socket", ({ unix }) =>
  site(unix, {
    base: "/app",
    split: { scriptName: "", pathInfo: "/app/café/x" },
    dots: "/app/d/y//z",
  }));
behaviours(h2o, "FastCGI, spawned on descriptor 0", ({ spawned }) => site(spawned));

h2o.test("spawns examples/hello.ts", async ({ hello }) => {
  const { status, text } = await request(site(hello).host, "GET", "/");
  assertEquals([status, text], [200, "Hello from Gatehouse\n"]);
});
