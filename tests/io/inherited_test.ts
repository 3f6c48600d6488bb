import { assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { inheritedListener } from "../../io/inherited.ts";
import { fetchFastCGI } from "../../gateway.ts";
import { deadline } from "../testing/deadline.ts";
import { ROOT } from "../testing/daemon.ts";
import { handDown } from "../testing/hand_down.ts";

async function hello(address: string): Promise<string> {
  const response = fetchFastCGI("http://localhost/", address as "127.0.0.1:0");
  return await (await deadline(response, "a response")).text();
}

Deno.test("serve() detects FastCGI on descriptor 0, TCP, and exits with 0 at SIGTERM", async () => {
  const program = await handDown({ host: "127.0.0.1", port: 0 }, 0);
  program.closeOurs();
  assertEquals(await hello(program.address), "Hello from Gatehouse\n");
  assertEquals(await program.stop(), 0);
});

Deno.test("serve() detects FastCGI on descriptor 0, Unix", async () => {
  const directory = await Deno.makeTempDir();
  const path = `${directory}/app.sock`;
  const program = await handDown({ path: `${path}.new` }, 0);
  await Deno.rename(`${path}.new`, path);
  program.closeOurs();
  assertEquals(await hello(`unix:${path}`), "Hello from Gatehouse\n");
  assertEquals(await program.stop(), 0);
  await Deno.remove(directory, { recursive: true });
});

Deno.test("serve() detects the socket that systemd passes", async () => {
  const program = await handDown({ host: "127.0.0.1", port: 0 }, 3, { LISTEN_FDS: "1" });
  program.closeOurs();
  assertEquals(await hello(program.address), "Hello from Gatehouse\n");
  assertEquals(await program.stop(), 0);
});

Deno.test("inheritedListener() rejects a descriptor that is not a listening socket", async () => {
  const file = await Deno.makeTempFile();
  for (const [name, redirect] of [["a file", `<${file}`], ["a pipe", "< <(true)"]]) {
    const { stderr } = await new Deno.Command("bash", {
      args: [
        "-c",
        `"$0" eval 'import { inheritedListener } from "${ROOT}fastcgi.ts";
          await inheritedListener({ fd: 0 });' ${redirect}`,
        Deno.execPath(),
      ],
    }).output();
    assertStringIncludes(
      new TextDecoder().decode(stderr),
      "Cannot listen on file descriptor 0 as it must be a listening socket",
      name,
    );
  }
  await Deno.remove(file);
});

Deno.test("inheritedListener() rejects a descriptor that is not open", async () => {
  await assertRejects(() => inheritedListener({ fd: 4095 }), Error, "must be a listening socket");
});
