/** A CGI script for tests: its path selects what it does. */
import { serveCGI } from "../../cgi.ts";

const ABORTED = new TextEncoder().encode("aborted\n");

/** Returns a stream of `count` chunks of `size` bytes. */
function pieces(count: number, size: number): ReadableStream<Uint8Array> {
  return new ReadableStream({
    pull(controller) {
      if (count-- === 0) controller.close();
      else controller.enqueue(new Uint8Array(size).fill(120));
    },
  }, { highWaterMark: 0 });
}

/** Splits the chunks of a stream into small ones. */
function small(): TransformStream<Uint8Array, Uint8Array> {
  return new TransformStream({
    transform(chunk, controller) {
      for (let at = 0; at < chunk.length; at += 1000) {
        controller.enqueue(chunk.subarray(at, at + 1000));
      }
    },
  });
}

await serveCGI(async (request, info) => {
  switch (info.pathInfo) {
    case "/echo":
      return new Response(request.body);
    case "/echo-small":
      return new Response(request.body!.pipeThrough(small()));
    case "/length":
      return new Response(String((await request.bytes()).length));
    case "/unread":
      return new Response(pieces(1000, 10_000));
    case "/begun": {
      const reader = request.body!.getReader();
      await reader.read();
      reader.read().catch(() => {});
      return new Response("enough", { status: 413 });
    }
    case "/console": {
      const methods = console as unknown as Record<string, (...args: unknown[]) => void>;
      const { debug, info, log, warn, error, table, dir, dirxml, trace } = methods;
      for (const method of [debug, info, log, warn, error, table, dir, dirxml, trace]) {
        method("corrupted");
      }
      console.assert(false, "corrupted");
      console.count("corrupted");
      console.count("corrupted");
      console.countReset("corrupted");
      console.time("corrupted");
      console.timeLog("corrupted");
      console.timeEnd("corrupted");
      console.group("corrupted");
      console.groupEnd();
      console.groupCollapsed("corrupted");
      console.groupEnd();
      console.clear();
      return new Response("clean");
    }
    case "/throw":
      throw new Error("the secret");
    case "/break":
      return new Response(
        new ReadableStream({
          start: (controller) => controller.enqueue(new Uint8Array(3).fill(120)),
          async pull(controller) {
            await new Promise((resolve) => setTimeout(resolve, 0));
            controller.error(new Error("broken"));
          },
        }, { highWaterMark: 0 }),
      );
    case "/endless":
      request.signal.addEventListener("abort", () => Deno.stderr.writeSync(ABORTED));
      return new Response(pieces(Infinity, 1000));
    case "/proxy":
      return Response.json([
        Deno.env.has("HTTP_PROXY"),
        info.variables.has("HTTP_PROXY"),
        request.headers.has("proxy"),
      ]);
    case "/arguments":
      return Response.json(request.url);
    case "/variables":
      return Response.json({
        url: request.url,
        cookie: request.headers.get("cookie"),
        variables: Object.fromEntries(info.variables),
      });
    default:
      return Response.json({
        url: request.url,
        script: info.scriptName,
        path: info.pathInfo,
        protocol: info.protocol,
      });
  }
});
