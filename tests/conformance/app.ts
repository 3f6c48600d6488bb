/** The app of the conformance tests: the first segment of the path selects what it does. */
import type { AppObject, AppOptions, HandlerInfo } from "../../bridge/app.ts";
import { REQUEST_CHECKS } from "./request_checks.ts";

/** Header fields that differ between transports (rule A23). */
const TRANSPORT_FIELDS = [
  "connection",
  "keep-alive",
  "proxy-connection",
  "te",
  "trailer",
  "transfer-encoding",
  "upgrade",
];

/** Returns the request and info as a handler sees them. */
async function seen(request: Request, info: HandlerInfo): Promise<Record<string, unknown>> {
  const headers = Object.fromEntries(
    [...request.headers].filter(([name]) => !TRANSPORT_FIELDS.includes(name)),
  );
  const addr = info.remoteAddr as Deno.NetAddr;
  return {
    method: request.method,
    url: request.url,
    headers,
    hasBody: request.body !== null,
    body: [...new Uint8Array(await request.arrayBuffer())],
    isRequest: request instanceof Request,
    scriptName: info.scriptName,
    pathInfo: info.pathInfo,
    client: `${addr.transport} ${addr.hostname}`,
    variables: Object.fromEntries(
      ["REQUEST_METHOD", "REQUEST_URI", "QUERY_STRING", "SERVER_NAME", "HTTP_X_A", "HTTP_PROXY"]
        .map((name) => [name, info.variables.get(name) ?? null]),
    ),
  };
}

/** Returns the results of using the info in unusual ways, such as a RequestInit. */
async function seenInfo(request: Request, info: HandlerInfo): Promise<Record<string, unknown>> {
  const { log } = info;
  log("a line");
  const fields = new Set<string>();
  for (let of: unknown = info; of !== Object.prototype; of = Object.getPrototypeOf(of)) {
    for (const key of Object.getOwnPropertyNames(of)) fields.add(key);
  }
  // A router called with `router.fetch(request, info)` does this.
  const rewritten = new Request("http://other/", { method: "POST", body: "rewritten" });
  const copy = new Request(rewritten, info as RequestInit);
  const own = Object.assign(info, { method: "PUT", url: "http://other/", body: null });
  return {
    fields: [...fields].filter((key) => key !== "constructor").sort(),
    copy: [copy.method, copy.url, await copy.text()],
    request: [request.method, new URL(request.url).pathname, own.method],
    body: await request.text(),
  };
}

/** Creates a stream that yields one chunk per turn of the event loop; an error makes it fail. */
function slowStream(...chunks: (string | Error)[]): ReadableStream<Uint8Array> {
  return new ReadableStream({
    async pull(controller) {
      await new Promise((resolve) => setTimeout(resolve, 0));
      const chunk = chunks.shift();
      if (chunk === undefined) controller.close();
      else if (chunk instanceof Error) controller.error(chunk);
      else controller.enqueue(new TextEncoder().encode(chunk));
    },
  }, { highWaterMark: 0 });
}

const app: AppObject = {
  async fetch(request, info) {
    const url = new URL(request.url);
    switch (url.pathname.split("/")[1]) {
      case "echo":
        return new Response(request.body, {
          headers: { "content-type": request.headers.get("content-type") ?? "text/plain" },
        });
      case "hello":
        return new Response("Hello");
      case "nothing":
        return new Response(null, { headers: { "x-a": "1" } });
      case "empty":
        return new Response("");
      case "status": {
        const status = Number(url.searchParams.get("status"));
        const bodiless = [204, 205, 304].includes(status);
        return new Response(bodiless ? null : "body", { status, headers: { etag: '"a"' } });
      }
      case "redirect":
        return new Response(null, { status: 303, headers: { location: "/elsewhere?a=b" } });
      case "cookies":
        return new Response("Hello", {
          headers: [
            ["set-cookie", "a=1; Path=/; Expires=Thu, 01 Jan 2026 00:00:00 GMT"],
            ["set-cookie", "b=2"],
          ],
        });
      case "headers":
        return new Response("Hello", {
          headers: [
            ["x-twice", "1"],
            ["x-twice", "2"],
            ["x-bytes", "caf\xe9 \xff"],
            ["x-tab", "a\tb"],
            ["X-Case", "Kept"],
            ["content-type", "text/html; charset=utf-8"],
            ["cache-control", "no-store"],
          ],
        });
      case "long-header":
        return new Response("Hello", { headers: { "x-long": "x".repeat(6000) } });
      case "stream":
        return new Response(slowStream("one", "", "two", "three"), {
          headers: { "content-type": "text/plain" },
        });
      case "megabyte":
        return new Response(new Uint8Array(1_000_000).fill(120), {
          headers: { "content-type": "application/octet-stream" },
        });
      case "length":
        return new Response(null, { headers: { "content-length": "1234" } });
      case "form": {
        const form = await request.formData();
        const file = form.get("file") as File;
        return Response.json([form.get("text"), file.name, file.type, await file.text()]);
      }
      case "throw":
        throw new Error("the secret");
      case "reject":
        await null;
        throw new Error("the secret");
      case "fail":
        return new Response(slowStream(new Error("the secret")), { headers: { "x-a": "1" } });
      case "undefined":
        return undefined as unknown as Response;
      case "error":
        return Response.error();
      case "read": {
        const response = new Response("Hello");
        await response.text();
        return response;
      }
      case "own-buffer": {
        const parts: Uint8Array<ArrayBuffer>[] = [];
        const reader = request.body!.getReader({ mode: "byob" });
        let buffer = new ArrayBuffer(40_000);
        while (true) {
          const { done, value } = await reader.read(new Uint8Array(buffer));
          if (done) break;
          parts.push(value.slice());
          buffer = value.buffer;
        }
        return new Response(new Blob(parts));
      }
      case "clone": {
        const copy = request.clone();
        const made = new Request(request, { headers: { "x-b": "2" } });
        return Response.json([await copy.text(), made.headers.get("x-b"), await made.text()]);
      }
      case "check": {
        const name = decodeURIComponent(url.pathname.split("/")[2]);
        return Response.json(await REQUEST_CHECKS[name](request));
      }
      case "empty-body": {
        const stream = request.body instanceof ReadableStream;
        const before = request.bodyUsed;
        return Response.json([stream, before, await request.text(), request.bodyUsed]);
      }
      case "info":
        return Response.json(await seenInfo(request, info));
      default:
        return Response.json(await seen(request, info));
    }
  },
};

export default app;

/** The options that the tests run the app with. */
export const OPTION_SETS: Record<string, AppOptions> = {
  plain: {},
  moved: { basePath: "/app", trustForwarded: true },
  proxied: { trustForwarded: ["192.0.2.0/24", "loopback"] },
  elsewhere: { trustForwarded: ["192.0.2.0/24", "unix"] },
  caught: { onError: (error) => new Response(`caught: ${(error as Error).name}`, { status: 503 }) },
};
