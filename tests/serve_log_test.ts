/** The access log of `serve`: nothing blocks it, nothing is lost at any end, and its file is rotated under load. */
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { fetchFastCGI } from "../gateway.ts";
import { LogFile } from "../io/log_file.ts";
import { concat } from "./testing/bytes.ts";
import { importMapFlags, runCommandLine, served, startServe } from "./testing/command_line.ts";
import { type Daemon, ROOT } from "./testing/daemon.ts";
import { deadline, eventually } from "./testing/deadline.ts";

const ignore = Deno.build.os === "windows";

const APP = `
export default async (request, info) => {
  const { pathname } = new URL(request.url);
  if (pathname === "/end") {
    // The lines of this turn wait, as one is being written.
    info.completed.then(() => setTimeout(ENDS[Deno.env.get("END")], 0));
  }
  return new Response("sent");
};
const ENDS = {
  "Deno.exit()": () => Deno.exit(3),
  "process.exit()": async () => (await import("node:process")).default.exit(3),
  "an error": () => { throw new Error("broken"); },
  "a rejection": () => void Promise.reject(new Error("broken")),
};
`;

/** A daemon in a temporary folder, which has its module, its socket and its log. */
interface Serving extends AsyncDisposable {
  daemon: Daemon;
  folder: string;
  get(path: string): Promise<Response>;
}

async function start(
  args: string[],
  options: Deno.CommandOptions = {},
  flags: string[] = [],
): Promise<Serving> {
  const folder = await Deno.makeTempDir();
  await Deno.writeTextFile(`${folder}/app.ts`, APP);
  const daemon = startServe(
    `${folder}/app.ts`,
    ["--listen", `unix:${folder}/socket`, ...args.map((arg) => arg.replace("FOLDER", folder))],
    ["--allow-all", ...flags],
    options,
  );
  await served(daemon);
  return {
    daemon,
    folder,
    get: (path) =>
      deadline(
        fetchFastCGI(`http://localhost${path}`, `unix:${folder}/socket`, { log: () => {} }),
        `a response to ${path}: ${daemon.log}`,
        30_000,
      ),
    async [Symbol.asyncDispose]() {
      await daemon.stop("SIGKILL");
      await Deno.remove(folder, { recursive: true });
    },
  };
}

async function load({ get }: Serving, paths: string[]): Promise<void> {
  const rest = paths.values();
  const run = async () => {
    for (const path of rest) assertEquals(await (await get(path)).text(), "sent");
  };
  await Promise.all(Array.from({ length: 8 }, run));
}

const pathsOf = (count: number, from = 0) =>
  Array.from({ length: count }, (_, i) => `/${from + i}`);

const LINE = /^- - - \[\d\d\/\w{3}\/\d{4}:[\d:]{8} \+0000\] "GET (\/\w+) HTTP\/1\.1" 200 4$/;

/** Returns the paths of the requests that a log in the common format has, and checks that each line is whole. */
function loggedIn(log: string): string[] {
  assert(log === "" || log.endsWith("\n"), log.slice(-200));
  return log.split("\n").slice(0, -1).map((line) => {
    assertMatch(line, LINE);
    return LINE.exec(line)![1];
  });
}

for (const end of ["SIGTERM", "Deno.exit()", "process.exit()", "an error", "a rejection"]) {
  Deno.test(
    `serve --access-log has a line for each request at an end by ${end}`,
    { ignore },
    async () => {
      await using serving = await start(["--access-log"], { stdout: "piped", env: { END: end } });
      const { daemon } = serving;
      const output = new Response(daemon.child.stdout).text();
      const paths = pathsOf(200);
      await load(serving, paths);
      if (end === "SIGTERM") daemon.child.kill("SIGTERM");
      else await load(serving, ["/end"]);
      const { code } = await deadline(daemon.child.status, "the end");
      assertEquals(code, end === "SIGTERM" ? 0 : end.endsWith("exit()") ? 3 : 1);
      const logged = loggedIn(await deadline(output, "the log"));
      const expected = end === "SIGTERM" ? paths : [...paths, "/end"];
      await daemon.ended;
      // On a machine that is busy for 20 ms the pipe passes for one that nobody reads, also if it takes the last write.
      const lost = Number(/Dropped (\d+) lines of the access log/.exec(daemon.log)?.[1] ?? 0);
      assert(logged.length + lost >= expected.length, `${logged.length}, ${daemon.log}`);
      assertEquals(new Set(logged).size, logged.length);
      assertEquals(logged.filter((path) => !expected.includes(path)), []);
    },
  );
}

