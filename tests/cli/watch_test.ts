/** The watch of `dev`. */
import { assert, assertEquals } from "@std/assert";
import { watchSources } from "../../cli/dev/watch.ts";
import { text } from "../testing/bytes.ts";
import { Daemon } from "../testing/daemon.ts";
import { deadline } from "../testing/deadline.ts";
import { Dev } from "../testing/dev.ts";

/** A folder that is watched. */
class Watched implements AsyncDisposable {
  readonly folder: string;
  #watch: Disposable;
  #changes: string[] = [];
  #changed = Promise.withResolvers<void>();

  constructor(
    { cache, ...folders }: { cache?: string; [folder: string]: string | undefined } = {},
  ) {
    this.folder = Deno.makeTempDirSync();
    for (const [name, file] of Object.entries(folders)) this.write(`${name}/${file}`);
    this.#watch = watchSources(this.folder, (path) => {
      this.#changes.push(path.slice(this.folder.length + 1));
      this.#changed.resolve();
    }, cache && `${this.folder}/${cache}`);
  }

  write(path: string): void {
    this.mkdir(path.slice(0, path.lastIndexOf("/")));
    Deno.writeTextFileSync(`${this.folder}/${path}`, "");
  }

  mkdir(path: string): void {
    Deno.mkdirSync(`${this.folder}/${path}`, { recursive: true });
  }

  /** Returns the changes that are reported next. */
  async next(what: string): Promise<string[]> {
    await deadline(this.#changed.promise, what);
    this.#changed = Promise.withResolvers();
    return this.#changes.splice(0);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#watch[Symbol.dispose]();
    await Deno.remove(this.folder, { recursive: true });
  }
}

Deno.test("watchSources() reports files in folders that it finds", async () => {
  await using watched = new Watched({ "a/b": "c.ts" });
  watched.write("a/b/c.ts");
  assertEquals(await watched.next("a change"), ["a/b/c.ts"]);
  Deno.removeSync(`${watched.folder}/a/b/c.ts`);
  assertEquals(await watched.next("a removal"), ["a/b/c.ts"]);
});

Deno.test("watchSources() reports files in folders that are created, renamed, and created again", async () => {
  await using watched = new Watched();
  for (const round of ["first", "second"]) {
    watched.write("a/b/c.ts");
    assertEquals(await watched.next(`a new folder, ${round}`), ["a/b/c.ts"]);
    watched.write("a/b/d.ts");
    assertEquals(await watched.next(`a file in it, ${round}`), ["a/b/d.ts"]);
    Deno.renameSync(`${watched.folder}/a`, `${watched.folder}/e`);
    const [renamed] = await watched.next(`its new name, ${round}`);
    assert(["e/b/c.ts", "e/b/d.ts"].includes(renamed), renamed);
    watched.write("e/b/d.ts");
    assertEquals(await watched.next(`a file under the new name, ${round}`), ["e/b/d.ts"]);
    Deno.removeSync(`${watched.folder}/e`, { recursive: true });
    await watched.next(`its removal, ${round}`);
  }
});

Deno.test("watchSources() leaves out the cache of Deno, node_modules and hidden folders", async () => {
  const foreign = { "x/deno": "a.js", "node_modules/a": "a.js", ".git": "a.js" };
  await using watched = new Watched({ cache: "x/deno", ...foreign, "x/b": "a.js" });
  for (let i = 0; i < 2; i++) {
    watched.write("x/b/a.js");
    // The last of several changes is reported.
    for (const path of ["x/deno/a.js", "x/deno/b/a.js", "node_modules/b/a.js", ".git/a.js"]) {
      watched.write(path);
    }
    assertEquals(await watched.next("a change"), ["x/b/a.js"]);
  }
});

Deno.test({
  name: "dev keeps its locks on the cache of Deno if that is in the folder of the app",
  ignore: Deno.build.os !== "linux",
}, async () => {
  const folder = await Deno.makeTempDir();
  const write = (name: string) =>
    Deno.writeTextFile(`${folder}/app.ts`, `export default () => new Response("${name}");`);
  await write("one");
  {
    await using dev = new Dev([`${folder}/app.ts`], { env: { DENO_DIR: `${folder}/cache` } });
    await dev.serves();
    const maps = [...Deno.readDirSync(`${folder}/cache`)]
      .filter(({ name }) => name.endsWith("-shm"))
      .map(({ name }) => `${folder}/cache/${name}`);
    assert(maps.length > 0);
    for (const path of maps) await Deno.utime(path, new Date(), new Date());
    // The watch has seen that when it sees this.
    await write("two");
    await dev.becomes("two");
    // Deno reads it with all permissions only.
    const { stdout } = await new Deno.Command("cat", { args: ["/proc/locks"] }).output();
    const locks = text(stdout);
    for (const path of maps) {
      const { ino } = await Deno.stat(path);
      const own = new RegExp(`POSIX .* READ +${dev.child.pid} \\S+:${ino} 128 128`);
      assert(own.test(locks), `no lock on ${path}:\n${locks}`);
    }
    assertEquals(dev.output.match(/has changed/g)?.length, 1, dev.output);
  }
  await Deno.remove(folder, { recursive: true });
});

Deno.test("watchSources() begins while folders are created and removed", async () => {
  const folder = await Deno.makeTempDir();
  const source = `
    const paths = Array.from({ length: 20 }, (_, i) => ${JSON.stringify(folder)} + "/" + i);
    setInterval(() => {
      for (const path of paths) Deno.mkdirSync(path);
      for (const path of paths) Deno.removeSync(path);
      console.error("again");
    });`;
  const flags = [`--allow-write=${folder}`, `data:,${encodeURIComponent(source)}`];
  {
    await using program = new Daemon(flags);
    for (let i = 1; i <= 50; i++) {
      await program.says("again", i);
      watchSources(folder, () => {})[Symbol.dispose]();
    }
  }
  await Deno.remove(folder, { recursive: true });
});
