/** A FastCGI application behind Yaws, of a whole site and in place of a file. small_test.ts has scripts. */
import { assertEquals } from "@std/assert";
import { behaviours, type Site } from "./behaviours.ts";
import { request } from "./client.ts";
import { type Rig, snippet, Suite } from "./harness.ts";

const yaws = new Suite("Yaws", { yaws: "yaws" }, async (rig) => {
  const address = await rig.daemon("fastcgi", "127.0.0.1:0");
  rig.write("www/app.fcgi", "");
  rig.logFile("log/report.log");
  return await rig.serve("Yaws", ["site", "file"], (ports) => {
    const server = (name: string, port: number) =>
      snippet("yaws", name, {
        "127.0.0.1:9000": address,
        "/srv/www": `${rig.dir}/www`,
        "port = 80": `port = ${port}`,
        "0.0.0.0": "127.0.0.1",
      });
    Deno.mkdirSync(`${rig.dir}/log`, { recursive: true });
    const servers = [server("fastcgi", ports.site), server("fastcgi-file", ports.file)];
    const path = rig.write("yaws.conf", `logdir = ${rig.dir}/log\n${servers.join("\n")}\n`);
    const foreground = ["-i", "--erlarg", "-noinput"];
    return ["yaws", ["--conf", path, "--id", `gatehouse${ports.site}`, ...foreground]];
    // Erlang writes a dump into the current directory if it cannot start.
  }, { env: { HOME: rig.dir, ERL_CRASH_DUMP_SECONDS: "0" } });
});

const site = (port: number, differences: Partial<Site> = {}): Site => ({
  host: `127.0.0.1:${port}`,
  chunked: "streamed",
  cookies: "a=1;b=2",
  emptyType: "text/html",
  encodesFields: true,
  log,
  reverses: true,
  truncated: "whole",
  ...differences,
});

/** Returns the app's log, which Yaws writes as dumps: 16 bytes as text and in hexadecimal. */
function log(rig: Rig): string {
  const dump = rig.read("log/report.log").matchAll(/ {2}((?:[0-9a-f]{2} )+)/g);
  const bytes = [...dump].flatMap(([, line]) => line.trim().split(" "));
  return new TextDecoder().decode(Uint8Array.fromHex(bytes.join("")));
}

// It reads a response to its end also when its client has left, so that the app does not notice.
const LACKS = ["a client that disconnects aborts the request"];

behaviours(
  yaws,
  "FastCGI, of a site",
  ({ site: port }) =>
    site(port, { split: { scriptName: "/caf\u00e9%2Fx", pathInfo: "/caf\u00e9%2Fx" } }),
  LACKS,
);
behaviours(
  yaws,
  "FastCGI, of a file",
  ({ file }) => site(file, { base: "/app.fcgi", split: { pathInfo: "/caf\u00e9%2Fx" } }),
  LACKS,
);

yaws.test("the password of a request is no variable of the app (rule A29)", async ({ site: port }) => {
  const fields = [["Authorization", `Basic ${btoa("ann:open sesame")}`]];
  const { text } = await request(`127.0.0.1:${port}`, "GET", "/who", { fields });
  const { variables } = JSON.parse(text);
  assertEquals([variables.REMOTE_USER, variables.AUTH_PASSWORD], ["ann", undefined]);
});
