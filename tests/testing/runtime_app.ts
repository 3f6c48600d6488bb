/** An app for tests on each runtime: its path selects what it does. */
import { serve } from "../../mod.ts";

const collectGarbage = (globalThis as { gc?: () => void }).gc ?? (() => {});

// A global of all runtimes. To import node:process would change how Node reads standard input.
const { process } = globalThis as unknown as {
  process: { memoryUsage(): { heapUsed: number } };
};
const memoryUsage = () => process.memoryUsage();

/** Waits for a turn of the event loop. */
const turn = () => new Promise((resolve) => setTimeout(resolve, 0));

/** Keeps the signal of a request, and nothing else of it. */
async function waitForAbort(signal: AbortSignal): Promise<void> {
  const aborted = new Promise((resolve) => signal.addEventListener("abort", resolve));
  for (let i = 0; i < 5; i++) {
    await turn();
    collectGarbage();
  }
  console.error("collected");
  await aborted;
  console.error("aborted");
}

await serve(async (request, info) => {
  const { signal } = request;
  switch (new URL(request.url).pathname) {
    case "/signal":
      request = undefined as never;
      await waitForAbort(signal);
      return new Response("late");
    case "/slow":
      console.error("begun");
      await new Promise((resolve) => setTimeout(resolve, 300));
      return new Response("finished");
    case "/echo":
      return new Response(await request.bytes());
    case "/pipe":
      return new Response(request.body);
    case "/switch":
      return new Response(null, { status: 101 });
    case "/no-content":
      return new Response("body", { status: 204 });
    case "/memory":
      for (let i = 0; i < 5; i++) {
        await turn();
        collectGarbage();
      }
      return Response.json(memoryUsage().heapUsed);
    case "/variables":
      return Response.json(Object.fromEntries(info.variables));
    default:
      console.log("a line");
      return Response.json([request.method, request.url, request.body !== null]);
  }
});
