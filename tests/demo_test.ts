import { assertEquals, assertStringIncludes } from "@std/assert";
import { importMapFlags } from "./testing/command_line.ts";
import { ROOT } from "./testing/daemon.ts";
import { deadline } from "./testing/deadline.ts";

/** Runs the demo. */
function demo(port: number): Deno.ChildProcess {
  return new Deno.Command(Deno.execPath(), {
    args: [
      "run",
      "--no-prompt",
      "--allow-all",
      ...importMapFlags(),
      `${ROOT}scripts/demo.ts`,
      "--port",
      String(port),
    ],
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
    env: { NO_COLOR: "1" },
  }).spawn();
}

Deno.test("the demo shows each example over each transport, and ends at SIGTERM", async () => {
  const child = demo(0);
  const reader = child.stdout.pipeThrough(new TextDecoderStream()).getReader();
  let output = "";
  while (!output.includes("in a browser")) {
    const { value = "", done } = await deadline(reader.read(), `the demo: ${output}`, 60_000);
    output += value;
    if (done) throw new Error(output + await new Response(child.stderr).text());
  }
  const [, port] = /Open http:\/\/localhost:(\d+)\//.exec(output)!;
  const page = await (await fetch(`http://localhost:${port}/`)).text();
  assertEquals(page.match(/<a href=/g)?.length, 12);
  assertEquals(page.includes('class="bad"'), false, page);
  child.kill("SIGTERM");
  await reader.cancel();
  await child.stderr.cancel();
  assertEquals((await deadline(child.status, "the demo to end")).code, 0);
});

Deno.test("the demo says what to do if its port is in use", async () => {
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const { port } = listener.addr;
  const { code, stderr } = await deadline(demo(port).output(), "the demo to end", 60_000);
  assertStringIncludes(
    new TextDecoder().decode(stderr),
    `Port ${port} is in use. Try --port ${port + 1}`,
  );
  assertEquals(code, 1);
});
