/** The gateways in front of the test app: they must pass the same tests as every web server. */
import { assert, assertEquals } from "@std/assert";
import { behaviours, see, type Site } from "./behaviours.ts";
import { Client, request } from "./client.ts";
import type { Front } from "./gateway_front.ts";
import { freePort, type Rig, Suite } from "./harness.ts";

const NAMES = [
  "cgi",
  "tcp",
  "unix",
  "each",
  "scgi",
  "dev",
  "memory",
  "bulkCGI",
  "bulkFastCGI",
  "bulkSCGI",
] as const;

/** A script that returns the length of its body, or without one a body of the length that the query gives. */
const BULK = `#!/bin/sh
echo "Content-Type: application/octet-stream"
echo
if [ -n "$CONTENT_LENGTH" ]; then wc -c; else head -c "\${QUERY_STRING#length=}" /dev/zero; fi
`;

/** Starts each gateway on its own port. */
async function startGateways(rig: Rig): Promise<Record<typeof NAMES[number], number>> {
  const tcp = await rig.daemon("fastcgi", "127.0.0.1:0");
  const unix = await rig.daemon("fastcgi", `unix:${rig.dir}/app.sock`);
  const scgi = await rig.daemon("scgi", "127.0.0.1:0");
  rig.script("cgi-bin/app.ts");
  Deno.chmodSync(`${rig.dir}/cgi-bin`, 0o755);
  const bulk = rig.write("cgi-bin/bulk.sh", BULK);
  Deno.chmodSync(bulk, 0o755);
  const logFile = rig.logFile("error.log");
  const bulkPorts = { fastcgi: freePort(), scgi: freePort() };
  const at = (port: number) => `127.0.0.1:${port}`;
  return await rig.serve("gateway", NAMES, (port) => {
    const fronts: Front[] = [
      {
        port: port.cgi,
        kind: "cgi",
        options: {
          root: `${rig.dir}/cgi-bin`,
          basePath: "/cgi-bin",
          env: { DENO_DIR: `${rig.dir}/deno` },
        },
      },
      { port: port.tcp, kind: "fastcgi", address: tcp, options: {} },
      { port: port.unix, kind: "fastcgi", address: `unix:${unix}`, options: {} },
      { port: port.each, kind: "fastcgi", address: tcp, options: { maxIdleConnections: 0 } },
      { port: port.scgi, kind: "scgi", address: scgi, options: {} },
      { port: port.dev, kind: "fastcgi", address: tcp, options: { allowedHosts: ["dev.test"] } },
      { port: port.memory, kind: "memory", options: {} },
      { port: port.bulkCGI, kind: "cgi", options: { script: bulk } },
      { port: port.bulkFastCGI, kind: "fastcgi", address: at(bulkPorts.fastcgi), options: {} },
      { port: port.bulkSCGI, kind: "scgi", address: at(bulkPorts.scgi), options: {} },
    ];
    const flags = "run --no-prompt --no-config --allow-env=PATH,TMPDIR --allow-run";
    return ["env", [
      `TMPDIR=${rig.dir}`,
      Deno.execPath(),
      ...flags.split(" "),
      `--allow-net=127.0.0.1,unix:${unix}`,
      `--allow-read=${rig.dir}`,
      `--allow-write=${rig.dir}`,
      `${rig.root}/tests/servers/gateway_front.ts`,
      JSON.stringify({ fronts, logFile, bulkPorts }),
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
    disconnect: "killed",
  }));
behaviours(gateway, "FastCGI over TCP", (port) => site(port.tcp));
behaviours(gateway, "FastCGI over a Unix socket", (port) => site(port.unix));
behaviours(gateway, "FastCGI over one connection per request", (port) => site(port.each));
behaviours(gateway, "SCGI", (port) =>
  site(port.scgi, {
    protocol: "scgi",
    chunked: "buffered",
    log: (rig) => rig.output("daemon (scgi)"),
  }));

gateway.test("a script sees the request's variables and PATH, and no other variable of the server", async (port) => {
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

const MEGABYTE = 1_048_576;

for (const way of ["bulkCGI", "bulkFastCGI", "bulkSCGI"] as const) {
  gateway.test(`${way}: 300 MB are uploaded and downloaded without growth in memory`, async (port) => {
    const memory = async () =>
      JSON.parse((await request(`127.0.0.1:${port.memory}`, "GET", "/")).text) / MEGABYTE;
    const before = await memory();
    let peak = 0;
    const length = 300 * MEGABYTE;
    using client = await Client.connect(`127.0.0.1:${port[way]}`);
    await client.sendHead("POST", "/", [["Content-Length", String(length)]]);
    for (let sent = 0; sent < length; sent += MEGABYTE) {
      await client.send(new Uint8Array(MEGABYTE));
      if (sent % (100 * MEGABYTE) === 0) peak = Math.max(peak, await memory());
    }
    assertEquals((await client.readResponse()).text.trim(), String(length));
    using reader = await Client.connect(`127.0.0.1:${port[way]}`);
    await reader.sendHead("GET", `/?length=${length}`);
    let received = 0;
    for await (const part of reader.readParts(await reader.readHead())) {
      received += part.length;
      if (received % (100 * MEGABYTE) < part.length) peak = Math.max(peak, await memory());
    }
    assertEquals(received, length);
    assert(peak - before < 100, `${before} MB grew to ${peak} MB`);
  });
}

gateway.test("allowedHosts rejects requests for other hosts with 421", async (port) => {
  const status = async (host: string) => {
    using client = await Client.connect(`127.0.0.1:${port.dev}`);
    await client.send(`GET /hello HTTP/1.1\r\nHost: ${host}\r\nConnection: close\r\n\r\n`);
    return (await client.readResponse()).status;
  };
  for (const host of ["localhost", `127.0.0.1:${port.dev}`, "[::1]", "dev.test:80"]) {
    assertEquals(await status(host), 200, host);
  }
  for (const host of ["rebound.example", "localhost.example", "dev.test.example", "10.0.0.1"]) {
    assertEquals(await status(host), 421, host);
  }
  assertEquals(await status("a b"), 400);
});

gateway.test("a client's header cannot replace another header or a variable", async (port) => {
  const { headers, variables } = await see(site(port.tcp), "/", [
    ["X_Real_Ip", "10.0.0.1"],
    ["Content_Length", "9"],
    ["Remote-User", "root"],
    ["X-Real-IP", "10.0.0.2"],
    ["Proxy", "http://evil.example"],
  ]);
  assertEquals(headers["x-real-ip"], "10.0.0.2");
  assertEquals(variables.REMOTE_USER, undefined);
  assertEquals(variables.HTTP_REMOTE_USER, "root");
  assertEquals([variables.HTTP_PROXY, variables.HTTP_CONTENT_LENGTH], [undefined, undefined]);
  assertEquals(variables.CONTENT_LENGTH, "");
});
