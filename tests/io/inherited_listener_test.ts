/** Both ways in which an inherited listener accepts: as `Deno.listen` does, and by node:net, which takes its place. */
import { assert, assertEquals, assertNotEquals, assertRejects } from "@std/assert";
import type { Duplex } from "../../io/duplex.ts";
import { InheritedListener } from "../../io/inherited_listener.ts";
import { nativeSockets } from "../../io/private_fields.ts";
import { Daemon, ROOT } from "../testing/daemon.ts";
import { deadline } from "../testing/deadline.ts";
import { type ListeningDescriptor, listeningDescriptor } from "../testing/listening_descriptor.ts";

/** More than the listener lets wait, and than the runtime accepts at once. */
const MANY = 400;

const ways = { native: await nativeSockets(), "node:net": null };

Deno.test("nativeSockets() finds all that it needs in this version of the runtime", () => {
  assertNotEquals(ways.native, null);
});

function connect({ address }: ListeningDescriptor): Promise<Deno.Conn> {
  return address.transport === "tcp" ? Deno.connect(address) : Deno.connect(address);
}

function connectMany(socket: ListeningDescriptor, count: number): Promise<Deno.Conn[]> {
  return Promise.all(Array.from({ length: count }, () => connect(socket)));
}

function nextOf(listener: InheritedListener): Promise<IteratorResult<Duplex>> {
  return deadline(listener.next(), "a connection");
}

async function accept(listener: InheritedListener): Promise<Duplex> {
  const { value } = await nextOf(listener);
  return value;
}

async function readAll(
  from: { read(buffer: Uint8Array): Promise<number | null> },
): Promise<number> {
  const buffer = new Uint8Array(65_536);
  let length = 0;
  let count: number | null;
  while ((count = await deadline(from.read(buffer), "bytes")) !== null) length += count;
  return length;
}

async function writeAll(to: Duplex, bytes: Uint8Array): Promise<void> {
  let sent = 0;
  while (sent < bytes.length) sent += await deadline(to.write(bytes.subarray(sent)), "a write");
}

for (const [way, native] of Object.entries(ways)) {
  for (const medium of ["TCP", "Unix"] as const) {
    const test = (
      name: string,
      run: (socket: ListeningDescriptor, listener: InheritedListener) => Promise<void>,
    ) =>
      Deno.test(`InheritedListener ${name}, ${medium}, ${way}`, async () => {
        const socket = await listeningDescriptor(medium);
        const listener = await InheritedListener.open(socket.fd, native);
        try {
          await run(socket, listener);
        } finally {
          listener.close();
          if (socket.address.transport === "unix") await Deno.remove(socket.address.path);
        }
      });

    test("returns connections that read, write, half-close and close", async (socket, listener) => {
      if (socket.address.transport === "tcp") assertEquals(listener.addr, socket.address);
      else assertEquals(listener.addr, { transport: "unix", path: "" });
      using client = await connect(socket);
      const connection = await accept(listener);
      assertEquals(
        connection.remoteAddr,
        medium === "TCP" ? client.localAddr : { transport: "unix", path: "" },
      );
      await client.write(new Uint8Array(1000).fill(1));
      const small = new Uint8Array(300);
      for (let received = 0; received < 1000;) {
        const count = await deadline(connection.read(small), "bytes");
        assert(count !== null && small.subarray(0, count).every((byte) => byte === 1));
        received += count;
      }
      const big = new Uint8Array(4_000_000).fill(2);
      const sent = writeAll(connection, big).then(() => connection.closeWrite!());
      assertEquals(await readAll(client), big.length);
      await deadline(sent, "the end of writing");
      // The peer's writing side is still open.
      await client.write(new Uint8Array(5));
      assertEquals(await deadline(connection.read(small), "bytes"), 5);
      connection.close();
      assertEquals(await deadline(client.read(small), "the end"), null);
    });

    if (medium === "Unix") {
      test(
        "detects by an empty write whether the peer has closed (rule C22)",
        async (socket, listener) => {
          const conn = await connect(socket);
          const accepted = await accept(listener);
          await conn.closeWrite();
          assertEquals(await readAll(accepted), 0);
          const nothing = new Uint8Array();
          assertEquals(await deadline(accepted.write(nothing), "an empty write"), 0);
          conn.close();
          const { ignoresEmptyWrites = false } = accepted;
          if (ignoresEmptyWrites) await deadline(accepted.write(nothing), "an empty write");
          else await assertRejects(() => deadline(accepted.write(nothing), "an empty write"));
          accepted.close();
          assertEquals(ignoresEmptyWrites, native === null);
        },
      );
    }

    test("goes on writing when the peer has half-closed", async (socket, listener) => {
      using client = await connect(socket);
      const connection = await accept(listener);
      await client.write(new Uint8Array(10));
      await client.closeWrite();
      assertEquals(await readAll(connection), 10);
      await writeAll(connection, new Uint8Array(100_000));
      connection.close();
      assertEquals(await readAll(client), 100_000);
    });

    test("fails writes when the peer has closed", async (socket, listener) => {
      const client = await connect(socket);
      const connection = await accept(listener);
      client.close();
      await readAll(connection);
      // Over TCP the first write succeeds, and is refused.
      const writing = (async () => {
        while (true) await connection.write(new Uint8Array(100_000));
      })();
      await assertRejects(() => deadline(writing, "a failure"), Error);
      connection.close();
    });

    test("ends a pending read when the connection is closed", async (socket, listener) => {
      using _client = await connect(socket);
      const connection = await accept(listener);
      const read = connection.read(new Uint8Array(10)).catch(() => null);
      connection.close();
      assertEquals(await deadline(read, "the end of the read"), null);
      connection.close();
    });

    test("loses no connection that comes while it is paused", async (socket, listener) => {
      const clients = await connectMany(socket, MANY);
      const buffer = new Uint8Array(1);
      for (let i = 0; i < MANY; i++) {
        const connection = await accept(listener);
        await connection.write(new Uint8Array([i % 200]));
        connection.close();
      }
      const seen = await Promise.all(clients.map(async (client) => {
        const own = new Uint8Array(1);
        assertEquals(await deadline(client.read(own), "a byte"), 1);
        return own[0];
      }));
      assertEquals(seen.toSorted((a, b) => a - b).at(-1), 199);
      for (const client of clients) client.close();
      // It goes on.
      using client = await connect(socket);
      const connection = await accept(listener);
      await connection.write(buffer);
      assertEquals(await deadline(client.read(buffer), "a byte"), 1);
      connection.close();
    });

    test("leaves connections to other listeners while it is paused", async (socket) => {
      const other = await InheritedListener.open(socket.other, native);
      const clients = await connectMany(socket, MANY);
      for (let i = 0; i < MANY / 2; i++) (await accept(other)).close();
      for (const client of clients) client.close();
      other.close();
    });

    Deno.test(`InheritedListener returns what has arrived when it is closed, ${medium}, ${way}`, async () => {
      const socket = await listeningDescriptor(medium);
      // They arrive in one turn of the event loop.
      const clients = await connectMany(socket, 100);
      const listener = await InheritedListener.open(socket.fd, native);
      (await accept(listener)).close();
      listener.close();
      let count = 1;
      for (let next; !(next = await nextOf(listener)).done; count++) next.value.close();
      assertEquals(count, clients.length);
      for (const client of clients) client.close();
    });
  }

  Deno.test(`InheritedListener does not lower the backlog, Unix, ${way}`, async () => {
    const socket = await listeningDescriptor("Unix", 4096);
    const listener = await InheritedListener.open(socket.fd, native);
    const clients = await connectMany(socket, 800);
    for (const client of clients) client.close();
    listener.close();
  });
}

