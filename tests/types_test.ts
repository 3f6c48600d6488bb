/** Types without Deno's: a program on Node or Bun has none of them. */
import { assert, assertEquals } from "@std/assert";
import config from "../deno.json" with { type: "json" };
import { text } from "./testing/bytes.ts";

const root = new URL("..", import.meta.url).pathname;

/** Files whose code needs a type of Deno's. None of them has it in what it exports. */
const NEED = ["io/telemetry.ts", "process/process_tree.ts"];

Deno.test("the entries need no types of Deno, but in the code of two files", async () => {
  const options = await Deno.makeTempFile({ suffix: ".json" });
  const lib = ["esnext", "dom", "dom.iterable", "dom.asynciterable"];
  await Deno.writeTextFile(options, JSON.stringify({ compilerOptions: { lib, strict: true } }));
  const entries = Object.entries(config.exports).filter(([name]) => name !== "./cli")
    .map(([, path]) => root + path);
  const { stderr, success } = await new Deno.Command(Deno.execPath(), {
    args: ["check", "--config", options, ...entries],
    env: { NO_COLOR: "1" },
  }).output();
  await Deno.remove(options);
  const said = text(stderr);
  assert(!success, said);
  const errors = said.split(/^(?=TS\d+ )/m).slice(1);
  assert(
    errors.every((error) => /^TS\d+ .*Cannot find (?:name|namespace) 'Deno'/.test(error)),
    said,
  );
  const files = errors.map((error) => /at file:\/\/(\S+?):\d/.exec(error)![1].replace(root, ""));
  assertEquals([...new Set(files)].sort(), NEED);
});
