import { assertEquals, assertStringIncludes } from "@std/assert";
import { serveFastCGI } from "../../fastcgi.ts";
import { serveSCGI } from "../../scgi.ts";
import app from "../conformance/app.ts";
import { freePort } from "../servers/harness.ts";
import { packaged, RuntimeDaemon, testOn } from "../testing/runtimes.ts";

testOn("the gateways respond, and end with the program", async (runtime) => {
  const listeners = [0, 0].map((port) => Deno.listen({ hostname: "127.0.0.1", port }));
  await using _fastcgi = serveFastCGI(app, listeners[0], { log() {} });
  await using _scgi = serveSCGI(app, listeners[1], { log() {} });
  const addresses = listeners.map(({ addr }) => `127.0.0.1:${addr.port}`);
  const args = [...addresses, `127.0.0.1:${freePort()}`];
  await using program = new RuntimeDaemon(runtime, [
    packaged(runtime, "tests/gateway/runtimes_program.ts"),
    ...args,
  ]);
  const { lines, ...outcomes } = await program.listening as unknown as { lines: string[] };
  assertEquals(outcomes as unknown, {
    fetched: [200, 4],
    small: [200, 4],
    stream: [200, 2_000_000],
    scgi: [200, 4],
    many: 20,
    refused: 502,
    absent: 502,
    aborted: 500,
  });
  assertStringIncludes(lines.join("\n"), "Cannot connect to");
  assertEquals(await program.ended, 0, program.log);
});