Deno.test(
  "serve --access-log serves and ends while nobody reads its stdout, and says what is lost",
  { ignore },
  async () => {
    await using serving = await start(["--access-log"], { stdout: "piped" });
    const { daemon, get } = serving;
    // 1 KiB a line, which fills the pipe and the queue.
    const long = `/${"x".repeat(950)}`;
    await load(serving, Array.from({ length: 1400 }, () => long));
    await daemon.says("Dropping lines of the access log");
    assertEquals((await get("/")).status, 200);
    assertEquals((await daemon.stop()).code, 0);
    await daemon.ended;
    const lost = Number(/Dropped (\d+) lines of the access log/.exec(daemon.log)?.[1]);
    const { length } = loggedIn(
      (await new Response(daemon.child.stdout).text()).replace(/[^\n]*$/, ""),
    );
    // The pipe has the last writes, but perhaps not all of them.
    assert(length + lost >= 1401 && length > 0 && lost > 1000, `${length} lines, ${lost} lost`);
  },
);

for (const workers of [0, 2]) {
  Deno.test(
    `serve --access-log-file loses, doubles and tears no line when it is rotated, with ${workers} workers`,
    { ignore },
    async () => {
      const flags = workers > 0 ? [`--workers=${workers}`] : [];
      await using serving = await start(["--access-log-file=FOLDER/log", ...flags]);
      const { daemon, folder } = serving;
      const rotations = 4;
      const sent: string[] = [];
      let rotating = true;
      const loading = (async () => {
        while (rotating) {
          const paths = pathsOf(50, sent.length);
          sent.push(...paths);
          await load(serving, paths);
        }
      })();
      for (let i = 1; i <= rotations; i++) {
        await deadline(filled(`${folder}/log`), "the log");
        await Deno.rename(`${folder}/log`, `${folder}/log.${i}`);
        daemon.child.kill("SIGHUP");
        if (workers > 0) await daemon.says("Serving ", (i + 1) * workers, 60_000);
      }
      await deadline(filled(`${folder}/log`), "the last log");
      rotating = false;
      await deadline(loading, "the load", 60_000);
      assertEquals((await daemon.stop()).code, 0);
      const files = [1, 2, 3, 4].map((i) => `log.${i}`).concat("log");
      const texts = files.map((name) => Deno.readTextFileSync(`${folder}/${name}`));
      const logged = texts.flatMap(loggedIn);
      assertEquals(logged.toSorted(), sent.toSorted());
      assertEquals(Deno.statSync(`${folder}/log`).mode! & 0o777, 0o640);
      // What is written after SIGHUP goes to the new file, also by workers that are being replaced.
      assertEquals(texts.every((text) => text !== ""), true);
      assertEquals(/Ignored|again/.test(daemon.log), false, daemon.log);
    },
  );
}

/** Waits until a file has something. */
async function filled(path: string): Promise<void> {
  const hasText = () => Deno.stat(path).then(({ size }) => size > 0, () => false);
  await eventually(`text in ${path}`, hasText);
}

Deno.test(
  "serve --access-log-file tears no line of two workers that share a named pipe",
  { ignore },
  async () => {
    const folder = await Deno.makeTempDir();
    const path = `${folder}/pipe`;
    await new Deno.Command("mkfifo", { args: [path] }).output();
    // Also for writing, as opening it would wait for a writer.
    const pipe = await Deno.open(path, { read: true, write: true });
    {
      await using serving = await start([`--access-log-file=${path}`, "--workers=2"]);
      // More than the pipe has room for, so that both workers wait to write.
      const paths = pathsOf(400).map((path) => path + "x".repeat(900));
      await load(serving, paths);
      let log = "";
      const read = async () => {
        for await (const text of pipe.readable.pipeThrough(new TextDecoderStream())) {
          log += text;
          if (log.match(/\n/g)?.length === paths.length) return;
        }
      };
      await deadline(read(), "all lines");
      assertEquals(loggedIn(log).toSorted(), paths.toSorted());
    }
    await Deno.remove(folder, { recursive: true });
  },
);

Deno.test("serve --access-log-file is opened again by workers that stay as a reload fails", {
  ignore,
}, async () => {
  await using serving = await start(["--access-log-file=FOLDER/log", "--workers=1"]);
  const { daemon, folder } = serving;
  await load(serving, ["/a"]);
  await deadline(filled(`${folder}/log`), "the line");
  await Deno.rename(`${folder}/log`, `${folder}/log.1`);
  await Deno.writeTextFile(`${folder}/app.ts`, "throw new Error('broken');");
  daemon.child.kill("SIGHUP");
  await daemon.says("Reload failed", 1, 30_000);
  await load(serving, ["/b"]);
  await deadline(filled(`${folder}/log`), "the line in the new file");
  assertEquals((await daemon.stop()).code, 0);
  assertEquals(loggedIn(Deno.readTextFileSync(`${folder}/log.1`)), ["/a"]);
  assertEquals(loggedIn(Deno.readTextFileSync(`${folder}/log`)), ["/b"]);
});

