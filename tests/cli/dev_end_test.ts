/** How `dev` and the processes of its app end. */
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { Dev, type DevOptions } from "../testing/dev.ts";
import { deadline } from "../testing/deadline.ts";
import { ended, interruptUntil, isAlive } from "../testing/processes.ts";
import { ReplaceableDeno } from "../testing/replaceable_deno.ts";

const LOOPING = `export default () => { console.error("loops " + Deno.pid + "."); for (;;); };`;
const version = (name: string) => `export default () => new Response("${name}");`;

interface Running extends AsyncDisposable {
  dev: Dev;
  /** The number of files that it has left in its temporary directory. */
  left(): number;
  write(text: string): Promise<void>;
}

/** Runs `dev` with an app, in a temporary directory of its own. */
async function runDev(
  text: string,
  args: string[] = [],
  options: DevOptions = {},
): Promise<Running> {
  const directory = await Deno.makeTempDir();
  const temporary = await Deno.makeTempDir();
  const app = `${directory}/app.ts`;
  await Deno.writeTextFile(app, text);
  const dev = new Dev([app, ...args], { env: { TMPDIR: temporary }, ...options });
  return {
    dev,
    left: () => [...Deno.readDirSync(temporary)].length,
    write: (text) => Deno.writeTextFile(app, text),
    async [Symbol.asyncDispose]() {
      await dev[Symbol.asyncDispose]();
      for (const path of [directory, temporary]) await Deno.remove(path, { recursive: true });
    },
  };
}

/** Waits until the app loops. @returns Its process id. */
async function loop(dev: Dev): Promise<number> {
  fetch(dev.url).then((response) => response.body?.cancel()).catch(() => {});
  await dev.says("loops");
  return Number(/loops (\d+)\./.exec(dev.output)![1]);
}

Deno.test("dev --request-timeout responds with 503 where the app does not respond", async () => {
  const app = "export default () => new Promise(() => {});";
  await using running = await runDev(app, ["--request-timeout", "1"]);
  const { dev } = running;
  await dev.serves();
  assertEquals(await dev.text(), "503 Service Unavailable\n");
  await dev.says("Responded with 503 to GET /.");
});

Deno.test("dev kills a looping app a second after the shutdown timeout", async () => {
  await using running = await runDev(LOOPING, ["--shutdown-timeout", "0"]);
  const { dev, left } = running;
  await dev.serves();
  assertEquals(left(), 1);
  const looping = await loop(dev);
  dev.child.kill("SIGTERM");
  assertEquals((await deadline(dev.child.status, "dev to end")).code, 0);
  await dev.says(`The app's process ${looping} is killed: it still runs 1000 ms after SIGTERM`);
  assert(!isAlive(looping));
  assertEquals(left(), 0);
});

Deno.test("dev kills a looping version of the app that it replaces", async () => {
  await using running = await runDev(LOOPING, ["--shutdown-timeout", "0"]);
  const { dev, write } = running;
  await dev.serves();
  const looping = await loop(dev);
  await write(version("two"));
  await dev.becomes("two");
  await dev.says(`The app's process ${looping} is killed`);
  await ended(looping);
});

Deno.test("dev kills a looping app at another SIGINT", async () => {
  await using running = await runDev(LOOPING, ["--shutdown-timeout", "1000"]);
  const { dev, left } = running;
  await dev.serves();
  const looping = await loop(dev);
  await interruptUntil(dev.child.pid, dev.child.status);
  assertEquals((await dev.child.status).code, 130);
  await ended(looping);
  assertEquals(left(), 0);
});

Deno.test("dev ends and removes its files when its terminal closes", async () => {
  await using running = await runDev(version("one"));
  const { dev, left } = running;
  await dev.serves();
  assertEquals(left(), 1);
  await dev.closeOutput();
  dev.child.kill("SIGHUP");
  assertEquals((await deadline(dev.child.status, "dev to end")).code, 0);
  assertEquals(left(), 0);
});

Deno.test("dev ends although its app never starts", async () => {
  await using running = await runDev(`console.error("starts"); for (;;);`);
  const { dev, left } = running;
  await dev.says("starts");
  dev.child.kill("SIGINT");
  assertEquals((await deadline(dev.child.status, "dev to end")).code, 0);
  assertEquals(left(), 0);
});

Deno.test("dev starts an app that is corrected while it hangs at its start", async () => {
  await using running = await runDev(`console.error("starts"); for (;;);`);
  const { dev, write } = running;
  await dev.says("starts");
  await write(version("two"));
  await dev.serves();
  await dev.becomes("two");
});

Deno.test("dev loads an app again after its Deno was replaced", async () => {
  await using deno = await ReplaceableDeno.install();
  await using running = await runDev(version("one"), [], { deno: deno.path });
  const { dev, write } = running;
  await dev.serves();
  assertEquals(await dev.text(), "one");
  await deno.remove();
  await write(version("two"));
  await dev.says("The app does not start");
  assertStringIncludes(dev.output, "The app's process cannot be started: ");
  assertMatch(await dev.text(), /<h1>Error: The app&#39;s process cannot be started: /);
  await deno.add();
  await write(version("three"));
  await dev.becomes("three");
});
