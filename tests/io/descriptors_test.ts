/** Servers whose process runs out of file descriptors (rule F8). */
import { assert, assertEquals } from "@std/assert";
import { fetchFastCGI } from "../../gateway.ts";
import type { Address } from "../../io/address.ts";
import { Program, ROOT } from "../testing/daemon.ts";
import { deadline } from "../testing/deadline.ts";
import { handDown, type HandedDown } from "../testing/hand_down.ts";

const LIMIT = "64";

/** As daemons do. In a program that has just started, Deno ends without descriptors for its own signal handling. */
const LISTENS_TO_SIGNALS = `Deno.addSignalListener("SIGTERM", () => Deno.exit());`;

/** Connects, and ignores errors of the connection. */
function connect(address: string): Promise<Deno.Conn> {
  return address.startsWith("unix:")
    ? Deno.connect({ transport: "unix", path: address.slice(5) })
    : Deno.connect({ hostname: "127.0.0.1", port: Number(address.split(":")[1]) });
}

/** Opens more connections than the process has descriptors for, closes them, and sends a request. */
async function exhaust(address: string, noticed: () => Promise<void>): Promise<void> {
  const opened: Deno.Conn[] = [];
  for (let i = 0; i < 100; i++) opened.push(await connect(address));
  await noticed();
  for (const conn of opened) conn.close();
  await respondsWell(address);
}

/** Sends requests until one gets the app's response: while old connections are open, 503 is expected. */
async function respondsWell(address: string): Promise<void> {
  let response: Response;
  do {
    const fetched = fetchFastCGI("http://localhost/", address as Address);
    response = await deadline(fetched, "a response");
    assertEquals(
      await response.text(),
      response.ok ? "Hello from Gatehouse\n" : "503 Service Unavailable\n",
    );
  } while (!response.ok);
}

/** Starts a program whose standard input is a listening socket. */
async function inherit(
  medium: "TCP" | "Unix",
  directory: string,
  args: string[],
  limit?: string,
): Promise<HandedDown> {
  if (medium === "TCP") {
    const program = await handDown({ host: "127.0.0.1", port: 0 }, 0, {}, args, limit);
    program.closeOurs();
    return program;
  }
  const path = `${directory}/app.sock`;
  const program = await handDown({ path: `${path}.new` }, 0, {}, args, limit);
  // The listener removes its path when it closes.
  await Deno.rename(`${path}.new`, path);
  program.closeOurs();
  return { ...program, address: `unix:${path}` };
}

/** The number of descriptors of a process. */
async function countDescriptors(pid: number): Promise<number> {
  const { stdout } = await new Deno.Command("ls", { args: [`/proc/${pid}/fd`] }).output();
  return new TextDecoder().decode(stdout).split("\n").length;
}

/** How a program opens the socket that it inherits. */
const WAYS = {
  native: "await inheritedListener()",
  "node:net": "await InheritedListener.open(0, null)",
};

/** Writes a program that serves FastCGI on the socket that it inherits. Returns the arguments that run it. */
async function writeProgram(directory: string, open: string, options: string): Promise<string[]> {
  await Deno.writeTextFile(
    `${directory}/server.ts`,
    `import { inheritedListener, serveFastCGI } from "${ROOT}fastcgi.ts";
    import { InheritedListener } from "${ROOT}io/inherited_listener.ts";
    const app = () => new Response("Hello from Gatehouse\\n");
    const server = serveFastCGI(app, ${open}, { ${options} });
    Deno.addSignalListener("SIGTERM", async () => {
      await server.shutdown();
      Deno.exit();
    });`,
  );
  return ["--allow-env", `${directory}/server.ts`];
}

