/** The app of each load, for all peers on Deno. The peers in other languages do the same by path. */

type App = (request: Request) => Response | Promise<Response>;

const CHUNK = new Uint8Array(65536).fill(0x78);
const EVERY = 100;

const listeners = new Set<ReadableStreamDefaultController<Uint8Array>>();
const encoder = new TextEncoder();
let events = 0;

/** Sends one event to all listeners. The load generator counts the tildes. */
function publish(): void {
  const event = encoder.encode(`data: ${events++} ~\n\n`);
  for (const listener of listeners) listener.enqueue(event);
}

export const apps: Record<string, App> = {
  hello: () => new Response("Hello, world"),

  /** Computes for a millisecond. */
  compute() {
    const end = performance.now() + 1;
    while (performance.now() < end);
    return new Response("computed");
  },

  headers(request) {
    let length = 0;
    request.headers.forEach((value, name) => length += name.length + value.length);
    const headers = new Headers({ "content-type": "text/plain" });
    for (let i = 1; i <= 19; i++) headers.set(`x-field-${i}`, `the value of header ${i}`);
    for (let i = 1; i <= 3; i++) headers.append("set-cookie", `c${i}=0123456789abcdef; Path=/`);
    return new Response(`${length > 900}`, { headers });
  },

  async echo(request) {
    return new Response(await request.bytes());
  },

  /** Reads into one buffer, as `io.Copy` does in Go and `FCGX_GetStr` in C. */
  async upload(request) {
    let length = 0;
    const reader = request.body!.getReader({ mode: "byob" });
    let part = await reader.read(new Uint8Array(65536));
    while (!part.done) {
      length += part.value.length;
      part = await reader.read(new Uint8Array(part.value.buffer));
    }
    return new Response(`${length}`);
  },

  async chunks(request) {
    let length = 0;
    for await (const chunk of request.body!) length += chunk.length;
    return new Response(`${length}`);
  },

  /** Writes the body to a file. */
  async file(request) {
    const path = await Deno.makeTempFile({ prefix: "gatehouse-bench-upload-" });
    try {
      const file = await Deno.open(path, { write: true });
      await request.body!.pipeTo(file.writable);
      return new Response(`${(await Deno.stat(path)).size}`);
    } finally {
      await Deno.remove(path);
    }
  },

  async form(request) {
    const file = (await request.formData()).get("file") as File;
    return new Response(`${file.size}`);
  },

  download(request) {
    let left = Number(new URL(request.url).searchParams.get("bytes"));
    return new Response(
      new ReadableStream({
        pull(controller) {
          controller.enqueue(left < CHUNK.length ? CHUNK.subarray(0, left) : CHUNK);
          left -= CHUNK.length;
          if (left <= 0) controller.close();
        },
      }),
    );
  },

  events() {
    if (events === 0) setInterval(publish, EVERY);
    events++;
    let own: ReadableStreamDefaultController<Uint8Array>;
    const stream = new ReadableStream<Uint8Array>({
      start: (controller) => void listeners.add(own = controller),
      cancel: () => void listeners.delete(own),
    });
    return new Response(stream, { headers: { "content-type": "text/event-stream" } });
  },
};

/** Returns an app by its name. That of Hono is in a file of its own, which few loads need. */
export async function appOf(name: string): Promise<App> {
  if (name !== "hono") return apps[name];
  const { default: { fetch } } = await import("./hono.ts");
  return (request) => fetch(request);
}

/** On SIGUSR1 prints the memory usage after a garbage collection. Needs `--v8-flags=--expose-gc`. */
export function reportMemory(): void {
  const { gc } = globalThis as { gc?: () => void };
  if (gc === undefined) return;
  Deno.addSignalListener("SIGUSR1", () => {
    gc();
    gc();
    console.log(JSON.stringify(Deno.memoryUsage()));
  });
}