Deno.test(
  "serve goes on with the open access log if its file cannot be opened again",
  { ignore },
  async () => {
    await using serving = await start(["--access-log-file=FOLDER/log", "--access-log=json"]);
    const { daemon, folder } = serving;
    await load(serving, ["/a"]);
    await Deno.rename(`${folder}/log`, `${folder}/log.1`);
    await Deno.mkdir(`${folder}/log`);
    daemon.child.kill("SIGHUP");
    await daemon.says(`Cannot open ${folder}/log again: Is a directory`);
    await load(serving, ["/b"]);
    assertEquals((await daemon.stop()).code, 0);
    const lines = Deno.readTextFileSync(`${folder}/log.1`).trim().split("\n");
    assertEquals(lines.map((line) => new URL(JSON.parse(line).url).pathname), ["/a", "/b"]);
  },
);

Deno.test(
  "serve reports an access log that it cannot open, and what to do",
  { ignore },
  async () => {
    const folder = await Deno.makeTempDir();
    await Deno.writeTextFile(`${folder}/app.ts`, APP);
    const run = (path: string, ...flags: string[]) =>
      runCommandLine(
        ["serve", `${folder}/app.ts`, "-l", "127.0.0.1:0", "--access-log-file", path],
        ["--allow-read", "--allow-net", "--allow-env", ...flags],
      );
    const denied = await run(`${folder}/log`);
    assertEquals(denied.code, 1);
    assertStringIncludes(
      denied.stderr,
      `Cannot open the access log ${folder}/log: Deno denies it. Type --allow-write=${folder}/log after "deno run"`,
    );
    const missing = await run(`${folder}/logs/log`, "--allow-write");
    assertEquals(missing.code, 1);
    assertStringIncludes(
      missing.stderr,
      `its folder does not exist. Create it: mkdir -p ${folder}/logs`,
    );
    await Deno.remove(folder, { recursive: true });
  },
);

/** Returns the objects that a log has, one a line. */
function objectsIn(
  log: string,
): { time: string; pid: number; message: string; requestId?: string }[] {
  return log.trim().split("\n").map((line) => JSON.parse(line));
}

Deno.test("serve --log-format json also says what is wrong with the arguments", async () => {
  const mistakes: [args: string[], message: string][] = [
    [["app.ts", "--log-format", "json", "--lissten=1"], "There is no option --lissten."],
    [["app.ts", "--log-format=json", "--mode=x"], "--mode must be octal"],
    [["app.ts", "--max-memory", "1g", "--log-format=json"], "--max-memory is for workers"],
    [["--log-format=json"], "Name the app's module"],
    [["missing.ts", "--log-format=json"], "missing.ts"],
  ];
  for (const [args, message] of mistakes) {
    const { stderr } = await runCommandLine(["serve", ...args], ["--allow-read", "--allow-net"]);
    const [line, ...others] = objectsIn(stderr);
    assertEquals(others, []);
    assertStringIncludes(line.message, message);
  }
  const { stderr } = await runCommandLine(["serve", "--mode=x", "--", "--log-format=json"], []);
  assertEquals(stderr.startsWith("{"), false);
});

