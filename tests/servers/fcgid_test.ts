import { assertEquals, assertFalse } from "@std/assert";
import { apacheConfig, MODULES } from "./apache.ts";
import { behaviours, see, type Seen, type Site } from "./behaviours.ts";
import { request } from "./client.ts";
import { snippet, Suite } from "./harness.ts";

const fcgid = new Suite("mod_fcgid", {
  apache2: "apache2",
  [`${MODULES}/mod_fcgid.so`]: "libapache2-mod-fcgid",
}, async (rig) => {
  const app = rig.script("app/app.fcgi");
  rig.script("app/authorizer.fcgi", "authorizer");
  Deno.copyFileSync(`${rig.root}/examples/hello.ts`, `${rig.root}/examples/hello.fcgi`);
  return await rig.serve("apache2", ["list", "hello", "guarded"], (port) => {
    const directory = (app: string) =>
      snippet("apache", "fcgid", {
        "/usr/local/bin:": `${rig.bin}:/usr/local/bin:`,
        "/var/cache/deno": `${rig.dir}/cache`,
        "/srv/app": app,
      });
    const wrapper = snippet("apache", "fcgid-wrapper", { "/srv/app": `${rig.root}/examples` });
    const guarded = ["/secret/", "/login/"].map((path) =>
      directory(`${rig.dir}/app`).replace("Alias /app/", `Alias ${path}`)
    );
    const file = rig.write(
      "apache.conf",
      apacheConfig(rig, [
        ..."mpm_event alias mime fcgid auth_basic authn_core authn_file authz_user".split(" "),
      ], {
        [port.list]: directory(`${rig.dir}/app`),
        [port.hello]: [
          directory(`${rig.root}/examples`),
          wrapper,
          wrapper.replace("/hello", "/wrapped").replace(/\S+\/hello.ts/, app),
        ].join("\n"),
        [port.guarded]: [
          ...guarded,
          snippet("apache", "authorizer", { "/srv/app": `${rig.dir}/app` }),
        ].join("\n"),
      }) + `
TypesConfig /dev/null
FcgidIPCDir ${rig.dir}/fcgid
FcgidProcessTableFile ${rig.dir}/fcgid_shm
`,
    );
    return ["apache2", ["-DFOREGROUND", "-f", file]];
  });
});

const site = (port: number): Site => ({
  host: `127.0.0.1:${port}`,
  base: "/app/app.fcgi",
  cookies: "a=1, b=2",
});

behaviours(fcgid, "AddHandler", ({ list }) => ({ ...site(list), truncated: "page" }));

fcgid.test("runs examples/hello.ts as a .fcgi file", async ({ hello }) => {
  const { status, text } = await request(site(hello).host, "GET", "/app/hello.fcgi");
  assertEquals([status, text], [200, "Hello from Gatehouse\n"]);
});

fcgid.test("serves no other file of the folder", async ({ hello, list }) => {
  for (
    const path of ["/app/hello.ts", "/app/HELLO.FCGI", "/app/.env", "/app/", "/app/hello.fcgi~"]
  ) {
    assertEquals((await request(site(hello).host, "GET", path)).status, 403, path);
  }
  assertEquals((await request(site(list).host, "GET", "/app/authorizer.fcgi.bak")).status, 403);
});

fcgid.test("runs examples/hello.ts as a wrapper", async ({ hello }) => {
  const { status, text } = await request(site(hello).host, "GET", "/hello/x");
  assertEquals([status, text], [200, "Hello from Gatehouse\n"]);
});

fcgid.test("splits a wrapper's path after its location", async ({ hello }) => {
  const { variables } = await see({ host: site(hello).host }, "/wrapped/x/y");
  assertEquals([variables.SCRIPT_NAME, variables.PATH_INFO], ["/wrapped", "/x/y"]);
});

fcgid.test("an access checker allows only requests that carry the key", async (ports) => {
  const { host } = site(ports.guarded);
  const path = "/secret/app.fcgi/x";
  const allowed = await request(host, "GET", path, { fields: [["X-Key", "right"]] });
  assertEquals(allowed.status, 200);
  // mod_fcgid sends the variable to the client too.
  assertEquals(allowed.head.get("variable-let_in_by"), "key");
  const { variables }: Seen = JSON.parse(allowed.text);
  assertEquals([variables.LET_IN_BY, variables.METHOD_SEEN], ["key", "GET"]);
  const { status, text } = await request(host, "GET", path);
  // mod_fcgid replaces the app's status.
  assertEquals(status, 401);
  assertFalse(text.includes("key"), text);
});

fcgid.test("an authenticator checks a password", async (ports) => {
  const { host } = site(ports.guarded);
  const logIn = (password: string) =>
    request(host, "GET", "/login/app.fcgi/x", {
      fields: [["Authorization", `Basic ${btoa(`me:${password}`)}`]],
    });
  const allowed = await logIn("right");
  assertEquals(allowed.status, 200);
  const { variables }: Seen = JSON.parse(allowed.text);
  assertEquals([variables.REMOTE_USER, variables.LET_IN_BY], ["me", "key"]);
  assertEquals((await logIn("wrong")).status, 401);
});
