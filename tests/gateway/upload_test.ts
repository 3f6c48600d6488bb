/** Bodies that are received before the application is called: slow clients occupy none of its processes. */
import { assertEquals, assertStringIncludes } from "@std/assert";
import {
  cgiGateway,
  fastCGIGateway,
  type Gateway,
  type GatewayOptions,
  scgiGateway,
} from "../../gateway.ts";
import { deadline, eventually } from "../testing/deadline.ts";
import { Application, type Peer } from "./application.ts";
import { readSCGI } from "./fronts.ts";

const OK = "Content-Type: text/plain\r\n\r\n";
const encoder = new TextEncoder();

/** A gateway whose application responds with the number of bytes that it has got, and counts its requests. */
interface Front extends AsyncDisposable {
  gateway: Gateway;
  log: string[];
  /** The number of requests that the application has got. */
  requests(): number;
}

/** Creates a front of an application, which is disposed of after its gateway. */
function front(
  gateway: Gateway,
  application: AsyncDisposable,
  log: string[],
  requests: () => number,
): Front {
  return {
    gateway,
    log,
    requests,
    async [Symbol.asyncDispose]() {
      gateway[Symbol.dispose]();
      await application[Symbol.asyncDispose]();
    },
  };
}

type Options = GatewayOptions & { maxProcesses?: number; maxConnections?: number };

function toFastCGI(options: Options & { root?: string; needsLength?: boolean }): Front {
  const log: string[] = [];
  let requests = 0;
  const application = new Application(async (peer) => {
    for (;;) {
      if (!await peer.until("variables", ({ variables }) => variables.size > 0)) return;
      requests++;
      if (!await peer.until("the body", ({ stdinEnded }) => stdinEnded)) return;
      const { variables, stdin, keep } = peer.received;
      await peer.response(`${OK}${variables.get("CONTENT_LENGTH")} ${stdin.length}`);
      if (!keep) return;
      peer.received = { ...peer.received, variables: new Map(), stdin: new Uint8Array() };
    }
  });
  const gateway = fastCGIGateway(application.address, {
    checkFiles: false,
    log: (line) => log.push(line),
    ...options,
  });
  return front(gateway, application, log, () => requests);
}

/** Reads a body of SCGI, of which `readSCGI` has read the variables and nothing more. */
function toSCGI(options: Options): Front {
  const log: string[] = [];
  let requests = 0;
  const application = new Application(async (peer: Peer) => {
    const variables = await readSCGI(peer);
    if (variables === undefined) return;
    requests++;
    await peer.write(encoder.encode(`${OK}${variables.get("CONTENT_LENGTH")} `));
  });
  const gateway = scgiGateway(application.address, { log: (line) => log.push(line), ...options });
  return front(gateway, application, log, () => requests);
}

function toCGI(options: Options): Front {
  const log: string[] = [];
  const root = Deno.makeTempDirSync({ prefix: "gatehouse" });
  Deno.chmodSync(root, 0o755);
  const script = `${root}/i.php`;
  Deno.writeTextFileSync(
    script,
    `#!/bin/sh
echo >> ${root}/requests
echo "Content-Type: text/plain"; echo
echo -n "$CONTENT_LENGTH $(wc -c)"`,
  );
  Deno.chmodSync(script, 0o755);
  const gateway = cgiGateway({ root, log: (line) => log.push(line), ...options });
  const files = { [Symbol.asyncDispose]: () => Deno.remove(root, { recursive: true }) };
  return front(gateway, files, log, () => {
    try {
      return Deno.statSync(`${root}/requests`).size;
    } catch {
      return 0;
    }
  });
}

/** How many requests an application can have at once: a process ends a little after its response. */
const PROCESSES = 5;

/** The gateways to applications that have a process for each request. */
const FEW_PROCESSES: Record<string, (options: Options) => Front> = {
  "cgiGateway()": (options) => toCGI({ maxProcesses: PROCESSES, ...options }),
  "fastCGIGateway({ root })": (options) =>
    toFastCGI({ root: "/srv/www", maxConnections: PROCESSES, ...options }),
};

/** An upload that the test sends part by part. */
class Upload {
  readonly response: Promise<Response>;
  #writer: WritableStreamDefaultWriter<Uint8Array>;

