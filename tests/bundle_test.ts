import { assertEquals } from "@std/assert";
import { text } from "./testing/bytes.ts";
import { ROOT } from "./testing/daemon.ts";
import { runScript } from "./testing/cgi_script.ts";

const directory = await Deno.makeTempDir();
Deno.test.afterAll(() => Deno.remove(directory, { recursive: true }));

/** Bundles the example into one file, as docs/servers.md describes; `deno bundle` gets esbuild from npm. */
async function bundle(): Promise<string | undefined> {
  const script = `${directory}/hello.js`;
  const { success } = await new Deno.Command(Deno.execPath(), {
    args: ["bundle", "--quiet", "--no-config", "--output", script, `${ROOT}examples/hello.ts`],
    stdout: "null",
    stderr: "null",
  }).output();
  return success ? script : undefined;
}

const script = await bundle();
const required = Deno.env.get("GATEHOUSE_REQUIRE_SERVERS") === "1";
const missing = script === undefined ? " (esbuild missing: npm must be within reach)" : "";

Deno.test({
  name: `a bundled script responds over CGI, and keeps its first line${missing}`,
  ignore: script === undefined && !required,
  async fn() {
    if (script === undefined) throw new Error(missing);
    const env = {
      GATEWAY_INTERFACE: "CGI/1.1",
      REQUEST_METHOD: "GET",
      REQUEST_URI: "/cgi-bin/hello.js",
      SERVER_NAME: "example.org",
    };
    const url = new URL(`file://${script}`);
    const { status, body, code } = await runScript(url, env);
    assertEquals(
      { status, body: text(body), code },
      { status: 200, body: "Hello from Gatehouse\n", code: 0 },
    );
    const [first] = (await Deno.readTextFile(script)).split("\n");
    assertEquals(first, "#!/usr/bin/env -S deno run --allow-env --allow-net");
  },
});
