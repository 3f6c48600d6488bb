/** README's script on Apache, run word for word. */
import { assertEquals, assertFalse, assertStringIncludes } from "@std/assert";
import { testWith } from "../testing/needs.ts";
import { startApache } from "./apache.ts";
import { blocksOf, fileOf, Machine, type Shell } from "./guide.ts";

testWith({ apache2: "apache2", curl: "curl" }, "README's script works on Apache", async () => {
  await using machine = new Machine();
  const bin = `${machine.home}/bin`;
  // Apache's user may lack permission to read Deno's folder.
  await Deno.remove(`${bin}/deno`);
  await Deno.copyFile(Deno.execPath(), `${bin}/deno`);
  await using host = await startApache(machine, `${bin}:/usr/bin:/bin`);
  await using shell = machine.shell();
  const blocks = blocksOf("../README.md");
  machine.write("hello.ts", fileOf(blocks, "hello.ts"), 0o755);
  const cache = `${machine.home}/cache`;
  const here = (text: string) =>
    // The test's Apache has a configuration of its own.
    text.replace(/^sudo a2enmod .*\n/m, "").replace(/^printf 'SetEnv .*\nsudo a2enconf .*\n/m, "")
      .replaceAll("sudo ", "")
      .replaceAll("/var/cache/deno", cache)
      .replaceAll("/usr/lib/cgi-bin", `${machine.home}/public_html/cgi-bin`)
      .replaceAll("/usr/local", machine.home)
      .replaceAll("http://localhost/", `${host.url}/`)
      .replaceAll("curl ", "curl --silent ");
  const run = async (info: string) => {
    const at = blocks.findIndex((block) => block.info === info);
    const commands = here(blocks[at].text);
    return { ...await shell.run(commands), commands, expected: blocks[at + 1].text };
  };

  const script = `${machine.home}/public_html/cgi-bin/hello.js`;
  const apache = await run("apache");
  assertEquals([apache.output, apache.code], [apache.expected, 0], apache.commands + host.log());

  await runCached(shell, here(blocks.find(({ info }) => info === "cache")!.text), cache, script);

  const healthy = await run("doctor");
  assertEquals(healthy.code, 0, healthy.output);
  assertFalse(healthy.output.includes("[compiles]"), healthy.output);
  await Deno.chmod(script, 0o644);
  assertEquals((await fetch(`${host.url}/cgi-bin/hello.js`)).status, 500);
  const broken = await run("doctor");
  assertEquals(broken.code, 1, broken.output);
  assertStringIncludes(broken.output, `chmod 755 ${script}`);
});

/** Fills the cache as README says, and runs the script as a user who cannot write it. */
async function runCached(shell: Shell, fill: string, cache: string, script: string): Promise<void> {
  const { output, code } = await shell.run(fill);
  assertEquals(code, 0, output);
  const nobody = Deno.uid() === 0 ? "setpriv --reuid=65534 --regid=65534 --clear-groups" : "";
  const hits = await shell.run(
    `chmod -R a-w ${cache}; ${nobody} env DENO_LOG=debug DENO_DIR=${cache} GATEWAY_INTERFACE=CGI/1.1 REQUEST_METHOD=GET \
${script} 2>&1 | grep 'V8 code cache hit'; chmod -R u+w ${cache}\n`,
  );
  assertStringIncludes(hits.output, `file://${script}`);
  assertStringIncludes(hits.output, "ext:deno_fetch/23_response.js");
}
