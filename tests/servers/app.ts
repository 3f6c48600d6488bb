/** The app that runs behind every server: as a CGI script, as a daemon, and spawned by the server. */
import type { HandlerInfo } from "../../bridge/app.ts";

const encoder = new TextEncoder();

const routes: Record<
  string,
  (request: Request, info: HandlerInfo) => Response | Promise<Response>
> = {
  "/hello": () => new Response("Hello\n"),
  "/echo": async (request) => new Response(await request.bytes()),
  "/pipe": (request) => new Response(request.body),
  "/sum": async (request) => {
    const bytes = await request.bytes();
    const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
    const declared = request.headers.get("content-length");
    return Response.json({ length: bytes.length, sha256: digest.toHex(), declared });
  },
  "/stream": async (request) => {
    const witness = await callWitness(request);
    return new Response(
      new ReadableStream({
        async start(controller) {
          controller.enqueue(encoder.encode("first\n"));
          await witness.write(encoder.encode("ready\n"));
          await witness.read(new Uint8Array(16));
          controller.enqueue(encoder.encode("last\n"));
          controller.close();
          witness.close();
        },
      }),
      { headers: { "content-type": "text/plain" } },
    );
  },
  "/cookies": () =>
    new Response("Two cookies\n", {
      headers: [["set-cookie", "a=1; Path=/"], ["set-cookie", "b=2; HttpOnly"]],
    }),
  "/nothing": () => new Response(null, { status: 204 }),
  "/created": () => new Response("Made\n", { status: 201, headers: { location: "/hello" } }),
  "/auth": (request) =>
    new Response(null, { status: request.headers.get("x-key") === "right" ? 204 : 403 }),
  "/redirect": () => new Response(null, { status: 303, headers: { location: "/hello" } }),
  "/throw": (request) => {
    const mark = new URL(request.url).searchParams.get("mark");
    throw new Error(`the cause, which is secret ${mark}`);
  },
  "/fail": async (request) => {
    const witness = await callWitness(request);
    const length = new URL(request.url).searchParams.get("length");
    const parts = [encoder.encode("first\n")];
    return new Response(
      new ReadableStream({
        async pull(controller) {
          const part = parts.shift();
          if (part !== undefined) return controller.enqueue(part);
          // Lets the chunk before it be written first.
          await new Promise((resolve) => setTimeout(resolve));
          await witness.write(encoder.encode("ready\n"));
          await witness.read(new Uint8Array(16));
          controller.error(new Error("the body failed"));
          witness.close();
        },
      }, { highWaterMark: 0 }),
      length === null ? {} : { headers: { "content-length": length } },
    );
  },
  "/early": () => new Response("Too much\n", { status: 413 }),
  "/wait": async (request) => {
    const witness = await callWitness(request);
    const aborted = new Promise((resolve) => request.signal.addEventListener("abort", resolve));
    await witness.write(encoder.encode("started\n"));
    await aborted;
    await witness.write(encoder.encode("aborted\n"));
    witness.close();
    return new Response("Never seen\n");
  },
  "/endless": async (request) => {
    const witness = await callWitness(request);
    request.signal.addEventListener("abort", async () => {
      await witness.write(encoder.encode("aborted\n"));
      witness.close();
    });
    await witness.write(encoder.encode("started\n"));
    return new Response(
      new ReadableStream({ pull: (controller) => controller.enqueue(new Uint8Array(65536)) }),
      { headers: { "content-type": "application/octet-stream" } },
    );
  },
};

/** Returns the request as the app sees it, as JSON. */
function see(request: Request, info: HandlerInfo): Response {
  return Response.json({
    method: request.method,
    url: request.url,
    headers: Object.fromEntries(request.headers),
    protocol: info.protocol,
    scriptName: info.scriptName,
    pathInfo: info.pathInfo,
    variables: Object.fromEntries(info.variables),
  }, { headers: { "x-url": request.url } });
}

/** Connects to the test's witness, whose port is in the query. */
async function callWitness(request: Request): Promise<Deno.Conn> {
  const port = Number(new URL(request.url).searchParams.get("witness"));
  return await Deno.connect({ hostname: "127.0.0.1", port });
}

const app = {
  fetch(request: Request, info: HandlerInfo): Response | Promise<Response> {
    const { pathname, searchParams } = new URL(request.url);
    // Behind a server that does not split the path.
    const route = searchParams.get("route") ?? pathname;
    return (routes[route] ?? see)(request, info);
  },
};

export default app;