for (const way of Object.keys(ways)) {
  Deno.test(`InheritedListener.unref() lets the process end, and node:net is reported once, ${way}`, async () => {
    const file = await Deno.makeTempFile({ suffix: ".ts" });
    await Deno.writeTextFile(
      file,
      `import { InheritedListener } from "${ROOT}io/inherited_listener.ts";
      import { listeningDescriptor } from "${ROOT}tests/testing/listening_descriptor.ts";
      const { fd, other } = await listeningDescriptor("TCP");
      for (const descriptor of [fd, other]) {
        const way = ${way === "native" ? "undefined" : "null"};
        (await InheritedListener.open(descriptor, way)).unref();
      }`,
    );
    const program = new Daemon(["--allow-net", file]);
    const { code } = await deadline(program.child.status, "the program to end");
    await program.ended;
    assertEquals(code, 0, program.log);
    const logged = program.log.split("Accepting connections by node:net").length - 1;
    assertEquals(logged, way === "native" ? 0 : 1, program.log);
    await Deno.remove(file);
  });
}

Deno.test("InheritedListener keeps its descriptor open, which child processes may inherit", async () => {
  const file = await Deno.makeTempFile({ suffix: ".ts" });
  await Deno.writeTextFile(
    file,
    `import { InheritedListener } from "${ROOT}io/inherited_listener.ts";
    import { listeningDescriptor } from "${ROOT}tests/testing/listening_descriptor.ts";
    const { fd, address } = await listeningDescriptor("TCP");
    const socket = Deno.readLinkSync("/proc/self/fd/" + fd);
    const listener = await InheritedListener.open(fd);
    const clients = await Promise.all(Array.from({ length: ${MANY} }, () => Deno.connect(address)));
    for (const _ of clients) await listener.next();
    await Promise.all([listener.next(), Deno.connect(address)]);
    if (Deno.readLinkSync("/proc/self/fd/" + fd) !== socket) throw new Error("another file");
    Deno.exit();`,
  );
  const program = new Daemon(["--allow-all", file]);
  const { code } = await deadline(program.child.status, "the program to end");
  await program.ended;
  assertEquals(code, 0, program.log);
  await Deno.remove(file);
});
