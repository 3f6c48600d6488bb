import { assertEquals } from "@std/assert";
import { apacheConfig, MODULES } from "./apache.ts";
import { behaviours, checkAuthority, see, type Site } from "./behaviours.ts";
import { request } from "./client.ts";
import { configuration, snippet, Suite } from "./harness.ts";

const apache = new Suite("Apache", {
  apache2: "apache2",
  [`${MODULES}/mod_proxy_fcgi.so`]: "apache2-bin",
}, async (rig) => {
  const tcp = await rig.daemon("fastcgi", "127.0.0.1:0");
  const unix = await rig.daemon("fastcgi", `unix:${rig.dir}/app.sock`);
  const scgi = await rig.daemon("scgi", "127.0.0.1:0");
  rig.script("cgi-bin/app.ts");
  const redirect = "#!/bin/sh\nprintf 'Location: /cgi-bin/app.ts/there?local\\n\\n'\n";
  Deno.chmodSync(rig.write("cgi-bin/redirect", redirect), 0o755);
  const cgi = snippet("apache", "cgi", {
    "/srv/cgi-bin": `${rig.dir}/cgi-bin`,
    "/var/cache/deno": `${rig.dir}/cache`,
  });
  return await rig.serve(
    "apache2",
    ["cgi", "noDecode", "tcp", "unix", "split", "scgi", "rewrite"],
    (port) => {
      const config = (port: number, backend: string, ...more: string[]) =>
        configuration("apache", "--listen", `127.0.0.1:${port}`, "--backend", backend, ...more);
      const file = rig.write(
        "apache.conf",
        apacheConfig(
          rig,
          "mpm_event alias env cgid http2 proxy proxy_fcgi proxy_scgi rewrite".split(" "),
          {
            [port.cgi]: cgi,
            [port.noDecode]: cgi.replace("AllowEncodedSlashes On", "AllowEncodedSlashes NoDecode"),
            [port.rewrite]: `${cgi}
RewriteEngine On
RewriteRule ^/rewritten/ /cgi-bin/app.ts/new?added=1 [QSA,PT]
RewriteRule ^/removed/ /cgi-bin/app.ts/new? [PT]
ErrorDocument 404 /cgi-bin/app.ts/missing
ErrorDocument 403 /cgi-bin/app.ts/forbidden?status=403
<Location /forbidden>
  Require all denied
</Location>
`,
            [port.split]: snippet("apache", "split", { "127.0.0.1:9000": tcp }),
          },
        ) + [
          config(port.tcp, tcp),
          config(port.unix, `unix:${unix}`),
          config(port.scgi, scgi, "--protocol", "scgi"),
          `ScriptSock ${rig.dir}/cgid.sock\nProtocols h2c http/1.1\n`,
        ].join("\n"),
      );
      return ["apache2", ["-DFOREGROUND", "-f", file]];
    },
  );
});

/** Apache with the prefork MPM and mod_cgi; a threaded MPM uses mod_cgid instead. */
const prefork = new Suite("Apache", {
  apache2: "apache2",
  [`${MODULES}/mod_mpm_prefork.so`]: "apache2-bin",
}, async (rig) => {
  rig.script("cgi-bin/app.ts");
  return await rig.serve("apache2", ["cgi"], (port) => {
    const cgi = snippet("apache", "cgi", {
      "/srv/cgi-bin": `${rig.dir}/cgi-bin`,
      "/var/cache/deno": `${rig.dir}/cache`,
    });
    const modules = ["mpm_prefork", "alias", "env", "cgi"];
    const file = rig.write("apache.conf", apacheConfig(rig, modules, { [port.cgi]: cgi }));
    return ["apache2", ["-DFOREGROUND", "-f", file]];
  });
});

const site = (port: number, differences: Partial<Site> = {}): Site => ({
  host: `127.0.0.1:${port}`,
  chunked: "streamed",
  cookies: "a=1, b=2",
  ...differences,
});
const cgi = { base: "/cgi-bin/app.ts", protocol: "cgi", disconnect: "killed" } as const;
behaviours(prefork, "CGI (mod_cgi)", (port) => site(port.cgi, cgi));
/** mod_proxy_fcgi does not split the path: it sends all of it as SCRIPT_NAME (rule A16). */
const unsplit = { scriptName: "/café/x", pathInfo: undefined };

