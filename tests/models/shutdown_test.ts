/**
 * `shutdown()` at each step of a request, over each protocol of a daemon: before each promise that settles while the
 * request arrives, the app runs, and the response is sent. A request that has begun gets its whole response, one that has
 * not gets nothing, and the server ends. So behind nginx and HAProxy, whose kept connections are closed in ways of their own (rule
 * C31), also if they do nothing about it. In time that is simulated.
 *
 * It assumes that the steps between two events of a socket are promises, as in-memory connections have them; of nginx and
 * HAProxy that they send no request after what announces the close. Over HTTP it is `Deno.serve` that shuts down.
 */
import { assert, assertEquals } from "@std/assert";
import type { App } from "../../bridge/app.ts";
import { type Daemon, DAEMONS, type Peer, serving } from "../testing/daemons.ts";
import { text } from "../testing/bytes.ts";
import { VirtualTime } from "../testing/virtual_time.ts";

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

/** The web servers on a kept connection, by SERVER_SOFTWARE. */
const KEEPERS = ["Apache/2.4.71", "nginx/1.22.1", "HAProxy"];
/** Longer than a server waits for a web server to close a connection. */
const LONG = 20_000;

async function step(count: number): Promise<void> {
  for (let done = 0; done < count; done++) await null;
}

/** Shuts down after some steps. @returns Whether the exchange was over before. */
async function shutdownAfter(
  daemon: Daemon,
  app: App,
  steps: number,
  keeper: string | undefined,
): Promise<boolean> {
  using time = new VirtualTime();
  const settled = async <T>(promise: Promise<T>, label: string): Promise<T> => {
    let isSettled = false;
    const end = () => isSettled = true;
    promise.then(end, end);
    await time.run(time.now + LONG, promise);
    assert(isSettled, `${label}: not within ${LONG} ms`);
    return await promise;
  };
  let over = false;
  await serving(daemon, app, { shutdownTimeout: LONG }, async ({ connect, server, logged }) => {
    const client: Peer = await connect();
    const [head, ...rest] = keeper !== undefined
      ? [daemon.request("Hello", { SERVER_SOFTWARE: keeper }, true)]
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
    const received = await settled(response, "the response, or the end of the connection");
    over = wasOver;
    if (received !== undefined) {
      assertEquals([received.status, text(received.body)], [200, "Hello"]);
      if (daemon.keeps) assert(received.complete);
    } else {
      assert(client.silent, "a part of a response");
    }
    await settled(client.end(), "the end of the connection");
    await settled(ended, "the server's end");
    assertEquals(logged, []);
  });
  return over;
}

for (const daemon of DAEMONS) {
  for (const keeper of daemon.keeps ? [...KEEPERS, undefined] : [undefined]) {
    for (const [name, app] of Object.entries(APPS)) {
      const kept = keeper === undefined ? "" : ` on a connection that ${keeper} keeps`;
      Deno.test(`${daemon.name}: shutdown() at each step of a request whose response is ${name}${kept}`, async () => {
        let steps = 0;
        while (!await shutdownAfter(daemon, app, steps, keeper)) steps++;
        assert(steps < MOST && steps > 5, `${steps} steps`);
      });
    }
  }
}
