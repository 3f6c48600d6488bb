/**
 * The server that soak.ts tests: an app, and what it leaves behind. On Node and Bun it is a program of its own:
 * `node --expose-gc scripts/soak_app.ts` prints its port, and serves its state.
 */
import { listen, serveFastCGI } from "../fastcgi.ts";

/** How many bytes the app responds with for the path `/large`. */
export const LARGE = 300_000;

/** The handlers that were called, and that have settled. */
export const handlers = { started: 0, settled: 0 };

/** Called when the app gets the request with a number. */
export const waiting: Map<string, () => void> = new Map();

/** Waits for a turn of the event loop. */
export const turn = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, 0));

/** The state of a server in another process. */
export interface State {
  started: number;
  settled: number;
  descriptors: number;
  heap: number;
  /** The resident memory, in bytes. */
  resident: number;
}

export async function app(request: Request): Promise<Response> {
  handlers.started++;
  try {
    const { pathname, search } = new URL(request.url);
    switch (pathname) {
      case "/echo":
        return new Response(await request.bytes());
      case "/pipe":
        return new Response(request.body);
      case "/large":
        return new Response(new Uint8Array(LARGE));
      case "/stream": {
        let left = 5;
        return new Response(
          new ReadableStream({
            async pull(controller) {
              await turn();
              if (left-- === 0) controller.close();
              else controller.enqueue(new Uint8Array(1000));
            },
          }),
        );
      }
      case "/throws":
        throw new Error("thrown");
      case "/wait":
        waiting.get(search.slice(1))?.();
        waiting.delete(search.slice(1));
        if (!request.signal.aborted) {
          await new Promise((resolve) => request.signal.addEventListener("abort", resolve));
        }
        return new Response("aborted");
      default:
        return new Response("ok");
    }
  } finally {
    handlers.settled++;
  }
}

/** Serves the app on Node or Bun, and its state, after a garbage collection if the query asks for it. */
async function serve(): Promise<void> {
  const { Bun, gc, process } = globalThis as unknown as {
    Bun?: { gc(sync: boolean): void };
    gc?: () => void;
    process: {
      memoryUsage(): { heapUsed: number; external: number; rss: number };
      getBuiltinModule(name: "node:fs"): { readdirSync(path: string): string[] };
    };
  };
  const state = async (collect: boolean): Promise<State> => {
    for (let i = 0; collect && i < 5; i++) {
      await turn();
      if (Bun === undefined) gc!();
      else Bun.gc(true);
    }
    const { heapUsed, external, rss } = process.memoryUsage();
    const descriptors = process.getBuiltinModule("node:fs").readdirSync("/proc/self/fd").length;
    return { ...handlers, descriptors, heap: heapUsed + external, resident: rss };
  };
  const listener = await listen("127.0.0.1:0");
  serveFastCGI(
    async (request) => {
      const { pathname, search } = new URL(request.url);
      return pathname === "/state" ? Response.json(await state(search === "?gc")) : app(request);
    },
    listener,
    { log() {}, logTo: "log" },
  );
  console.log(JSON.stringify(listener.addr));
}

if (!("Deno" in globalThis)) await serve();
