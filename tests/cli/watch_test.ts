/** The watch of `dev`. */
import { normalize } from "node:path";
import { assert, assertEquals } from "@std/assert";
import { watchSources } from "../../cli/dev/watch.ts";
import { text } from "../testing/bytes.ts";
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

  /** Writes a file until that is reported: a folder is watched some time after it was created. */
  async sees(path: string): Promise<void> {
    const name = normalize(path);
    const timer = setInterval(() => this.write(name), 300);
    try {
      this.write(name);
      while (!(await this.next(`a change of ${name}`)).includes(name));
    } finally {
      clearInterval(timer);
    }
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

Deno.test("watchSources() reports files in folders beside the cache, which come and go", async () => {
  await using watched = new Watched({
    cache: "x/deno",
    "x/deno": "a.js",
    "x/a/b": "c.ts",
    a: "c.ts",
  });
  for (const folder of ["x", "."]) {
    const path = (name: string) => `${watched.folder}/${folder}/${name}`;
    for (const round of ["first", "second"]) {
      await watched.sees(`${folder}/a/c.ts`);
      Deno.renameSync(path("a"), path("e"));
      await watched.sees(`${folder}/e/c.ts`);
      Deno.renameSync(path("e"), path("a"));
      await watched.sees(`${folder}/a/c.ts`);
      Deno.removeSync(path("a"), { recursive: true });
      watched.mkdir(`${folder}/a`);
      await watched.sees(`${folder}/a/${round}.ts`);
    }
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
