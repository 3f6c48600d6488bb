import { assertEquals } from "@std/assert";
import { behaviours, checkAuthority, see, type Seen, type Site } from "./behaviours.ts";
import { caddyCommand, caddyOptions, caddySite } from "./caddy.ts";
import { request, sendSlowHead } from "./client.ts";
import { configuration, Suite, within } from "./harness.ts";

const caddy = new Suite("Caddy", { caddy: "caddy" }, async (rig) => {
  const tcp = await rig.daemon("fastcgi", "127.0.0.1:0");
  const unix = await rig.daemon("fastcgi", `unix:${rig.dir}/app.sock`);
  const ports = await rig.serve("caddy", ["tcp", "unix", "unsplit"], (port) => {
    const site = (port: number, ...args: string[]) =>
      caddySite("--listen", `127.0.0.1:${port}`, ...args);
    return caddyCommand(rig, [
      site(port.tcp, "--backend", tcp),
      site(port.unix, "--backend", `unix:${unix}`, "--path", "/app"),
      `http://127.0.0.1:${port.unsplit} {
  reverse_proxy ${tcp} {
    transport fastcgi {
      env SCRIPT_NAME /app
    }
  }
}`,
    ]);
  }, caddyOptions(rig));
  return { ...ports, minor: await minorVersion() };
});

/** Returns the minor version, since Caddy changed its behaviour in 2.7 and 2.9. */
async function minorVersion(): Promise<number> {
  const { stdout } = await new Deno.Command("caddy", { args: ["version"] }).output();
  return Number(/\d+\.(\d+)/.exec(new TextDecoder().decode(stdout))![1]);
}

const site = (port: number, minor: number, differences: Partial<Site> = {}): Site => ({
  host: `127.0.0.1:${port}`,
  cookies: "a=1, b=2",
  leaksStatus: true,
  truncated: "whole",
  // capture_stderr has no effect before 2.7.
  log: minor >= 7 ? (rig) => rig.output("caddy") : false,
  chunked: minor >= 9 ? 411 : "streamed",
  ...differences,
});

behaviours(
  caddy,
  "FastCGI over TCP",
  ({ tcp, minor }) => site(tcp, minor, { dots: "/d/./x/../y//z" }),
);
behaviours(
  caddy,
  "FastCGI over a Unix socket",
  ({ unix, minor }) => site(unix, minor, { base: "/app" }),
);

caddy.test("the authority of HTTP/2 reaches the app", ({ tcp }) => checkAuthority(tcp));

caddy.test("a PATH_INFO that repeats SCRIPT_NAME is no part of the rest", async ({ unsplit, minor }) => {
  const seen = async (path: string) => {
    const { url, scriptName, variables } = await see(site(unsplit, minor), path);
    return [new URL(url).pathname, scriptName, variables.SCRIPT_NAME, variables.PATH_INFO];
  };
  assertEquals(await seen("/app/x"), ["/x", "/app", "/app", "/app/x"]);
  assertEquals(await seen("/app"), ["/app", "", "/app", "/app"]);
  assertEquals(await seen("/apple"), ["/apple", "", "/app", "/apple"]);
});

caddy.test("the request omits the Content-Type that Caddy makes up", async ({ tcp, minor }) => {
  const { text } = await request(site(tcp, minor).host, "POST", "/form", {
    body: new Uint8Array(3),
  });
  const { headers, variables }: Seen = JSON.parse(text);
  assertEquals(variables.CONTENT_TYPE, "application/x-www-form-urlencoded");
  assertEquals(headers["content-type"], undefined);
});

caddy.test("a header that takes too long is not waited for", async (_started, rig) => {
  const { slow } = await rig.serve("caddy", ["slow"], (port) => {
    const text = configuration("caddy", "--listen", `127.0.0.1:${port.slow}`)
      .replace("read_header 10s", "read_header 500ms")
      .replace(/^\{\n/m, "$&  admin off\n");
    const file = rig.write("slow/Caddyfile", text);
    return ["caddy", ["run", "--config", file, "--adapter", "caddyfile"]];
  }, caddyOptions(rig));
  await within("Caddy closes the connection", sendSlowHead(`127.0.0.1:${slow}`));
});
