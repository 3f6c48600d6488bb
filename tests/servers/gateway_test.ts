/** Our own gateway in front of our own apps: what is held of every web server is held of it. */
import { assertEquals } from "@std/assert";
import { behaviours, see, type Site } from "./behaviours.ts";
import type { Front } from "./gateway_front.ts";
import { type Rig, Suite } from "./harness.ts";

const NAMES = ["cgi", "tcp", "unix", "each", "scgi"] as const;

/** Starts gateways, each on a port of its own. */
async function startGateways(rig: Rig): Promise<Record<typeof NAMES[number], number>> {
  const tcp = await rig.daemon("fastcgi", "127.0.0.1:0");
  const unix = await rig.daemon("fastcgi", `unix:${rig.dir}/app.sock`);
  const scgi = await rig.daemon("scgi", "127.0.0.1:0");
  rig.script("cgi-bin/app.ts");
  Deno.chmodSync(`${rig.dir}/cgi-bin`, 0o755);
  const logFile = rig.logFile("error.log");
  return await rig.serve("gateway", NAMES, (port) => {
    const fronts: Front[] = [
      {
        port: port.cgi,
        kind: "cgi",
        options: {
          root: `${rig.dir}/cgi-bin`,
          prefix: "/cgi-bin",
          env: { DENO_DIR: `${rig.dir}/deno` },
        },
      },
      { port: port.tcp, kind: "fastcgi", address: tcp, options: {} },
      { port: port.unix, kind: "fastcgi", address: `unix:${unix}`, options: {} },
      { port: port.each, kind: "fastcgi", address: tcp, options: { maxIdleConnections: 0 } },
      { port: port.scgi, kind: "scgi", address: scgi, options: {} },
    ];
    const flags = "run --no-prompt --no-config --allow-env=PATH --allow-run";
    return [Deno.execPath(), [
      ...flags.split(" "),
      `--allow-net=127.0.0.1,unix:${unix}`,
      `--allow-read=${rig.dir}`,
      `--allow-write=${rig.dir}`,
      `${rig.root}/tests/servers/gateway_front.ts`,
      JSON.stringify({ fronts, logFile }),
    ]];
  });
}

const gateway = new Suite("gateway", {}, startGateways);

const site = (port: number, differences: Partial<Site> = {}): Site => ({
  host: `127.0.0.1:${port}`,
  chunked: "streamed",
  dots: "/d/y//z",
  ...differences,
});

behaviours(gateway, "CGI", (port) =>
  site(port.cgi, {
    base: "/cgi-bin/app.ts",
    protocol: "cgi",
    chunked: "buffered",
    leaves: "killed",
  }));
behaviours(gateway, "FastCGI over TCP", (port) => site(port.tcp));
behaviours(gateway, "FastCGI over a Unix socket", (port) => site(port.unix));
behaviours(gateway, "FastCGI over a connection each", (port) => site(port.each));
behaviours(gateway, "SCGI", (port) => site(port.scgi, { protocol: "scgi", chunked: "buffered" }));

gateway.test("a script sees the request and PATH, and nothing of the server", async (port) => {
  const { variables } = await see(
    site(port.cgi, { base: "/cgi-bin/app.ts", protocol: "cgi" }),
    "/",
  );
  const names = Object.keys(variables).filter((name) => !name.startsWith("HTTP_"));
  assertEquals(names.toSorted(), [
    "CONTENT_LENGTH",
    "DENO_DIR",
    "DOCUMENT_ROOT",
    "GATEWAY_INTERFACE",
    "PATH",
    "PATH_INFO",
    "PATH_TRANSLATED",
    "QUERY_STRING",
    "REMOTE_ADDR",
    "REMOTE_PORT",
    "REQUEST_METHOD",
    "REQUEST_SCHEME",
    "REQUEST_URI",
    "SCRIPT_FILENAME",
    "SCRIPT_NAME",
    "SERVER_NAME",
    "SERVER_PORT",
    "SERVER_PROTOCOL",
    "SERVER_SOFTWARE",
  ]);
});
