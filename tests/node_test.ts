import { assert } from "@std/assert";
import { testOn } from "./testing/runtimes.ts";

testOn("the core passes its tests", async ({ path }) => {
  const folder = path.replace(/\/[^/]*$/, "");
  const { success, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: [
      "run",
      "--no-prompt",
      "--allow-read",
      "--allow-write",
      "--allow-env",
      "--allow-run",
      new URL("../scripts/node.ts", import.meta.url).href,
      path,
    ],
    env: { PATH: `${folder}:${Deno.env.get("PATH")}` },
  }).output();
  const text = new TextDecoder();
  assert(success, text.decode(stdout) + text.decode(stderr));
});
