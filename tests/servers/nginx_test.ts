import { assertEquals } from "@std/assert";
import { behaviours, checkAuthority, type Site } from "./behaviours.ts";
import { Client, request, Witness } from "./client.ts";
import { configuration, eventually, snippet, Suite } from "./harness.ts";
import { nginxCommand, stockParameters } from "./nginx.ts";

const nginx = new Suite("nginx", {
  nginx: "nginx-light",
  fcgiwrap: "fcgiwrap",
  "/etc/nginx/fastcgi_params": "nginx-common",
}, async (rig) => {
  const tcp = await rig.daemon("fastcgi", "127.0.0.1:0");
  const unix = await rig.daemon("fastcgi", `unix:${rig.dir}/app.sock`);
  const scgi = await rig.daemon("scgi", "127.0.0.1:0");
  const fcgiwrap = `${rig.dir}/fcgiwrap.sock`;
  rig.spawn("fcgiwrap", "fcgiwrap", ["-f", "-c", "4", "-s", `unix:${fcgiwrap}`]);
  rig.script("cgi-bin/app.ts");
  return await rig.serve(
    "nginx",
    ["tcp", "unix", "stock", "keep", "cgi", "scgi", "auth", "http2", "rewrite"],
    (port) => {
      const server = (port: number, location: string) =>
        `server { listen 127.0.0.1:${port}; client_max_body_size 20m; ${location} }`;
      const config = (name: keyof typeof port, ...args: string[]) =>
        configuration("nginx", "--name", name, "--listen", `127.0.0.1:${port[name]}`, ...args);
      const blocks = [
        config("tcp", "--backend", tcp),
        config("unix", "--backend", `unix:${unix}`, "--path", "/app")
          .replace("  listen ", `  listen 127.0.0.1:${port.http2} http2;\n$&`),
        config("scgi", "--backend", scgi, "--protocol", "scgi"),
        server(port.stock, snippet("nginx", "stock", { "/run/app.sock": unix })),
        server(port.auth, snippet("nginx", "auth", { "127.0.0.1:9000": tcp })),
        server(
          port.rewrite,
          `
location / {
  rewrite ^/rewritten/ /new?added=1;
  rewrite ^/removed/ /new?;
  include fastcgi_params;
  fastcgi_pass ${tcp};
}
location = /auth { internal; include fastcgi_params; fastcgi_pass ${tcp}; }
location /private/ {
  auth_request /auth;
  auth_request_set $seen $upstream_http_x_url;
  add_header X-Seen $seen;
  include fastcgi_params;
  fastcgi_pass ${tcp};
}`,
        ),
        snippet("nginx", "keep", {
          "127.0.0.1:9000": tcp,
          "listen 80;": `listen 127.0.0.1:${port.keep}; client_max_body_size 20m;`,
        }),
        snippet("nginx", "cgi", {
          "listen 80;": `listen 127.0.0.1:${port.cgi}; client_max_body_size 20m;`,
          "/srv$script": `${rig.dir}$script`,
          "/run/fcgiwrap.sock": fcgiwrap,
        }),
      ];
      return nginxCommand(rig, blocks);
    },
  );
});

/** Once the response has begun, nginx may stop sending the body. */
const site = (port: number, differences: Partial<Site> = {}): Site => ({
  host: `127.0.0.1:${port}`,
  pipes: "perhaps",
  ...differences,
});

behaviours(nginx, "FastCGI over TCP", (port) => site(port.tcp));
behaviours(nginx, "FastCGI over a Unix socket", (port) => site(port.unix, { base: "/app" }));
behaviours(nginx, "FastCGI over a Unix socket, stock parameters", (port) =>
  site(port.stock, {
    // Debian's parameters omit the port.
    seenHost: /HTTP_HOST\s+\$host;/.test(stockParameters("fastcgi_params"))
      ? "127.0.0.1"
      : undefined,
    split: { scriptName: "/café/x", pathInfo: undefined },
  }));
behaviours(
  nginx,
  "FastCGI over kept connections",
  (port) => site(port.keep, { chunked: "streamed" }),
);
behaviours(
  nginx,
  "CGI through fcgiwrap",
  (port) =>
    site(port.cgi, {
      base: "/cgi-bin/app.ts",
      protocol: "cgi",
      pipes: undefined,
      // Before 1.23 nginx sends the variable twice, and an environment has one of them.
      cookies: "b=2",
    }),
);
behaviours(
  nginx,
  "SCGI",
  (port) => site(port.scgi, { protocol: "scgi", log: (rig) => rig.output("daemon (scgi)") }),
);

for (const [over, path] of [["tcp", "/wait"], ["unix", "/app/wait"]] as const) {
  nginx.test(
    `a client that disconnects before the response aborts the request, a 499, over ${over}`,
    async (port, rig) => {
      using witness = new Witness();
      const client = await Client.connect(site(port[over]).host);
      const target = `${path}?witness=${witness.port}`;
      await client.sendHead("GET", target);
      assertEquals(await witness.next("the app starts"), "started");
      client[Symbol.dispose]();
      assertEquals(await witness.next("the request aborts"), "aborted");
      await eventually(
        "the line of the access log",
        () => rig.output("daemon (fastcgi)").includes(`"GET ${target} HTTP/1.1" 499 -`),
      );
    },
  );
}

nginx.test(
  "the authority of HTTP/2 reaches the app",
  ({ http2 }) => checkAuthority(http2, "/app"),
);

nginx.test("a rewritten query reaches the app, the path stays that of the client", async (port) => {
  const { host } = site(port.rewrite);
  const seen = async (path: string) => {
    const { head } = await request(host, "GET", path);
    return [head.get("x-url"), head.get("x-seen")].map((url) =>
      url?.replace("http://127.0.0.1", "")
    );
  };
  assertEquals(await seen("/rewritten/x?q=1"), ["/rewritten/x?added=1&q=1", undefined]);
  assertEquals(await seen("/removed/x?q=1"), ["/removed/x?q=1", undefined]);
  // A subrequest has no query of its own.
  assertEquals(await seen("/private/x?q=1"), ["/private/x?q=1", "/private/x?q=1"]);
});

nginx.test("auth_request authorizes with the app", async (port) => {
  const { host } = site(port.auth);
  const body = new Uint8Array(100_000);
  const allowed = await request(host, "POST", "/private/x", { body, fields: [["X-Key", "right"]] });
  assertEquals([allowed.status, JSON.parse(allowed.text).method], [200, "POST"]);
  assertEquals((await request(host, "POST", "/private/x", { body })).status, 403);
  assertEquals((await request(host, "GET", "/auth")).status, 404);
});
