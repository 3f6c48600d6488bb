import { assert } from "@std/assert";
import { find, testWith } from "./testing/needs.ts";

testWith({ node: "nodejs" }, "wire/ and bridge/ pass their tests under Node", async () => {
  const { success, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: [
      "run",
      "--no-prompt",
      "--allow-read",
      "--allow-write",
      "--allow-env",
      "--allow-run",
      new URL("../scripts/node.ts", import.meta.url).href,
    ],
    env: { PATH: `${Deno.env.get("PATH")}:${find("node")!.replace(/\/node$/, "")}` },
  }).output();
  const text = new TextDecoder();
  assert(success, text.decode(stdout) + text.decode(stderr));
});
