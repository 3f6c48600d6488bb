/** Sites with names, as `config` prints them. */
import { assertEquals } from "@std/assert";
import { served, startServe } from "../testing/command_line.ts";
import { request } from "./client.ts";
import { configuration, type Rig, Suite } from "./harness.ts";
import { nginxCommand } from "./nginx.ts";

/** Starts an app that responds with its name and path. Returns its address. */
async function startApp(rig: Rig, name: string, ...args: string[]): Promise<string> {
  const app = rig.write(
    `${name}.ts`,
    `export default (request) => new Response("${name} " + new URL(request.url).pathname);`,
  );
  const daemon = startServe(app, args);
  rig.use({ [Symbol.dispose]: () => void daemon[Symbol.asyncDispose]() });
  return await served(daemon);
}

const nginx = new Suite(
  "nginx with two named sites",
  { nginx: "nginx-light", "/etc/nginx/fastcgi_params": "nginx-common" },
  async (rig) => {
    const [one, two] = [await startApp(rig, "one"), await startApp(rig, "two")];
    const { port } = await rig.serve("nginx", ["port"], ({ port }) => {
      const site = (name: string, backend: string, names: string[]) =>
        configuration(
          ...["nginx", "--listen", `127.0.0.1:${port}`, "--name", name, "--backend", backend],
          ...names.flatMap((name) => ["--server-name", name]),
        );
      return nginxCommand(rig, [
        site("one", one, ["one.example"]),
        site("two", two, ["two.example", "www.two.example"]),
      ]);
    });
    return `127.0.0.1:${port}`;
  },
);

nginx.test("the host names the app", async (host) => {
  const names = ["one.example", "two.example", "www.two.example", "TWO.example:8080"];
  const texts = await Promise.all(
    names.map(async (name) => (await request(host, "GET", "/", { name })).text),
  );
  assertEquals(texts, ["one /", "two /", "two /", "two /"]);
});

for (const path of ["", "/app"]) {
  const haproxy = new Suite(
    `HAProxy with a named site${path && ` at ${path}`}`,
    { haproxy: "haproxy" },
    async (rig) => {
      const at = path === "" ? [] : ["--base-path", path];
      const backend = await startApp(rig, "one", ...at);
      const { port } = await rig.serve("haproxy", ["port"], ({ port }) => {
        const args = [
          ...["--listen", `127.0.0.1:${port}`, "--backend", backend, "--path", path || "/"],
          ...["--server-name", "one.example", "--server-name", "www.one.example"],
        ];
        return ["haproxy", [
          "-db",
          "-f",
          rig.write("haproxy.cfg", configuration("haproxy", ...args)),
        ]];
      });
      return `127.0.0.1:${port}`;
    },
  );

  haproxy.test("only requests for its hosts reach the app", async (host) => {
    const statusOf = async (name: string, at: string) =>
      (await request(host, "GET", at, { name })).status;
    for (const name of ["one.example", "www.one.example", "ONE.example:8080"]) {
      assertEquals([name, await statusOf(name, `${path}/`)], [name, 200]);
      if (path === "") continue;
      assertEquals(await statusOf(name, path), 200);
      assertEquals(await statusOf(name, "/other"), 503);
    }
    for (const name of ["two.example", "one.example.org", "x.one.example"]) {
      assertEquals([name, await statusOf(name, `${path}/`)], [name, 503]);
    }
  });
}
