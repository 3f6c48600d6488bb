/** When a response's body is not needed to its end, it is cancelled as under `Deno.serve`: not before a macrotask. */
import { assertEquals } from "@std/assert";
import process from "node:process";
import type { App } from "../../bridge/app.ts";
import { serveCGI } from "../../cgi.ts";
import { fastCGIGateway } from "../../gateway.ts";
import { bytes } from "../testing/bytes.ts";
import { deadline } from "../testing/deadline.ts";
import { serving } from "../testing/fastcgi_serving.ts";
import { request as requestBytes } from "../testing/fastcgi_client.ts";
import { IN_PROCESS, overDenoServe } from "./transports.ts";

/** A body, and what happens to it in order: "enqueue" or the error that it throws, "close" or its error, "cancel". */
class Recorded {
  readonly events: string[] = [];
  /** Resolves when the body was cancelled or closed. */
  readonly over: Promise<void>;
  readonly #over = Promise.withResolvers<void>();
  #controller!: ReadableStreamDefaultController<Uint8Array>;

  constructor() {
    this.over = this.#over.promise;
  }

  /** @param start Called when it starts. @param pull Called when it is read. */
  stream(start: () => void, pull?: () => void): ReadableStream<Uint8Array> {
    return new ReadableStream({
      start: (controller) => {
        this.#controller = controller;
        start();
      },
      pull,
      cancel: () => {
        this.events.push("cancel");
        this.#over.resolve();
      },
    });
  }

  #try(name: string, act: () => void): void {
    try {
      act();
      this.events.push(name);
    } catch (error) {
      this.events.push(String(error));
    }
  }

  enqueue(chunk: string | Uint8Array): void {
    const part = typeof chunk === "string" ? bytes(chunk) : chunk;
    this.#try("enqueue", () => this.#controller.enqueue(part));
  }

  close(): void {
    this.#try("close", () => this.#controller.close());
    this.#over.resolve();
  }
}

const HEAD = { method: "HEAD", target: "/", headers: [] };

/** Returns a function for the next tick. */
const inNextTick = (act: () => void) => () => process.nextTick(act);

for (const [name, start] of Object.entries({ ...IN_PROCESS, "Deno.serve": overDenoServe })) {
  Deno.test(`${name}: an app may close the body of HEAD in the next tick (rule B12)`, async () => {
    const body = new Recorded();
    await using over = start(() => new Response(body.stream(inNextTick(() => body.close()))));
    assertEquals((await over.send(HEAD)).status, 200);
    await deadline(body.over, "the end of the body");
    assertEquals(body.events, ["close"]);
  });

  Deno.test(`${name}: the body of HEAD is cancelled (rule B12)`, async () => {
    const body = new Recorded();
    await using over = start(() => new Response(body.stream(() => {})));
    assertEquals((await over.send(HEAD)).status, 200);
    await deadline(body.over, "the cancelling of the body");
    assertEquals(body.events, ["cancel"]);
  });
}

/** Returns an app that ends its body in the tick after its client has left. */
function endsAfterAbort(body: Recorded): App {
  return (request) => {
    request.signal.addEventListener(
      "abort",
      inNextTick(() => {
        body.enqueue("late");
        body.close();
      }),
    );
    return new Response(body.stream(() => body.enqueue("early")));
  };
}

Deno.test("an app may end a body in the tick after its client has left", async () => {
  const body = new Recorded();
  await serving(endsAfterAbort(body), {}, async ({ connect }) => {
    const client = await connect();
    await client.send(requestBytes());
    await client.next("the head");
    client.close();
    await deadline(body.over, "the end of the body");
    assertEquals(body.events, ["enqueue", "enqueue", "close"]);
  });
});

Deno.test("an app may end a body in the tick after a script's client has left (rule B22)", async () => {
  const body = new Recorded();
  const write = () => {
    throw new Deno.errors.BrokenPipe();
  };
  await serveCGI(endsAfterAbort(body), {
    env: { REQUEST_METHOD: "GET", SERVER_NAME: "localhost" },
    stdout: { writeSync: write, write: () => Promise.reject(write) },
  });
  await deadline(body.over, "the end of the body");
  assertEquals(body.events, ["enqueue", "enqueue", "close"]);
});

const UNSENDABLE: Record<string, ResponseInit> = {
  "is longer than its length": { headers: { "content-length": "3" } },
  "cannot be sent": { headers: { "x-a": "\x01" } },
};

for (const [name, init] of Object.entries(UNSENDABLE)) {
  Deno.test(`an app may end a body that ${name} in the next tick (rules B9, B11)`, async () => {
    const body = new Recorded();
    const app = () => {
      process.nextTick(() => body.close());
      return new Response(body.stream(() => body.enqueue("long")), init);
    };
    await serving(app, {}, async ({ connect }) => {
      const client = await connect();
      await client.send(requestBytes());
      await client.response();
      await deadline(body.over, "the end of the body");
      assertEquals(body.events, ["enqueue", "close"]);
    });
  });
}

Deno.test("a body whose first chunk is no Uint8Array is cancelled (rule B17)", async () => {
  const body = new Recorded();
  const app = () => new Response(body.stream(() => body.enqueue(1 as never)));
  await serving(app, {}, async ({ connect }) => {
    const client = await connect();
    await client.send(requestBytes());
    assertEquals((await client.response()).status, 500);
    await deadline(body.over, "the cancelling of the body");
    assertEquals(body.events, ["enqueue", "cancel"]);
  });
});

Deno.test("a gateway's caller may close the body of a request that is refused in the next tick", async () => {
  const body = new Recorded();
  const request = new Request("http://localhost/", {
    method: "POST",
    body: body.stream(
      () => body.enqueue("long"),
      // Called when the gateway has read the first chunk.
      inNextTick(() => body.close()),
    ),
  });
  using gateway = fastCGIGateway("127.0.0.1:1", { maxBodyBytes: 3, log: () => {} });
  assertEquals((await gateway(request)).status, 413);
  await deadline(body.over, "the end of the body");
  assertEquals(body.events, ["enqueue", "close"]);
});
