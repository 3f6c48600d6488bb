/** With `slowLog`, a request that takes long is logged while it runs, over every transport. */
import { assertEquals, assertMatch } from "@std/assert";
import type { App, Handler } from "../../bridge/app.ts";
import { serveFastCGI } from "../../fastcgi.ts";
import { Role } from "../../wire/fastcgi.ts";
import { bytes, text } from "../testing/bytes.ts";
import { StoppedClock } from "../testing/clock.ts";
import { deadline } from "../testing/deadline.ts";
import { FastCGIClient, request as requestBytes } from "../testing/fastcgi_client.ts";
import { silence } from "../testing/silence.ts";
import { type ClientRequest, IN_PROCESS, type Options } from "./transports.ts";

const get: ClientRequest = {
  method: "GET",
  target: "/a%0Ab?token=secret",
  headers: [["X-Request-Id", "id-1"]],
};

/** Another request, whose line is logged after that of an earlier one would be. */
const later: ClientRequest = {
  method: "GET",
  target: "/later",
  headers: [["X-Request-Id", "id-2"]],
};

/** Options, and a wait until slowness was logged. */
class Slow implements Options {
  readonly slowLog = 20;
  readonly logged: string[] = [];
  #said = Promise.withResolvers<void>();

  readonly log = (message: string): void => {
    this.logged.push(message);
    this.#said.resolve();
    this.#said = Promise.withResolvers();
  };

  /** Waits until the slowness of a request was logged. */
  async said(id = "id-1"): Promise<void> {
    while (!this.logged.some((line) => line.startsWith(`Slow request ${id}`))) {
      await deadline(this.#said.promise, `the line of ${id}`);
    }
  }
}

const LINE = /^Slow request id-1: GET \/a%0Ab has run for \d+\.\d s, and (.*)$/;
const LATER = /^Slow request id-2: GET \/later has run for/;

for (const [transport, start] of Object.entries(IN_PROCESS)) {
  Deno.test(`${transport}: slowLog logs a request whose app has not responded, once`, async () => {
    const slow = new Slow();
    await using over = start(async () => {
      await slow.said("id-2");
      return new Response("done");
    }, { ...slow, log: slow.log });
    const first = over.send(get);
    await slow.said();
    const second = over.send(later);
    for (const { body } of await Promise.all([first, second])) assertEquals(text(body), "done");
    assertEquals(slow.logged.length, 2, slow.logged.join("\n"));
    assertEquals(LINE.exec(slow.logged[0])?.[1], "the app has not responded");
    assertMatch(slow.logged[1], LATER);
  });

  Deno.test(`${transport}: slowLog logs a request whose response is being sent`, async () => {
    const slow = new Slow();
    const app = () =>
      new Response(
        new ReadableStream({
          async pull(controller) {
            await slow.said();
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
    const apps: Handler[] = [
      () => new Response("sync"),
      () => Promise.resolve(new Response("async")),
      () => Promise.reject(new Error("broken")),
      () => {
        throw new Error("broken");
      },
    ];
    for (const app of apps) {
      const slow = new Slow();
      // Until the later request runs, so that a busy machine makes no request slow.
      using clock = new StoppedClock();
      let completed: Promise<void>;
      const respondLate = async () => {
        await completed.catch(() => {});
        const passing = setInterval(() => clock.advance(1), 1);
        await slow.said("id-2");
        clearInterval(passing);
        return new Response("late");
      };
      const fetch: Handler = (request, info) => {
        if (info.requestId === "id-2") return respondLate();
        completed = info.completed;
        return app(request, info);
      };
      await using over = start({ fetch }, { ...slow, log: slow.log });
      await over.send(get);
      assertEquals(text((await over.send(later)).body), "late");
      const lines = slow.logged.filter((line) => line.startsWith("Slow"));
      assertEquals(lines.length, 1, lines.join("\n"));
      assertMatch(lines[0], LATER);
    }
  });
}

Deno.test("slowLog logs requests in the role of an authorizer, too", async () => {
  const slow = new Slow();
  const app: App = {
    fetch: () => new Response(),
    async authorize() {
      await slow.said("");
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
