import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { EntryTooLargeError, Spool, type SpoolEntry, SpoolFullError } from "../../io/spool.ts";
import { bytes, concat, text } from "../testing/bytes.ts";

const OPTIONS = { maxTotal: 100_000, maxInMemory: 1000 };

/** Returns the modes of the open files of this process that Spool has created and that have no name. */
function unnamedFiles(): string[] {
  const script = `for fd in /proc/${Deno.pid}/fd/*; do
  case $(readlink "$fd") in */gatehouse-*" (deleted)") stat -L -c %a "$fd";; esac
done`;
  const { stdout } = new Deno.Command("sh", { args: ["-c", script] }).outputSync();
  return text(stdout).split("\n").slice(0, -1);
}

async function readAll(entry: SpoolEntry): Promise<string> {
  const parts: Uint8Array[] = [];
  for (let part = await entry.read(); part !== null; part = await entry.read()) {
    parts.push(part.slice());
  }
  return text(concat(parts));
}

const WITHOUT_WRITE = { read: true, write: false, env: true, net: false, run: false } as const;

/** Registers a test that runs with files, and one that runs without permission to write any. */
function inFilesAndMemory(name: string, run: () => Promise<void>): void {
  Deno.test(`Spool ${name}, in files`, run);
  Deno.test({ name: `Spool ${name}, in memory`, permissions: WITHOUT_WRITE, fn: run });
}

inFilesAndMemory("returns the bytes that were written", async () => {
  const spool = new Spool(OPTIONS);
  const [one, two] = [spool.create(), spool.create()];
  const buffer = bytes("first ");
  await one.write(buffer);
  await two.write(bytes("other"));
  // The writer reuses its buffer.
  buffer.set(bytes("second"));
  await one.write(buffer);
  assertEquals(await readAll(one), "first second");
  assertEquals(await readAll(two), "other");
  for (const entry of [one, two, one]) entry.close();
});

inFilesAndMemory("returns nothing of an entry without bytes", async () => {
  const entry = new Spool(OPTIONS).create();
  assertEquals(await readAll(entry), "");
  entry.close();
});

Deno.test({
  name: "Spool writes a file with mode 0600 and without a name",
  ignore: Deno.build.os !== "linux",
  async fn() {
    const folder = Deno.makeTempDirSync();
    const before = Deno.env.get("TMPDIR");
    Deno.env.set("TMPDIR", folder);
    const umask = Deno.umask(0);
    try {
      const entry = new Spool(OPTIONS).create();
      assertEquals(unnamedFiles(), ["600"]);
      await entry.write(bytes("secret"));
      assertEquals([...Deno.readDirSync(folder)], []);
      entry.close();
      assertEquals(unnamedFiles(), []);
    } finally {
      Deno.umask(umask);
      if (before === undefined) Deno.env.delete("TMPDIR");
      else Deno.env.set("TMPDIR", before);
      Deno.removeSync(folder);
    }
  },
});

Deno.test("Spool reads a long entry in parts", async () => {
  const spool = new Spool({ ...OPTIONS, maxTotal: 10_000_000 });
  const entry = spool.create();
  const part = crypto.getRandomValues(new Uint8Array(50_000));
  for (let i = 0; i < 100; i++) await entry.write(part);
  let length = 0;
  for (let read = await entry.read(); read !== null; read = await entry.read()) {
    assert(read.length <= 65_536);
    for (let i = 0; i < read.length; i += 997) assertEquals(read[i], part[(length + i) % 50_000]);
    length += read.length;
  }
  assertEquals(length, 5_000_000);
  entry.close();
});

Deno.test("SpoolEntry.write() throws if the entry is larger than all may be", async () => {
  const entry = new Spool(OPTIONS).create();
  await entry.write(new Uint8Array(100_000));
  const message = "it must have at most 100000 bytes: it has more";
  await assertRejects(() => entry.write(new Uint8Array(1)), EntryTooLargeError, message);
  assertThrows(() => entry.announce(100_001), EntryTooLargeError, message);
  entry.announce(100_000);
  entry.close();
});

Deno.test("SpoolEntry.write() throws if all entries are too large, until one is closed", async () => {
  const spool = new Spool(OPTIONS);
  const [one, two] = [spool.create(), spool.create()];
  // What is announced does not count.
  for (const entry of [one, two]) entry.announce(100_000);
  await one.write(new Uint8Array(60_000));
  await two.write(new Uint8Array(40_000));
  await assertRejects(
    () => two.write(new Uint8Array(1)),
    SpoolFullError,
    "all of them must have at most 100000 bytes: they have more",
  );
  one.close();
  one.close();
  await two.write(new Uint8Array(60_000));
  two.close();
});

Deno.test({
  name: "SpoolEntry.write() throws if the entry is larger than one in memory may be",
  permissions: WITHOUT_WRITE,
  async fn() {
    const entry = new Spool(OPTIONS).create();
    await entry.write(new Uint8Array(1000));
    const message = "it must have at most 1000 bytes in memory, as no file can be written in /";
    await assertRejects(() => entry.write(new Uint8Array(1)), EntryTooLargeError, message);
    assertThrows(() => entry.announce(1001), EntryTooLargeError, message);
    entry.close();
  },
});

Deno.test({
  name: "SpoolEntry.write() throws if all entries in memory are ten times as large as one may be",
  permissions: WITHOUT_WRITE,
  async fn() {
    const spool = new Spool(OPTIONS);
    const entries = Array.from({ length: 11 }, () => spool.create());
    const last = entries.pop()!;
    for (const entry of entries) await entry.write(new Uint8Array(1000));
    await assertRejects(
      () => last.write(new Uint8Array(1)),
      SpoolFullError,
      "all of them must have at most 10000 bytes in memory, as no file can be written in /",
    );
    entries[0].close();
    await last.write(new Uint8Array(1000));
    for (const entry of [...entries, last]) entry.close();
  },
});

for (const name of ["read", "write"] as const) {
  Deno.test({
    name: `Spool prompts for no permission to ${name}`,
    permissions: { read: name === "write", write: name === "read", env: true },
    fn() {
      const open = Deno.openSync;
      Deno.openSync = () => {
        throw new Error("With this call Deno would prompt");
      };
      try {
        new Spool(OPTIONS).create().close();
      } finally {
        Deno.openSync = open;
      }
    },
  });
}

Deno.test("Spool keeps entries in memory if the temporary folder does not exist", async () => {
  const before = Deno.env.get("TMPDIR");
  Deno.env.set("TMPDIR", "/no/such/folder");
  try {
    const entry = new Spool(OPTIONS).create();
    await entry.write(bytes("hello"));
    assertEquals(await readAll(entry), "hello");
    await assertRejects(
      () => entry.write(new Uint8Array(1000)),
      EntryTooLargeError,
      "in memory, as no file can be written in /no/such/folder",
    );
    entry.close();
  } finally {
    if (before === undefined) Deno.env.delete("TMPDIR");
    else Deno.env.set("TMPDIR", before);
  }
});

Deno.test("SpoolEntry.write() throws if the disk is full", async () => {
  const open = Deno.openSync;
  Deno.openSync = (path, options) => {
    const file = open(path, options);
    file.write = () => Promise.reject(new Error("No space left on device (os error 28)"));
    return file;
  };
  try {
    const entry = new Spool(OPTIONS).create();
    await assertRejects(
      () => entry.write(bytes("hello")),
      Error,
      "it must be written to a file: No space left on device",
    );
    entry.close();
  } finally {
    Deno.openSync = open;
  }
});
