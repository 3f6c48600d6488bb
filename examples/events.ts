#!/usr/bin/env -S deno run --allow-env --allow-net
/**
 * Server-sent events: the time, once a second, ten times. A browser then reconnects and sends the id of the
 * last event.
 *
 * Run `./examples/events.ts`, then `curl -N localhost:8000`. Behind a web server that buffers, see docs/servers.md.
 */
import { type Handler, serve } from "../mod.ts";

const EVENTS = 10;

const app: Handler = (request) => {
  const { searchParams } = new URL(request.url);
  const interval = Math.min(Number(searchParams.get("interval") ?? 1000) || 0, 60_000);
  const last = Number(request.headers.get("last-event-id")) || 0;
  let id = last;
  let timer: ReturnType<typeof setTimeout> | undefined;
  const events = new ReadableStream<string>({
    async pull(controller) {
      if (id > last) await new Promise((resolve) => timer = setTimeout(resolve, interval));
      controller.enqueue(`id: ${++id}\ndata: ${new Date().toISOString()}\n\n`);
      if (id === last + EVENTS) controller.close();
    },
    // The client has disconnected.
    cancel: () => clearTimeout(timer),
  }, { highWaterMark: 0 });
  return new Response(events.pipeThrough(new TextEncoderStream()), {
    headers: {
      "content-type": "text/event-stream",
      "cache-control": "no-store",
      // nginx would buffer them.
      "x-accel-buffering": "no",
    },
  });
};

export default app;
if (import.meta.main) await serve(app);
