import { assertEquals } from "@std/assert";
import { ROOT } from "../testing/daemon.ts";
import { deadline } from "../testing/deadline.ts";
import { ReplaceableDeno } from "../testing/replaceable_deno.ts";

/** Sends a request to a script for each byte of its input. */
const PROGRAM = `
import { cgiGateway } from "${ROOT}gateway.ts";
const root = Deno.args[0];
using gateway = cgiGateway({ root, permissions: { "/": [] }, log: console.error });
const byte = new Uint8Array(1);
while (await Deno.stdin.read(byte)) {
  const { status } = await gateway(new Request("http://localhost/script.ts"));
  await Deno.stdout.write(new TextEncoder().encode(status + "\\n"));
}
`;
const SCRIPT = `#!/usr/bin/env -S deno run
console.log("Content-Type: text/plain\\n\\nran");
`;

Deno.test("cgiGateway() runs scripts with permissions after its Deno was replaced", async () => {
  await using deno = await ReplaceableDeno.install();
  const root = await Deno.makeTempDir();
  await Deno.chmod(root, 0o755);
  await Deno.writeTextFile(`${root}/program.txt`, PROGRAM);
  await Deno.writeTextFile(`${root}/script.ts`, SCRIPT, { mode: 0o755 });
  const args = ["run", "--no-prompt", "--allow-all", "--ext=ts", `${root}/program.txt`, root];
  const child = new Deno.Command(deno.path, { args, stdin: "piped", stdout: "piped" }).spawn();
  const output = child.stdout.pipeThrough(new TextDecoderStream()).getReader();
  const input = child.stdin.getWriter();
  const status = async () => {
    await input.write(new Uint8Array(1));
    return (await deadline(output.read(), "the status")).value;
  };
  assertEquals(await status(), "200\n");
  await deno.replace();
  assertEquals(await status(), "200\n");
  await input.close();
  assertEquals((await deadline(child.status, "the program's end")).code, 0);
  await output.cancel();
  await Deno.remove(root, { recursive: true });
});
