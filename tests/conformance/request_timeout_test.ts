/** With `requestTimeout`, an app that takes too long gets its client a 503, over every transport. */
import { assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import type { App, CompletedRequest } from "../../bridge/app.ts";
import { type CGIInput, serveCGI } from "../../cgi.ts";
import { serveFastCGI } from "../../fastcgi.ts";
import { serveHTTP } from "../../http.ts";
import { serveSCGI } from "../../scgi.ts";
import { encodeSCGIHeaders } from "../../wire/scgi.ts";
import { bytes, concat, text } from "../testing/bytes.ts";
import { deadline } from "../testing/deadline.ts";
import { variables } from "../testing/fastcgi_client.ts";
import { beginRequest, params, stdin, stdinEnd } from "../testing/fastcgi_records.ts";
import { turns } from "../testing/serving.ts";
import { type ClientRequest, IN_PROCESS, type Options } from "./transports.ts";

const get: ClientRequest = { method: "GET", target: "/slow?token=abc", headers: [] };

/** Waits until a request's signal aborts, and returns the reason. */
function aborted({ signal }: Request): Promise<unknown> {
  return new Promise((resolve) => {
    signal.addEventListener("abort", () => resolve(signal.reason));
  });
}

/** Collects what options get. */
class Recorded implements Options {
  readonly requestTimeout = 1;
  readonly logged: string[] = [];
  readonly ends: CompletedRequest[] = [];
  readonly errors: unknown[] = [];

  readonly log = (message: string): void => void this.logged.push(message);
  readonly onCompleted = (completed: CompletedRequest): void => void this.ends.push(completed);
  readonly onError = (error: unknown): Response => {
    this.errors.push(error);
    return new Response("onError");
  };
}

for (const [transport, start] of Object.entries(IN_PROCESS)) {
  for (const method of ["GET", "HEAD", "POST"]) {
    Deno.test(`${transport}: an app that takes longer than requestTimeout gets 503 sent for it: ${method}`, async () => {
      const recorded = new Recorded();
      const reason = Promise.withResolvers<unknown>();
      const cancelled = Promise.withResolvers<unknown>();
      const completed = Promise.withResolvers<void>();
      const late = new ReadableStream({ cancel: cancelled.resolve });
      await using over = start(async (request, info) => {
        info.completed.then(completed.resolve, completed.reject);
        reason.resolve(await aborted(request));
        return new Response(late);
      }, recorded);
      const body = method === "POST" ? { body: bytes("body") } : {};
      const response = await over.send({ ...get, method, ...body });
      assertEquals(
        [response.status, response.headers.get("content-type"), text(response.body)],
        [503, "text/plain;charset=UTF-8", method === "HEAD" ? "" : "503 Service Unavailable\n"],
      );
      const message = "The app must respond within 1 ms (requestTimeout): it has not";
      const { name, message: why } = await deadline(reason.promise, "the signal") as DOMException;
      assertEquals([name, why], ["TimeoutError", message]);
      assertEquals(await deadline(cancelled.promise, "the body's end"), await reason.promise);
      await deadline(completed.promise, "info.completed");
      await turns();
      assertEquals(recorded.ends.map(({ status, request }) => [status, request?.url]), [
        [503, "http://example.org:8080/slow?token=abc"],
      ]);
      assertEquals(recorded.errors, []);
      assertEquals(recorded.logged, [`Responded with 503 to ${method} /slow. ${message}`]);
    });
  }

  Deno.test(`${transport}: a body cannot be read once requestTimeout is over`, async () => {
    const reads = ["text", "stream", "form data", "own request"];
    await Promise.all(reads.map(async (how) => {
      const recorded = new Recorded();
      const read = Promise.withResolvers<unknown>();
      await using over = start(async (request) => {
        await aborted(request);
        const failed = assertRejects(async () => {
          if (how === "text") await request.text();
          else if (how === "stream") await request.body!.getReader().read();
          else if (how === "form data") await request.formData();
          else await new Request(request).text();
        });
        read.resolve(await failed);
        await failed;
        throw await failed;
      }, recorded);
      const response = await over.send({
        method: "POST",
        target: "/",
        headers: [["Content-Type", "application/x-www-form-urlencoded"]],
        body: bytes("a=b"),
      });
      assertEquals(response.status, 503);
      assertEquals((await deadline(read.promise, how) as Error).name, "TimeoutError", how);
      await turns();
      assertEquals([recorded.logged.length, recorded.errors], [1, []], how);
    }));
  });

  Deno.test(`${transport}: what a late app throws is logged, unless it is the reason`, async () => {
    const recorded = new Recorded();
    const thrown = Promise.withResolvers<void>();
    await using over = start(async (request) => {
      const reason = await aborted(request);
      thrown.resolve();
      throw request.url.endsWith("/reason") ? reason : new Error("the database is away");
    }, recorded);
    assertEquals((await over.send({ ...get, target: "/reason" })).status, 503);
    await turns();
    assertEquals(recorded.logged.length, 1);
    assertEquals((await over.send(get)).status, 503);
    await deadline(thrown.promise, "the app's end");
    await turns();
    assertEquals([recorded.logged.length, recorded.errors], [3, []]);
    assertStringIncludes(recorded.logged[2], "the database is away");
  });

  Deno.test(`${transport}: requestTimeout applies to onError, too`, async () => {
    const cancelled = Promise.withResolvers<void>();
    await using over = start(() => {
      throw new Error("expected");
    }, {
      requestTimeout: 1,
      log() {},
      onError: async (_error, request) => {
        await aborted(request);
        return new Response(new ReadableStream({ cancel: () => cancelled.resolve() }));
      },
    });
    assertEquals((await over.send(get)).status, 503);
    await deadline(cancelled.promise, "the body's end");
  });

  Deno.test(`${transport}: requestTimeout does not cut a response that has begun`, async () => {
    const gate = Promise.withResolvers<void>();
    let signal: AbortSignal | undefined;
    const app: App = async (request) => {
      if (request.url.includes("/slow")) {
        await aborted(request);
        return new Response();
      }
      signal = request.signal;
      return new Response(
        new ReadableStream({
          start: (controller) => controller.enqueue(bytes("one ")),
          async pull(controller) {
            await gate.promise;
            assertEquals(signal!.aborted, false);
            controller.enqueue(bytes("two"));
            controller.close();
          },
        }, { highWaterMark: 0 }),
      );
    };
    await using over = start(app, { requestTimeout: 1, log() {} });
    const streamed = over.send({ ...get, target: "/stream" });
    // The time of the stream is over, too, once that of later requests is.
    for (let i = 0; i < 2; i++) assertEquals((await over.send(get)).status, 503);
    gate.resolve();
    const { status, body } = await streamed;
    assertEquals([status, text(body)], [200, "one two"]);
  });
}

interface Upload extends AsyncDisposable {
  finish(): Promise<string>;
}
type Begin = (app: App, options: Options) => Promise<Upload>;

const pairs = variables({ REQUEST_METHOD: "POST", CONTENT_LENGTH: "8" });
const head = "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 8\r\n\r\n";

/** Begins an upload over a connection. `finish` sends the rest and returns all that comes. */
async function over(
  server: AsyncDisposable & { readonly addr: Deno.Addr },
  first: Uint8Array,
  rest: Uint8Array,
): Promise<Upload> {
  const { hostname, port } = server.addr as Deno.NetAddr;
  const conn = await Deno.connect({ hostname, port });
  await conn.write(first);
  return {
    async finish() {
      await conn.write(rest);
      const parts: Uint8Array[] = [];
      for await (const part of conn.readable) parts.push(part);
      return text(concat(parts));
    },
    [Symbol.asyncDispose]: () => server[Symbol.asyncDispose](),
  };
}

const listen = () => Deno.listen({ hostname: "127.0.0.1", port: 0 });

/** Begins an upload of "one two " to an app, with "one ". */
const UPLOADS: Record<string, Begin> = {
  CGI: (app, options) => {
    const rest = Promise.withResolvers<Uint8Array>();
    const parts: Promise<Uint8Array | null>[] = [Promise.resolve(bytes("one ")), rest.promise];
    const stdin: CGIInput = {
      async read(buffer) {
        const part = await (parts.shift() ?? null);
        if (part !== null) buffer.set(part);
        return part?.length ?? null;
      },
    };
    const written: Uint8Array[] = [];
    const stdout = {
      write(part: Uint8Array) {
        written.push(part.slice());
        return Promise.resolve(part.length);
      },
    };
    const env = { ...Object.fromEntries(pairs), GATEWAY_INTERFACE: "CGI/1.1" };
    const served = serveCGI(app, { ...options, env, stdin, stdout });
    return Promise.resolve({
      async finish() {
        rest.resolve(bytes("two "));
        await served;
        return text(concat(written));
      },
      [Symbol.asyncDispose]: () => Promise.resolve(),
    });
  },
  FastCGI: (app, options) =>
    over(
      serveFastCGI(app, listen(), options),
      concat([beginRequest(1), params(1, pairs), stdin(1, bytes("one "))]),
      concat([stdin(1, bytes("two ")), stdinEnd(1)]),
    ),
  SCGI: (app, options) =>
    over(
      serveSCGI(app, listen(), options),
      concat([
        encodeSCGIHeaders([["CONTENT_LENGTH", "8"], ["SCGI", "1"], ...pairs.slice(0, -1)]),
        bytes("one "),
      ]),
      bytes("two "),
    ),
  HTTP: (app, options) =>
    over(
      serveHTTP(app, { ...options, hostname: "127.0.0.1", port: 0, onListen() {} }),
      concat([bytes(head), bytes("one ")]),
      bytes("two "),
    ),
};

for (const [transport, begin] of Object.entries(UPLOADS)) {
  for (const how of ["text", "stream"]) {
    Deno.test(`${transport}: requestTimeout does not count while the app waits for the body: ${how}`, async () => {
      const waiting = Promise.withResolvers<void>();
      const app: App = async (request) => {
        const read = how === "text"
          ? request.text()
          : new Response(request.body!.pipeThrough(new TransformStream())).text();
        waiting.resolve();
        return new Response(await read);
      };
      const options = { requestTimeout: 1, log() {} };
      await using upload = await begin(app, options);
      await deadline(waiting.promise, "the app");
      const slow = IN_PROCESS[transport](() => new Promise(() => {}), options);
      await using _ = slow;
      for (let i = 0; i < 2; i++) assertEquals((await slow.send(get)).status, 503);
      assertStringIncludes(await deadline(upload.finish(), "the response"), "one two ");
    });
  }
}