behaviours(apache, "CGI (mod_cgid)", (port) => site(port.cgi, cgi));
behaviours(
  apache,
  "FastCGI over TCP",
  (port) => site(port.tcp, { split: unsplit }),
);
behaviours(apache, "FastCGI over a Unix socket", (port) => site(port.unix, { split: unsplit }));
behaviours(apache, "SCGI", (port) =>
  site(port.scgi, {
    protocol: "scgi",
    split: unsplit,
    chunked: 411,
    log: (rig) => rig.output("daemon (scgi)"),
  }));

apache.test("the authority of HTTP/2 reaches the app", ({ tcp }) => checkAuthority(tcp));

apache.test("rejects an encoded slash unless AllowEncodedSlashes is set", async (port) => {
  const { status } = await request(site(port.split).host, "GET", "/caf%C3%A9%2Fx");
  assertEquals(status, 404);
});

apache.test("passes on an encoded slash with AllowEncodedSlashes NoDecode", async (port) => {
  const seen = await see(site(port.noDecode, cgi), "/caf%C3%A9%2Fx");
  assertEquals(seen.variables.PATH_INFO, "/café%2Fx");
  assertEquals([seen.scriptName, seen.pathInfo], [cgi.base, "/café/x"]);
  assertEquals(new URL(seen.url).pathname, "/caf%C3%A9%2Fx");
});

apache.test("a rewritten query reaches the app, the path stays that of the client", async (port) => {
  const { host } = site(port.rewrite);
  const seen = async (path: string) => {
    const { head } = await request(host, "GET", path);
    return head.get("x-url")?.replace(`http://${host}`, "");
  };
  assertEquals(await seen("/rewritten/x?q=1"), "/rewritten/x?added=1&q=1");
  assertEquals(await seen("/removed/x?q=1"), "/removed/x?q=1");
  assertEquals(await seen("/missing?q=1"), "/missing?q=1");
  assertEquals(await seen("/forbidden?q=1"), "/forbidden?status=403");
  assertEquals(await seen("/cgi-bin/redirect?q=1"), "/cgi-bin/redirect?local");
});

apache.test("splits the path as RFC 3875 does when configured to", async (port) => {
  const { url, variables } = await see(site(port.split), "/d/caf%C3%A9");
  assertEquals(new URL(url).pathname, "/d/caf%C3%A9");
  assertEquals([variables.SCRIPT_NAME, variables.PATH_INFO], ["", "/d/café"]);
});

/** mod_proxy as the handler of a place instead of ProxyPass: Apache splits the path where it ceases to be a file. */
const handlers = new Suite("Apache, SetHandler", {
  apache2: "apache2",
  [`${MODULES}/mod_proxy_fcgi.so`]: "apache2-bin",
}, async (rig) => {
  const backends = {
    tcp: `fcgi://${await rig.daemon("fastcgi", "127.0.0.1:0")}`,
    unix: `unix:${await rig.daemon("fastcgi", `unix:${rig.dir}/app.sock`)}|fcgi://localhost`,
    scgi: `scgi://${await rig.daemon("scgi", "127.0.0.1:0")}`,
  };
  return await rig.serve("apache2", ["tcp", "unix", "scgi"], (port) => {
    const host = (backend: string) => `
DocumentRoot ${rig.root}/tests/servers
<Location />
  SetHandler "proxy:${backend}"
  Require all granted
</Location>`;
    const modules = "mpm_event proxy proxy_fcgi proxy_scgi".split(" ");
    const hosts = Object.entries(backends).map(([name, backend]) =>
      [port[name as keyof typeof backends], host(backend)] as const
    );
    const file = rig.write("apache.conf", apacheConfig(rig, modules, Object.fromEntries(hosts)));
    return ["apache2", ["-DFOREGROUND", "-f", file]];
  });
});

for (const name of ["tcp", "unix", "scgi"] as const) {
  handlers.test(`${name}: no part of the path is a mount prefix`, async (port) => {
    for (const path of ["/foo/bar", "/foo", "/foo/bar/baz"]) {
      const { url, scriptName, pathInfo } = await see(site(port[name]), path);
      assertEquals([new URL(url).pathname, scriptName, pathInfo], [path, "", path]);
    }
  });

  handlers.test(`${name}: the running program is a mount prefix`, async (port) => {
    const { url, scriptName, pathInfo } = await see(site(port[name]), "/daemon.ts/foo");
    assertEquals([new URL(url).pathname, scriptName, pathInfo], ["/foo", "/daemon.ts", "/foo"]);
  });
}
