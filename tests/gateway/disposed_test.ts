/** A gateway that is disposed of refuses requests, and ends those in progress, whatever they wait for. */
import { assertEquals, assertStringIncludes } from "@std/assert";
import { cgiGateway, fastCGIGateway, type Gateway, scgiGateway } from "../../gateway.ts";
import { bytes } from "../testing/bytes.ts";
import { deadline } from "../testing/deadline.ts";
import { turns } from "../testing/serving.ts";

/** An application that counts its connections or processes, and a gateway to it. */
interface Front extends AsyncDisposable {
  gateway: Gateway;
  log: string[];
  /** The number of requests that have reached the application. */
  calls(): number;
}

function toDaemon(create: typeof fastCGIGateway | typeof scgiGateway): Promise<Front> {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const conns: Deno.Conn[] = [];
  const accepting = (async () => {
    for await (const conn of listener) conns.push(conn);
  })();
  const log: string[] = [];
  const gateway = create(`127.0.0.1:${listener.addr.port}`, {
    needsLength: true,
    log: (line: string) => log.push(line),
  });
  return Promise.resolve({
    gateway,
    log,
    calls: () => conns.length,
    async [Symbol.asyncDispose]() {
      gateway[Symbol.dispose]();
      listener.close();
      await accepting;
      for (const conn of conns) conn.close();
    },
  });
}

async function toScripts(): Promise<Front> {
  const folder = await Deno.makeTempDir();
  const script = `${folder}/script`;
  const text = `#!/bin/sh\ntouch "${folder}/called.$$"\nexec tail -f /dev/null\n`;
  await Deno.writeTextFile(script, text, { mode: 0o755 });
  const log: string[] = [];
  const gateway = cgiGateway({ script, log: (line) => log.push(line) });
  return {
    gateway,
    log,
    calls: () => [...Deno.readDirSync(folder)].length - 1,
    async [Symbol.asyncDispose]() {
      gateway[Symbol.dispose]();
      await Deno.remove(folder, { recursive: true });
    },
  };
}

const FRONTS: Record<string, () => Promise<Front>> = {
  cgiGateway: toScripts,
  fastCGIGateway: () => toDaemon(fastCGIGateway),
  scgiGateway: () => toDaemon(scgiGateway),
};

for (const [name, create] of Object.entries(FRONTS)) {
  Deno.test(`${name}() refuses requests once it is disposed of`, async () => {
    await using front = await create();
    front.gateway[Symbol.dispose]();
    front.gateway[Symbol.dispose]();
    const response = await deadline(
      front.gateway(new Request("http://localhost/")),
      "the response",
    );
    assertEquals(response.status, 503);
    await turns(3);
    assertEquals(front.calls(), 0);
    assertStringIncludes(front.log.join(), "the gateway was disposed of");
  });

  Deno.test(`${name}() passes no request on whose body it still receives when it is disposed of`, async () => {
    await using front = await create();
    const received = Promise.withResolvers<void>();
    const cancelled = Promise.withResolvers<void>();
    const body = new ReadableStream({
      pull(controller) {
        controller.enqueue(bytes("x"));
        received.resolve();
        return cancelled.promise;
      },
      cancel: () => cancelled.resolve(),
    }, { highWaterMark: 0 });
    const request = new Request("http://localhost/", { method: "POST", body });
    const response = front.gateway(request);
    await deadline(received.promise, "the gateway to read the body");
    front.gateway[Symbol.dispose]();
    assertEquals((await deadline(response, "the response")).status, 502);
    await deadline(cancelled.promise, "the cancelling of the body");
    await turns(3);
    assertEquals(front.calls(), 0);
    assertStringIncludes(front.log.join(), "the gateway was disposed of");
  });
}

Deno.test("a gateway logs that it truncates a response as it is disposed of", async () => {
  const folder = await Deno.makeTempDir();
  const script = `${folder}/script`;
  const text = "#!/bin/sh\nprintf 'Content-Type: text/plain\\n\\nsome'\nexec tail -f /dev/null\n";
  await Deno.writeTextFile(script, text, { mode: 0o755 });
  const log: string[] = [];
  const gateway = cgiGateway({ script, log: (line) => log.push(line) });
  const response = await deadline(gateway(new Request("http://localhost/")), "the response");
  const reader = response.body!.getReader();
  assertEquals((await deadline(reader.read(), "the first chunk")).value, bytes("some"));
  gateway[Symbol.dispose]();
  const failure = await deadline(reader.read().catch((error) => error), "the end of the body");
  assertStringIncludes(failure.message, "the gateway was disposed of");
  assertStringIncludes(log.join(), "the gateway was disposed of");
  await Deno.remove(folder, { recursive: true });
});