for (const medium of ["TCP", "Unix"] as const) {
  for (const [way, open] of Object.entries(WAYS)) {
    Deno.test(`an inherited ${medium} listener accepts again after the process ran out of descriptors, ${way}`, async () => {
      const directory = await Deno.makeTempDir();
      const args = await writeProgram(directory, open, "");
      const program = await inherit(medium, directory, args, LIMIT);
      await exhaust(
        program.address,
        () => program.says("Cannot accept a connection: All file descriptors are in use"),
      );
      assertEquals(await program.stop(), 0);
      await Deno.remove(directory, { recursive: true });
    });

    Deno.test(`maxConnections applies to an inherited ${medium} listener, ${way}`, async () => {
      const directory = await Deno.makeTempDir();
      const args = await writeProgram(directory, open, "maxConnections: 4");
      const program = await inherit(medium, directory, args);
      const before = await countDescriptors(program.pid);
      const opened: Deno.Conn[] = [];
      for (let i = 0; i < 400; i++) opened.push(await connect(program.address));
      for (let i = 0; i < 50; i++) {
        const more = await countDescriptors(program.pid) - before;
        // 4 are served, 64 wait for their 503, and 32 wait in the queue; the runtime accepts up to 128 more at once.
        assert(more < 250, `${more} descriptors`);
      }
      for (const conn of opened) conn.close();
      await respondsWell(program.address);
      assertEquals(await program.stop(), 0);
      await Deno.remove(directory, { recursive: true });
    });
  }

  Deno.test(`a ${medium} listener accepts again after the process ran out of descriptors`, async () => {
    const directory = await Deno.makeTempDir();
    const address = medium === "TCP" ? "127.0.0.1:0" : `unix:${directory}/app.sock`;
    const source = `
      import { listen, serveFastCGI } from "${ROOT}fastcgi.ts";
      ${LISTENS_TO_SIGNALS}
      const onListen = (addr) => console.error("listens on " + (addr.path ?? addr.port) + ".");
      const app = () => new Response("Hello from Gatehouse\\n");
      const server = serveFastCGI(app, await listen("${address}"), { onListen });
      await server.finished;`;
    await Deno.writeTextFile(`${directory}/server.ts`, source);
    await using program = new Program("/bin/sh", {
      args: [
        "-c",
        `ulimit -n ${LIMIT}; exec "$0" run --no-prompt --allow-net --allow-read --allow-write "$1"`,
        Deno.execPath(),
        `${directory}/server.ts`,
      ],
    });
    await program.says("listens on");
    const [, where] = /listens on (.*)\./.exec(program.log)!;
    await exhaust(
      medium === "TCP" ? `127.0.0.1:${where}` : `unix:${where}`,
      () => program.says("Cannot accept a connection: Too many open files"),
    );
    assertEquals(program.log.split("Cannot accept").length, 2, program.log);
    assertEquals((await program.stop()).code, 0);
    await Deno.remove(directory, { recursive: true });
  });
}

Deno.test("gateways respond with 502 without descriptors, and as usual when there are some again", async () => {
  const directory = await Deno.makeTempDir();
  const source = `
    ${LISTENS_TO_SIGNALS}
    import { cgiGateway, fastCGIGateway, scgiGateway } from "${ROOT}gateway.ts";
    import { serveFastCGI } from "${ROOT}fastcgi.ts";
    import { serveSCGI } from "${ROOT}scgi.ts";
    const app = () => new Response("Hello");
    const listen = () => Deno.listen({ hostname: "127.0.0.1", port: 0 });
    const listeners = [listen(), listen()];
    serveFastCGI(app, listeners[0]);
    serveSCGI(app, listeners[1]);
    const addresses = listeners.map(({ addr }) => "127.0.0.1:" + addr.port);
    const log = () => {};
    const gateways = [
      fastCGIGateway(addresses[0], { log }),
      scgiGateway(addresses[1], { log }),
      cgiGateway({ script: "${directory}/hello", log }),
    ];
    const fetchAll = async () => {
      for (const gateway of gateways) {
        const response = await gateway(new Request("http://localhost/"));
        console.error("status " + response.status + " " + (await response.text()).trim());
      }
    };
    const files = [];
    try {
      while (true) files.push(Deno.openSync("/dev/null"));
    } catch {
      console.error("exhausted");
    }
    await fetchAll();
    for (const file of files) file.close();
    await fetchAll();
    console.error("done");
    Deno.exit();`;
  await Deno.writeTextFile(`${directory}/program.ts`, source);
  await Deno.writeTextFile(
    `${directory}/hello`,
    "#!/bin/sh\necho 'Content-Type: text/plain'\necho\necho Hello\n",
  );
  await Deno.chmod(`${directory}/hello`, 0o755);
  await using program = new Program("/bin/sh", {
    args: [
      "-c",
      `ulimit -n ${LIMIT}; exec "$0" run --no-prompt --allow-all "$1"`,
      Deno.execPath(),
      `${directory}/program.ts`,
    ],
  });
  await program.says("done");
  const statuses = program.log.match(/^status .*$/gm);
  assertEquals(statuses?.slice(0, 3), Array(3).fill("status 502 502 Bad Gateway"));
  assertEquals(statuses?.slice(3), Array(3).fill("status 200 Hello"));
  await Deno.remove(directory, { recursive: true });
});