Deno.test(
  "serve --log-format json writes one object a line, by workers and their supervisor alike",
  { ignore },
  async () => {
    const folder = await Deno.makeTempDir();
    const socket = `unix:${folder}/socket` as const;
    await Deno.writeTextFile(
      `${folder}/app.ts`,
      `export default (request, info) => {
  info.log("a line\\nand \\x1b[2J another");
  if (new URL(request.url).pathname === "/throw") throw new Error("broken");
  return new Response(info.requestId);
};`,
    );
    await using daemon = startServe(
      `${folder}/app.ts`,
      ["--listen", socket, "--workers=1", "--log-format=json", "--log=stderr"],
      ["--allow-all"],
    );
    await daemon.says(" on ");
    await daemon.says("Serving ");
    const get = (path: string, headers: HeadersInit = {}) =>
      fetchFastCGI(new Request(`http://localhost${path}`, { headers }), socket, { log: () => {} });
    const id = await (await get("/", { "x-request-id": "mine" })).text();
    assertEquals(id, "mine");
    const own = await (await get("/")).text();
    assertEquals((await get("/throw")).status, 500);
    daemon.child.kill("SIGHUP");
    await daemon.says("Serving ", 2);
    assertEquals((await daemon.stop()).code, 0);
    await daemon.ended;
    const objects = objectsIn(daemon.log);
    for (const { time } of objects) assertEquals(new Date(time).toISOString(), time);
    const lines = objects.filter(({ message }) => message.startsWith("a line"));
    assertEquals(lines.map(({ message }) => message), Array(3).fill("a line\nand \x1b[2J another"));
    assertEquals(lines.slice(0, 2).map(({ requestId }) => requestId), ["mine", own]);
    // deno-lint-ignore no-control-regex
    assertEquals(/[\x00-\x09\x0b-\x1f]/.test(daemon.log), false);
    const [thrown] = objects.filter(({ message }) => message.includes("broken"));
    assertEquals(thrown.requestId, lines[2].requestId);
    assertStringIncludes(thrown.message, "app.ts:3");
    const [serving] = objects.filter(({ message }) => message.startsWith("Serving "));
    assertEquals([serving.pid === daemon.child.pid, serving.requestId], [false, undefined]);
    await Deno.remove(folder, { recursive: true });
  },
);

Deno.test(
  "serve --log-format json has an object for what a supervisor says, and why nothing is served",
  { ignore },
  async () => {
    const folder = await Deno.makeTempDir();
    await Deno.writeTextFile(`${folder}/app.ts`, "throw new Error('broken');");
    const { code, stderr } = await runCommandLine(
      [
        ...["serve", `${folder}/app.ts`, "-l", `unix:${folder}/socket`],
        ...["--workers=1", "--log-format=json"],
      ],
      ["--allow-all"],
    );
    assertEquals(code, 3);
    const messages = objectsIn(stderr).map(({ message }) => message);
    assertMatch(messages.join("\n"), /^Worker \d+ ended with code 1 before it served$/m);
    assertStringIncludes(messages.at(-1)!, "Cannot start the workers");
    await Deno.remove(folder, { recursive: true });
  },
);

for (const format of ["text", "json"]) {
  Deno.test(`serve serves while nobody reads its stderr, and says what is lost, in ${format}`, {
    ignore,
  }, async () => {
    const folder = await Deno.makeTempDir();
    const socket = `unix:${folder}/socket` as const;
    await Deno.writeTextFile(
      `${folder}/app.ts`,
      `export default (_request, info) => {
  for (let i = 0; i < 100; i++) info.log("x".repeat(1000));
  return new Response("sent");
};`,
    );
    const args = ["--listen", socket, "--log=stderr", `--log-format=${format}`];
    const child = new Deno.Command(Deno.execPath(), {
      args: [
        ...["run", "--no-prompt", "--allow-all", ...importMapFlags(), `${ROOT}cli.ts`],
        ...["serve", `${folder}/app.ts`, ...args],
      ],
      stdin: "null",
      stdout: "null",
      stderr: "piped",
    }).spawn();
    const reader = child.stderr.getReader();
    const parts = [(await deadline(reader.read(), "the first line")).value!];
    for (let i = 0; i < 15; i++) {
      const response = await deadline(
        fetchFastCGI("http://localhost/", socket, { log: () => {} }),
        "a response",
      );
      assertEquals(await response.text(), "sent");
    }
    const read = async () => (await deadline(reader.read(), "the log")).value;
    for (let part = await read(); part !== undefined; part = await read()) {
      parts.push(part);
      // It has said what is lost, and writes nothing more until it ends.
      if (new TextDecoder().decode(part).includes("Dropped ")) child.kill("SIGTERM");
    }
    assertEquals((await deadline(child.status, "the end")).code, 0);
    const lines = new TextDecoder().decode(concat(parts)).trim().split("\n");
    const messages = format === "text" ? lines : lines.map((line) => JSON.parse(line).message);
    const [, lost] = /^Dropped (\d+) lines of this log/m.exec(messages.join("\n"))!;
    const logged = messages.filter((line) => line === "x".repeat(1000)).length;
    assertEquals(logged + Number(lost), 1500);
    await Deno.remove(folder, { recursive: true });
  });
}

Deno.test("an access log needs no permission to read its file", {
  ignore,
  permissions: { read: false, write: true },
}, () => {
  const path = Deno.makeTempFileSync();
  try {
    using file = new LogFile(path);
    assertEquals([file.takesWhole, file.writeSync(new Uint8Array(3))], [false, 3]);
  } finally {
    Deno.removeSync(path);
  }
});
