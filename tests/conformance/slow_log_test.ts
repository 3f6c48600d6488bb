/** With `slowLog`, a request that takes long is logged while it runs, over every transport. */
import { assertEquals, assertMatch } from "@std/assert";
import type { App } from "../../bridge/app.ts";
import { serveFastCGI } from "../../fastcgi.ts";
import { Role } from "../../wire/fastcgi.ts";
import { bytes, text } from "../testing/bytes.ts";
import { deadline } from "../testing/deadline.ts";
import { FastCGIClient, request as requestBytes } from "../testing/fastcgi_client.ts";
import { silence } from "../testing/silence.ts";
import { type ClientRequest, IN_PROCESS, type Options } from "./transports.ts";

const get: ClientRequest = {
  method: "GET",
  target: "/a%0Ab?token=secret",
  headers: [["X-Request-Id", "id-1"]],
};

/** An app that responds, or ends its stream, once its slowness was logged. */
class Slow implements Options {
  readonly slowLog = 20;
  readonly logged: string[] = [];
  readonly said = Promise.withResolvers<void>();

  readonly log = (message: string): void => {
    this.logged.push(message);
    this.said.resolve();
  };

  get until(): Promise<void> {
    return deadline(this.said.promise, "the line");
  }
}

const LINE = /^Slow request id-1: GET \/a%0Ab has run for \d+\.\d s, and (.*)$/;

for (const [transport, start] of Object.entries(IN_PROCESS)) {
  Deno.test(`${transport}: slowLog logs a request whose app has not responded, once`, async () => {
    const slow = new Slow();
    await using over = start(async () => {
      await slow.until;
      // Some more ticks.
      await new Promise((resolve) => setTimeout(resolve, 60));
      return new Response("done");
    }, { ...slow, log: slow.log });
    assertEquals(text((await over.send(get)).body), "done");
    assertEquals(slow.logged.length, 1, slow.logged.join("\n"));
    assertMatch(slow.logged[0], LINE);
    assertEquals(LINE.exec(slow.logged[0])![1], "the app has not responded");
  });

  Deno.test(`${transport}: slowLog logs a request whose response is being sent`, async () => {
    const slow = new Slow();
    const app = () =>
      new Response(
        new ReadableStream({
          async pull(controller) {
            await slow.until;
            controller.enqueue(bytes("done"));
            controller.close();
          },
        }, { highWaterMark: 0 }),
      );
    await using over = start(app, { ...slow, log: slow.log });
    assertEquals(text((await over.send(get)).body), "done");
    assertEquals(slow.logged.map((line) => LINE.exec(line)?.[1]), ["its response is being sent"]);
  });

  Deno.test(`${transport}: slowLog logs nothing of requests that end before, nor of those that fail`, async () => {
    using _ = silence();
    const slow = new Slow();
    const apps: App[] = [
      () => new Response("sync"),
      () => Promise.resolve(new Response("async")),
      { fetch: () => Promise.reject(new Error("broken")) },
      () => {
        throw new Error("broken");
      },
    ];
    for (const app of apps) {
      await using over = start(app, { ...slow, log: slow.log });
      await over.send(get);
      await new Promise((resolve) => setTimeout(resolve, 60));
    }
    assertEquals(slow.logged.filter((line) => line.startsWith("Slow")), []);
  });
}

Deno.test("slowLog logs requests in the role of an authorizer, too", async () => {
  const slow = new Slow();
  const app: App = {
    fetch: () => new Response(),
    async authorize() {
      await slow.until;
      return new Response("no", { status: 403 });
    },
  };
  await using server = serveFastCGI(app, Deno.listen({ hostname: "127.0.0.1", port: 0 }), {
    ...slow,
    log: slow.log,
    logTo: "log",
  });
  const { port } = server.addr as Deno.NetAddr;
  using client = new FastCGIClient(await Deno.connect({ hostname: "127.0.0.1", port }));
  await client.send(requestBytes({ role: Role.authorizer, variables: { REQUEST_URI: "/a" } }));
  assertEquals((await client.response()).status, 403);
  assertMatch(slow.logged.join(), /^Slow request [\da-f-]+: GET \/a has run/);
});
