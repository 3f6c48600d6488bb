import { assertEquals, assertRejects, assertStringIncludes, assertThrows } from "@std/assert";
import { parseAddress } from "../../io/address.ts";
import { listen } from "../../io/listen.ts";
import { Daemon, ROOT } from "../testing/daemon.ts";
import { deadline } from "../testing/deadline.ts";

Deno.test("parseAddress() reads host:port and unix:/path", () => {
  assertEquals(parseAddress("127.0.0.1:9000"), {
    transport: "tcp",
    hostname: "127.0.0.1",
    port: 9000,
  });
  assertEquals(parseAddress("[::1]:80"), { transport: "tcp", hostname: "::1", port: 80 });
  assertEquals(parseAddress(":80"), { transport: "tcp", hostname: "127.0.0.1", port: 80 });
  assertEquals(parseAddress("unix:/a b"), { transport: "unix", path: "/a b" });
});

for (const text of ["", "9000", "a", "a:b", "a:65536", "::1:80", "unix:", "http://a:1", "a:1/"]) {
  Deno.test(`parseAddress() rejects ${JSON.stringify(text)}`, () => {
    assertThrows(() => parseAddress(text), TypeError, "it must be host:port or unix:/path");
  });
}

async function inDirectory(test: (path: string) => Promise<void>): Promise<void> {
  const directory = await Deno.makeTempDir();
  try {
    await test(`${directory}/app.sock`);
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
}

function modeOf(path: string): number {
  return Deno.statSync(path).mode! & 0o777;
}

Deno.test("listen() sets the mode of a Unix socket, and removes the file when it closes", () =>
  inDirectory(async (path) => {
    for (const mode of [undefined, 0o600, 0o666]) {
      const listener = await listen(`unix:${path}`, { mode });
      assertEquals(modeOf(path), mode ?? 0o660);
      assertEquals(listener.addr, { transport: "unix", path } as Deno.Addr);
      listener.close();
      await assertRejects(() => Deno.stat(path), Deno.errors.NotFound);
    }
  }));

Deno.test("listen() creates a Unix socket closed to other users until its mode is set", () =>
  inDirectory(async (path) => {
    const before = Deno.umask(0);
    const { chmodSync } = Deno;
    let first: number | undefined;
    Deno.chmodSync = (file, mode) => {
      first = modeOf(String(file));
      chmodSync(file, mode);
    };
    try {
      (await listen(`unix:${path}`)).close();
      assertEquals(first! & 0o077, 0);
    } finally {
      Deno.chmodSync = chmodSync;
      Deno.umask(before);
    }
  }));

for (
  const [allowed, flags] of [["", ["--allow-sys"]], [" without leave to set it", []]] as const
) {
  Deno.test(`listen() and prefork() reject early connections under umask 0${allowed}`, () =>
    inDirectory(async (path) => {
      const programs = {
        listen: `import { listen } from "${ROOT}fastcgi.ts";
          await listen("unix:${path}").then((listener) => listener.close());`,
        prefork: `import { prefork } from "${ROOT}prefork.ts";
          await prefork({ listen: "unix:${path}", workers: 1, command: ["eval", ""] });`,
      };
      for (const [name, program] of Object.entries(programs)) {
        const file = `${path}.${name}.ts`;
        await Deno.writeTextFile(
          file,
          `const { chmodSync } = Deno;
           Deno.chmodSync = (file, mode) => {
             console.error("mode " + (Deno.statSync(file).mode & 0o777).toString(8));
             chmodSync(file, mode);
           };
           ${program}`,
        );
        const { stderr } = await deadline(
          new Deno.Command("sh", {
            args: [
              "-c",
              'umask 0; exec "$0" "$@"',
              Deno.execPath(),
              ...["run", "--no-prompt", "--allow-net", "--allow-read", "--allow-write"],
              ...["--allow-run", "--allow-env", ...flags, file],
            ],
          }).output(),
          "the program's end",
        );
        const log = new TextDecoder().decode(stderr);
        assertStringIncludes(
          log,
          flags.length > 0 ? "mode 600" : "others must not connect before it has mode 660",
          name,
        );
        await assertRejects(() => Deno.stat(path), Deno.errors.NotFound);
        await assertRejects(() => Deno.stat(`${path}.new`), Deno.errors.NotFound);
      }
    }));
}

Deno.test({
  name: "listen() gives a Unix socket its group, by name or number",
  ignore: Deno.uid() !== 0,
  fn: () =>
    inDirectory(async (path) => {
      const entry = (await Deno.readTextFile("/etc/group")).split("\n")
        .map((line) => line.split(":")).find(([, , id]) => Number(id) > 0)!;
      for (const group of [entry[0], Number(entry[2])]) {
        const listener = await listen(`unix:${path}`, { group });
        assertEquals(Deno.statSync(path).gid, Number(entry[2]));
        listener.close();
      }
    }),
});

Deno.test("listen() rejects an unknown group, and leaves no file", () =>
  inDirectory(async (path) => {
    const error = await assertRejects(() => listen(`unix:${path}`, { group: "no such group" }));
    assertStringIncludes((error as Error).message, "must be in /etc/group");
    await assertRejects(() => Deno.stat(path), Deno.errors.NotFound);
  }));

Deno.test("listen() replaces the socket of a killed process", () =>
  inDirectory(async (path) => {
    const directory = path.slice(0, path.lastIndexOf("/"));
    const program = `${directory}/holder.ts`;
    await Deno.writeTextFile(
      program,
      `import { listen } from "${ROOT}fastcgi.ts";
       await listen("unix:${path}");
       console.error("listening");
       setInterval(() => {}, 1000);`,
    );
    const holder = new Daemon(["--allow-all", program]);
    await holder.says("listening");
    const error = await assertRejects(
      () => listen(`unix:${path}`),
      Error,
      `Cannot listen on ${path}: `,
    );
    assertStringIncludes((error as Error).message, "listens there");
    await holder.stop("SIGKILL");
    assertEquals(Deno.lstatSync(path).isSocket, true);
    (await listen(`unix:${path}`)).close();
  }));

Deno.test("listen() names the process that uses a socket, if permitted", () =>
  inDirectory(async (path) => {
    using _listener = Deno.listen({ transport: "unix", path });
    const program = path.replace(".sock", ".ts");
    await Deno.writeTextFile(
      program,
      `import { listen } from "${ROOT}fastcgi.ts"; await listen("unix:${path}");`,
    );
    await using second = new Daemon(["--allow-all", program]);
    await second.says(`process ${Deno.pid} (deno)`);
  }));

Deno.test("listen() does not replace a file that is not a socket", () =>
  inDirectory(async (path) => {
    await Deno.writeTextFile(path, "precious");
    await assertRejects(() => listen(`unix:${path}`), Error, "it is a file other than a socket");
    assertEquals(await Deno.readTextFile(path), "precious");
  }));