  /** @param length The declared length. */
  constructor(gateway: Gateway, length?: number, path = "/i.php") {
    const { readable, writable } = new TransformStream<Uint8Array, Uint8Array>();
    this.#writer = writable.getWriter();
    this.#writer.closed.catch(() => {});
    const headers = length === undefined ? undefined : { "content-length": String(length) };
    const init = { method: "POST", headers, body: readable };
    this.response = deadline(gateway(new Request(`http://localhost${path}`, init)), "a response");
    this.response.catch(() => {});
  }

  /** Sends bytes. Resolves when the gateway has stored them, as it reads on. */
  async send(bytes: number): Promise<void> {
    for (const length of [bytes - 1, 1]) {
      await deadline(this.#writer.write(new Uint8Array(length)), "the gateway to read");
    }
  }

  /** Ends the body, and returns the response's text. */
  async end(): Promise<string> {
    await this.#writer.close();
    return await (await this.response).text();
  }

  /** Fails, as if the client had disconnected. */
  async fail(): Promise<void> {
    await this.#writer.abort(new Error("connection reset"));
    await this.response;
  }
}

async function get(gateway: Gateway): Promise<string> {
  const response = gateway(new Request("http://localhost/i.php"));
  return await (await deadline(response, "a response to GET")).text();
}

for (const [name, start] of Object.entries(FEW_PROCESSES)) {
  for (const declared of [true, false]) {
    const kind = declared ? "of known length" : "without a length";
    Deno.test(`${name} occupies no process by slow uploads ${kind}`, async () => {
      await using front = start({});
      const uploads: Upload[] = [];
      for (let i = 0; i <= PROCESSES; i++) {
        const upload = new Upload(front.gateway, declared ? 100_000 : undefined);
        await upload.send(90_000);
        uploads.push(upload);
      }
      assertEquals(front.requests(), 0);
      assertStringIncludes(await get(front.gateway), " 0");
      for (const upload of uploads.splice(0, 3)) {
        await upload.send(10_000);
        assertEquals(await upload.end(), "100000 100000");
      }
      assertEquals(front.requests(), 4);
      for (const upload of uploads) await upload.fail();
    });
  }

  Deno.test(`${name} starts timeout after the body`, async () => {
    await using front = start({ timeout: 2000 });
    const upload = new Upload(front.gateway, 100_000);
    await upload.send(90_000);
    // A request with a longer limit expires meanwhile.
    await using application = new Application(async (peer) => {
      await peer.until("the end", ({ aborted }) => aborted);
    });
    using stalled = fastCGIGateway(application.address, { timeout: 2100, log: () => {} });
    assertEquals((await stalled(new Request("http://localhost/"))).status, 504);
    await upload.send(10_000);
    assertEquals(await upload.end(), "100000 100000");
  });

  Deno.test(`${name} calls no application for a client that leaves`, async () => {
    await using front = start({ maxBufferedTotal: 100_000 });
    for (let i = 0; i < 3; i++) {
      const upload = new Upload(front.gateway);
      // The bytes of the one before are free again.
      await upload.send(90_000);
      await upload.fail();
      assertEquals((await upload.response).status, 400);
    }
    assertEquals(front.requests(), 0);
  });

  Deno.test(`${name} limits the bytes of all bodies that wait, as they arrive`, async () => {
    await using front = start({ maxBufferedTotal: 200_000 });
    const [one, two, three] = [1, 2, 3].map(() => new Upload(front.gateway, 150_000));
    await one.send(90_000);
    await two.send(90_000);
    three.send(90_000).catch(() => {});
    assertEquals((await three.response).status, 503);
    assertStringIncludes(
      front.log.join("\n"),
      "Cannot receive request body as all of them must have at most 200000 bytes: they have more",
    );
    // A small one always has room.
    const small = new Request("http://localhost/i.php", { method: "POST", body: "small" });
    assertEquals(await (await front.gateway(small)).text(), "5 5");
    await one.fail();
    await two.send(60_000);
    assertEquals(await two.end(), "150000 150000");
  });

  for (const declared of [true, false]) {
    Deno.test(`${name} rejects a body ${declared ? "that declares" : "of"} more bytes than all may have`, async () => {
      await using front = start({ maxBufferedTotal: 100_000 });
      const upload = new Upload(front.gateway, declared ? 100_001 : undefined);
      upload.send(declared ? 70_000 : 100_001).catch(() => {});
      assertEquals((await upload.response).status, 413);
      assertEquals(front.requests(), 0);
    });
  }

  Deno.test(`${name} rejects a long body that exceeds maxBodyBytes`, async () => {
    await using front = start({ maxBodyBytes: 100_000 });
    const upload = new Upload(front.gateway);
    upload.send(100_001).catch(() => {});
    assertEquals((await upload.response).status, 413);
    assertEquals(front.requests(), 0);
  });

  Deno.test(`${name} rejects a long body that is shorter than declared`, async () => {
    await using front = start({});
    const upload = new Upload(front.gateway, 100_000);
    await upload.send(90_000);
    await upload.end();
    assertEquals((await upload.response).status, 400);
    assertEquals(front.requests(), 0);
  });
}

Deno.test({
  name: "fastCGIGateway({ root }) keeps long bodies in memory without permission to write files",
  permissions: { net: true, read: true, write: false, env: true },
  async fn() {
    await using front = FEW_PROCESSES["fastCGIGateway({ root })"]({
      maxBufferedBody: 100_000,
    });
    const upload = new Upload(front.gateway);
    await upload.send(100_000);
    assertEquals(front.requests(), 0);
    assertEquals(await upload.end(), "100000 100000");
    const large = new Upload(front.gateway);
    large.send(100_001).catch(() => {});
    assertEquals((await large.response).status, 413);
    assertStringIncludes(
      front.log[0],
      "Cannot receive request body as it must have at most 100000 bytes in memory, as no file can be written in ",
    );
    assertEquals(front.requests(), 1);
  },
});

Deno.test("scgiGateway() counts the bytes of bodies without a length that wait", async () => {
  await using front = toSCGI({ maxBufferedTotal: 200_000 });
  const [one, two] = [new Upload(front.gateway), new Upload(front.gateway)];
  await one.send(150_000);
  two.send(90_000).catch(() => {});
  assertEquals((await two.response).status, 503);
  assertEquals(front.requests(), 0);
  assertEquals(await one.end(), "150000 ");
});

/** The gateways, with the option. */
const BUFFERING: Record<string, (options: Options) => Front> = {
  "cgiGateway()": toCGI,
  "fastCGIGateway()": toFastCGI,
  "fastCGIGateway({ root })": (options) => toFastCGI({ root: "/srv/www", ...options }),
  "scgiGateway()": toSCGI,
};

/** Resolves when the application has got a request. */
async function called(front: Front): Promise<void> {
  await eventually("the application's request", () => front.requests() > 0);
}

for (const [name, start] of Object.entries(BUFFERING)) {
  Deno.test(`${name} calls the application before a long body is complete with bufferBody: false`, async () => {
    await using front = start({ bufferBody: false });
    const upload = new Upload(front.gateway, 100_000);
    await upload.send(1000);
    await called(front);
    await upload.fail();
  });

  Deno.test(`${name} receives the whole body first with bufferBody: true`, async () => {
    await using front = start({ bufferBody: true });
    const upload = new Upload(front.gateway, 100_000);
    await upload.send(90_000);
    await get(front.gateway);
    assertEquals(front.requests(), 1);
    await upload.send(10_000);
    assertStringIncludes(await upload.end(), "100000 ");
  });
}

Deno.test("fastCGIGateway({ root }) streams with needsLength: false", async () => {
  await using front = toFastCGI({ root: "/srv/www", needsLength: false });
  const upload = new Upload(front.gateway);
  await upload.send(1000);
  await called(front);
  await upload.fail();
});

Deno.test("fastCGIGateway({ root }) ends an upload that waits when the application responds without it", async () => {
  await using application = new Application(async (peer) => {
    await peer.until("variables", ({ variables }) => variables.size > 0);
    await peer.stdout("Content-Length: 2\r\n" + OK + "no");
    // It reads no further, and the gateway closes the connection.
    await peer.until("the abort", ({ aborted }) => aborted);
  });
  using gateway = fastCGIGateway(application.address, {
    root: "/srv/www",
    checkFiles: false,
    maxBufferedTotal: 20_000_000,
    log: () => {},
  });
  for (let i = 0; i < 3; i++) {
    const upload = new Upload(gateway);
    await upload.send(15_000_000);
    assertEquals(await upload.end(), "no");
  }
});
