/** Daemons that are process 1 of a PID namespace, as in a container. */
import { assertEquals } from "@std/assert";
import { fetchFastCGI } from "../gateway.ts";
import { importMapFlags } from "./testing/command_line.ts";
import { Program, ROOT } from "./testing/daemon.ts";
import { deadline } from "./testing/deadline.ts";
import { inNamespace, NAMESPACES, processOne } from "./testing/namespace.ts";
import { testWith } from "./testing/needs.ts";

/** An app that loads and responds once a file is there. */
const APP = `
const there = async (name) => {
  while (!await Deno.stat(import.meta.dirname + "/" + name).catch(() => null)) {
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
};
console.error("loads");
await there("load");
export default async () => {
  console.error("responds as process " + Deno.pid + ".");
  await there("respond");
  return new Response("whole");
};
`;

async function withServe(
  args: string[],
  use: (program: Program, directory: string) => Promise<void>,
): Promise<void> {
  const directory = await Deno.makeTempDir();
  await Deno.writeTextFile(`${directory}/app.ts`, APP);
  {
    const command = [
      ...[Deno.execPath(), "run", "--no-prompt", "--allow-all", ...importMapFlags()],
      ...[`${ROOT}cli.ts`, "serve", `${directory}/app.ts`, "--listen", "127.0.0.1:0", ...args],
    ];
    const [unshare, ...rest] = inNamespace(command);
    await using program = new Program(unshare, { args: rest });
    await program.says("loads");
    await use(program, directory);
  }
  await Deno.remove(directory, { recursive: true });
}

for (const workers of [[], ["--workers", "2"]]) {
  const name = workers.length === 0 ? "alone" : workers.join(" ");
  testWith(
    NAMESPACES,
    `serve as process 1 finishes its requests at SIGTERM, ${name}`,
    () =>
      withServe(workers, async (program, directory) => {
        await Deno.writeTextFile(`${directory}/load`, "");
        await program.says(workers.length === 0 ? "Serving " : "Workers: ");
        const [address] = /127\.0\.0\.1:[1-9]\d*/.exec(program.log)!;
        const response = fetchFastCGI("http://localhost/", address as "127.0.0.1:0");
        await program.says("responds as process ");
        if (workers.length === 0) await program.says("responds as process 1.");
        Deno.kill(await processOne(program.child), "SIGTERM");
        await Deno.writeTextFile(`${directory}/respond`, "");
        assertEquals(await (await deadline(response, "the response")).text(), "whole");
        assertEquals((await deadline(program.child.status, "its end")).code, 0, program.log);
      }),
  );
}

testWith(
  NAMESPACES,
  "serve as process 1 ends at SIGTERM while the app loads",
  () =>
    withServe([], async (program) => {
      Deno.kill(await processOne(program.child), "SIGTERM");
      assertEquals((await deadline(program.child.status, "its end")).code, 143, program.log);
    }),
);
