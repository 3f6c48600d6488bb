/**
 * `shutdown()` at each step of a request, over each protocol of a daemon: before each promise that settles while the
 * request arrives, the app runs, and the response is sent. A request that has begun gets its whole response, one that has
 * not gets nothing, and the server ends.
 *
 * It assumes that the steps between two events of a socket are promises, as in-memory connections have them.
 */
import { assert, assertEquals } from "@std/assert";
import type { App } from "../../bridge/app.ts";
import { type Daemon, DAEMONS, type Peer, serving } from "../testing/daemons.ts";
import { deadline } from "../testing/deadline.ts";
import { text } from "../testing/bytes.ts";

const APPS: Record<string, App> = {
  "a text": () => new Response("Hello"),
  "the body of the request": async (request) => new Response(await request.text()),
  "a stream": (request) => new Response(request.body),
  "a late response": async () => {
    await new Promise<void>((resolve) => queueMicrotask(resolve));
    return new Response("Hello");
  },
};
/** More steps than any of these exchanges has. */
const MOST = 200;

async function step(count: number): Promise<void> {
  for (let done = 0; done < count; done++) await null;
}

/** Shuts down after some steps. @returns Whether the exchange was over before. */
async function shutdownAfter(
  daemon: Daemon,
  app: App,
  steps: number,
  keep: boolean,
): Promise<boolean> {
  let over = false;
  await serving(daemon, app, {}, async ({ connect, server, logged }) => {
    const client: Peer = await connect();
    const [head, ...rest] = keep
      ? [daemon.request("Hello", {}, true)]
      : [daemon.head(5), daemon.part(new TextEncoder().encode("Hello")), daemon.bodyEnd];
    const exchange = async () => {
      await client.send(head, ...rest);
      const response = await client.response();
      over = true;
      return response;
    };
    const response = exchange().catch(() => undefined);
    await step(steps);
    const wasOver = over;
    const ended = server.shutdown();
    const received = await deadline(response, "the response, or the end of the connection");
    over = wasOver;
    if (received !== undefined) {
      assertEquals([received.status, text(received.body)], [200, "Hello"]);
      if (daemon.keeps) assert(received.complete);
    } else {
      assert(client.silent, "a part of a response");
    }
    await deadline(client.end(), "the end of the connection");
    await deadline(ended, "the server's end");
    assertEquals(logged, []);
  });
  return over;
}

for (const daemon of DAEMONS) {
  for (const keep of daemon.keeps ? [true, false] : [false]) {
    for (const [name, app] of Object.entries(APPS)) {
      const kept = keep ? " on a kept connection" : "";
      Deno.test(`${daemon.name}: shutdown() at each step of a request whose response is ${name}${kept}`, async () => {
        let steps = 0;
        while (!await shutdownAfter(daemon, app, steps, keep)) steps++;
        assert(steps < MOST && steps > 5, `${steps} steps`);
      });
    }
  }
}
