/** README's script on Apache, run word for word. */
import { assertEquals, assertStringIncludes } from "@std/assert";
import { testWith } from "../testing/needs.ts";
import { startApache } from "./apache.ts";
import { blocksOf, fileOf, Machine } from "./guide.ts";

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
  const here = (text: string) =>
    text.replace(/^sudo a2enmod .*\n/m, "").replaceAll("sudo ", "")
      .replaceAll("/usr/lib/cgi-bin", `${machine.home}/public_html/cgi-bin`)
      .replaceAll("/usr/local", machine.home)
      .replaceAll("http://localhost/", `${host.url}/`)
      .replaceAll("curl ", "curl --silent ");
  const run = async (info: string) => {
    const at = blocks.findIndex((block) => block.info === info);
    const commands = here(blocks[at].text);
    return { ...await shell.run(commands), commands, expected: blocks[at + 1].text };
  };

  const apache = await run("apache");
  assertEquals([apache.output, apache.code], [apache.expected, 0], apache.commands + host.log());

  const healthy = await run("doctor");
  assertEquals(healthy.code, 0, healthy.output);
  const script = `${machine.home}/public_html/cgi-bin/hello.js`;
  await Deno.chmod(script, 0o644);
  assertEquals((await fetch(`${host.url}/cgi-bin/hello.js`)).status, 500);
  const broken = await run("doctor");
  assertEquals(broken.code, 1, broken.output);
  assertStringIncludes(broken.output, `chmod 755 ${script}`);
});
