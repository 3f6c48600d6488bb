import { assertEquals } from "@std/assert";
import { behaviours, checkAuthority, see, type Site } from "./behaviours.ts";
import { Client, request } from "./client.ts";
import { configuration, type Rig, snippet, Suite } from "./harness.ts";

const lighttpd = new Suite("lighttpd", { lighttpd: "lighttpd" }, async (rig) => {
  const tcp = await rig.daemon("fastcgi", "127.0.0.1:0");
  const [host, port] = tcp.split(":");
  const unix = await rig.daemon("fastcgi", `unix:${rig.dir}/app.sock`);
  const scgi = await rig.daemon("scgi", "127.0.0.1:0");
  rig.script("app.fcgi");
  rig.script("www/cgi-bin/app.ts");
  rig.logFile("error.log");
  const mounted = configuration("lighttpd", "--backend", `unix:${unix}`, "--path", "/app");
  return {
    cgi: await serve(
      rig,
      "cgi",
      snippet("lighttpd", "cgi", { "/var/log/lighttpd/cgi.log": rig.logFile("cgi.log") }),
    ),
    tcp: await serve(rig, "tcp", configuration("lighttpd", "--backend", tcp)),
    unix: await serve(rig, "unix", mounted),
    scgi: await serve(
      rig,
      "scgi",
      configuration("lighttpd", "--protocol", "scgi", "--backend", scgi),
    ),
    spawned: await serve(
      rig,
      "spawned",
      snippet("lighttpd", "spawned", {
        "/srv/app/app.fcgi": `${rig.dir}/app.fcgi`,
        "/run/app.sock": `${rig.dir}/spawned.sock`,
      }),
    ),
    hello: await serve(
      rig,
      "hello",
      snippet("lighttpd", "spawned", {
        "/srv/app/app.fcgi": `${rig.root}/examples/hello.ts`,
        "/run/app.sock": `${rig.dir}/hello.sock`,
      }),
    ),
    authorizer: await serve(
      rig,
      "authorizer",
      snippet("lighttpd", "authorizer", {
        "127.0.0.1": host,
        "9000": port,
        "/srv/www": `${rig.dir}/www`,
      }),
    ),
    streamed: await serve(rig, "streamed", `${mounted}\nserver.stream-request-body = 2`),
  };
});

/** Starts a lighttpd for one configuration, since lighttpd cannot load a module for one port only. */
async function serve(rig: Rig, name: string, config: string): Promise<number> {
  const { port } = await rig.serve(`lighttpd (${name})`, ["port"], ({ port }) => {
    const text = `
server.bind = "127.0.0.1"
server.port = ${port}
server.document-root = "${rig.dir}/www"
server.errorlog = "${rig.dir}/error.log"
server.upload-dirs = ( "${rig.dir}/cache" )
${config}
`;
    return ["lighttpd", ["-D", "-f", rig.write(`lighttpd-${name}.conf`, text)]];
  });
  return port;
}

const site = (port: number, differences: Partial<Site> = {}): Site => ({
  host: `127.0.0.1:${port}`,
  absolute: "rejected",
  ...differences,
});

behaviours(lighttpd, "CGI (mod_cgi)", ({ cgi }) =>
  site(cgi, {
    base: "/cgi-bin/app.ts",
    protocol: "cgi",
    disconnect: "killed",
    log: (rig) => rig.read("cgi.log"),
  }));
behaviours(lighttpd, "FastCGI over TCP", ({ tcp }) => site(tcp));
behaviours(lighttpd, "FastCGI over a Unix socket", ({ unix }) => site(unix, { base: "/app" }));
behaviours(
  lighttpd,
  "SCGI",
  ({ scgi }) => site(scgi, { protocol: "scgi", log: (rig) => rig.output("daemon (scgi)") }),
);
behaviours(
  lighttpd,
  "FastCGI, spawned on descriptor 0",
  ({ spawned }) => site(spawned, { base: "/app" }),
);

lighttpd.test("the authority of HTTP/2 reaches the app", ({ tcp }) => checkAuthority(tcp));

lighttpd.test("spawns examples/hello.ts", async ({ hello }) => {
  const { status, text } = await request(site(hello).host, "GET", "/app");
  assertEquals([status, text], [200, "Hello from Gatehouse\n"]);
});

lighttpd.test("an authorizer allows only requests that carry the key", async (ports) => {
  const at = site(ports.authorizer, { base: "/cgi-bin/app.ts" });
  const { variables } = await see(at, "/x", [["X-Key", "right"]]);
  assertEquals([variables.LET_IN_BY, variables.METHOD_SEEN], ["key", "GET"]);
  const { status, text } = await request(at.host, "GET", "/cgi-bin/app.ts/x");
  assertEquals([status, text], [403, "Not without the key\n"]);
});

lighttpd.test("a path is not that of names which begin with it", async ({ unix }) => {
  assertEquals((await request(site(unix).host, "GET", "/apple/x")).status, 404);
});

lighttpd.test("rejects an invalid path and an unknown method before the app", async ({ tcp }) => {
  const { host } = site(tcp);
  assertEquals((await request(host, "GET", "/%FF")).status, 400);
  assertEquals((await request(host, "FROBNICATE", "/hello")).status, 501);
});

lighttpd.test("rejects a chunked request with server.stream-request-body", async ({ streamed }) => {
  using client = await Client.connect(site(streamed).host);
  await client.sendHead("POST", "/app/sum", [["Transfer-Encoding", "chunked"]]);
  assertEquals((await client.readResponse()).status, 411);
});
