import { assert, assertEquals, assertInstanceOf, assertRejects, assertThrows } from "@std/assert";
import { ReadBuffer } from "../../io/read_buffer.ts";
import { createLazyRequest, type RequestParts } from "../../server/lazy_request.ts";
import { RequestBody } from "../../server/request_body.ts";
import { bytes } from "../testing/bytes.ts";

/** Creates the same request eagerly. */
function createEagerRequest(parts: RequestParts): Request {
  const { url, method, body, signal } = parts;
  return new Request(url, { method, headers: parts.createHeaders(), body, signal });
}

/** Creates parts as a transport does; `made` says whether the real Request was created, as that reads the signal. */
function createParts(): RequestParts & { made: boolean; controller: AbortController } {
  const controller = new AbortController();
  const body = new RequestBody({ pull: () => {} });
  const read = new ReadBuffer(bytes("a=1&b=2"));
  body.push(read.bytes, read);
  body.end();
  return {
    controller,
    made: false,
    method: "POST",
    url: "http://localhost/a?b=c",
    get signal() {
      this.made = true;
      return controller.signal;
    },
    get body() {
      return body.stream;
    },
    get bodyUsed() {
      return body.used;
    },
    collectBody: () => body.collect(),
    createHeaders: () =>
      new Headers({ "content-type": "application/x-www-form-urlencoded", "x-a": "1" }),
  };
}

const USES: Record<string, (request: Request) => unknown> = {
  "method": (request) => request.method,
  "url": (request) => request.url,
  "headers": (request) => [...request.headers],
  "headers, twice the same": (request) => request.headers === request.headers,
  "body is a stream": (request) => request.body instanceof ReadableStream,
  "bodyUsed": (request) => request.bodyUsed,
  "bodyUsed after reading": async (request) => (await request.text(), request.bodyUsed),
  "text()": (request) => request.text(),
  "bytes()": (request) => request.bytes(),
  "arrayBuffer()": async (request) => (await request.arrayBuffer()).byteLength,
  "blob()": async (request) => (await request.blob()).type,
  "formData()": async (request) => [...await request.formData()],
  "formData(), which reads the body": async (request) => {
    await request.formData();
    return [request.bodyUsed, await request.text().catch((error) => error.name)];
  },
  "json() of what is no JSON": (request) => request.json().catch((error) => error.name),
  "reading twice": async (request) => {
    await request.text();
    return await request.text().catch((error) => error.name);
  },
  "reading twice, each in its way": async (request) => {
    const names = ["text", "bytes", "json", "arrayBuffer", "formData", "blob"] as const;
    await request.bytes();
    return await Promise.all(names.map((name) => request[name]().catch((error) => error.name)));
  },
  "clone() after reading": async (request) => {
    await request.text();
    try {
      return request.clone().url;
    } catch (error) {
      return (error as Error).name;
    }
  },
  "new Request(request) after reading": async (request) => {
    await request.text();
    try {
      return new Request(request).url;
    } catch (error) {
      return (error as Error).name;
    }
  },
  "headers, method and url after reading": async (request) => {
    await request.text();
    return [request.method, request.url, [...request.headers], request.redirect];
  },
  "bodyUsed while reading": (request) => {
    const reading = request.text();
    return [request.bodyUsed, reading instanceof Promise];
  },
  "text() after body was read": async (request) => {
    const { body } = request;
    return [body instanceof ReadableStream, await request.text()];
  },
  "text() after a reader was taken": async (request) => {
    request.body!.getReader();
    return await request.text().catch((error) => error.name);
  },
  "body is one and the same": async (request) => {
    const { body } = request;
    const same = [request.body === body];
    request.clone();
    same.push(request.body instanceof ReadableStream);
    return [...same, await request.text()];
  },
  "bodyUsed as a reader reads": async (request) => {
    const reader = request.body!.getReader();
    const seen = [request.bodyUsed];
    await reader.read();
    seen.push(request.bodyUsed);
    reader.releaseLock();
    return [...seen, request.bodyUsed];
  },
  "text() after a reader was given back": async (request) => {
    request.body!.getReader().releaseLock();
    return [request.bodyUsed, await request.text(), request.bodyUsed];
  },
  "all else after a reader has read": async (request) => {
    await request.body!.getReader().read();
    const { mode, url, method, bodyUsed } = request;
    const failures = [];
    try {
      request.clone();
    } catch (error) {
      failures.push((error as Error).name);
    }
    await request.text().catch((error) => failures.push(error.name));
    return [mode, url, method, bodyUsed, failures, request.body?.locked];
  },
  "bodyUsed beside a reader that has not read": (request) => {
    request.body!.getReader();
    return [request.mode, request.bodyUsed, request.body?.locked];
  },
  "text() after all else, once a reader was given back": async (request) => {
    const reader = request.body!.getReader();
    const seen = [request.mode, request.credentials, Deno.inspect(request).includes("bodyUsed")];
    reader.releaseLock();
    return [...seen, request.bodyUsed, await request.clone().text(), await request.text()];
  },
  "headers after reading": async (request) => {
    await request.body!.cancel();
    return [request.mode, [...request.headers]];
  },
  "bodyUsed after cancelling": async (request) => {
    await request.body!.cancel();
    return [request.bodyUsed, request.body?.locked, await request.text().catch((e) => e.name)];
  },
  "new Response(request.body)": (request) => new Response(request.body).text(),
  "body, after all of it was taken": async (request) => {
    await request.bytes();
    return [request.body instanceof ReadableStream, request.body?.locked];
  },
  "text() of the prototype": (request) => Request.prototype.text.call(request),
  "a method of one on another": (request) =>
    request.text.call(new Request("http://localhost/", { method: "POST", body: "other" })),
  "the same method twice": (request) => request.text === request.text,
  "clone()": async (request) => {
    const clone = request.clone();
    return [clone.url, clone.method, clone.headers.get("x-a"), await clone.text()];
  },
  "bodies of both halves of clone()": async (request) => {
    const { body } = request;
    const clone = request.clone();
    const texts = [request.body, clone.body].map((body) => new Response(body).text());
    return [request.body === body, body?.locked, ...await Promise.all(texts)];
  },
  "both halves of clone()": async (request) => {
    const clone = request.clone();
    return [await clone.text(), await request.text()];
  },
  "new Request(request)": async (request) => {
    const copy = new Request(request);
    return [copy.url, copy.method, copy.headers.get("x-a"), await copy.text()];
  },
  "new Request(url, request)": async (request) => {
    const copy = new Request("http://other/", request);
    return [copy.url, copy.method, copy.headers.get("x-a"), await copy.text()];
  },
  "new Request(request, init)": (request) =>
    new Request(request, { headers: { "x-b": "2" } }).headers.get("x-a"),
  "instanceof": (request) => request instanceof Request,
  "Object.prototype.toString": (request) => Object.prototype.toString.call(request),
  "prototype": (request) => Object.getPrototypeOf(request) === Request.prototype,
  "its constructor": (request) => request.constructor === Request,
  "in": (request) => ["url", "text", "nothing"].map((key) => key in request),
  "property of one's own": (request) => {
    const marked = request as Request & { mark?: number };
    marked.mark = 1;
    const seen = [marked.mark, Object.keys(marked)];
    delete marked.mark;
    return [...seen, marked.mark];
  },
  "defineProperty": (request) => {
    Object.defineProperty(request, "mark", { value: 1, enumerable: true });
    return Object.entries(request);
  },
  "signal": (request) => request.signal instanceof AbortSignal && !request.signal.aborted,
  "mode, cache, redirect and the others": (request) => [
    request.mode,
    request.cache,
    request.redirect,
    request.credentials,
    request.integrity,
    request.keepalive,
    request.referrer,
    request.referrerPolicy,
  ],
  "Deno.inspect()": (request) => Deno.inspect(request, { colors: false }),
  "WeakMap key": (request) => new WeakMap([[request, 1]]).get(request),
};

for (const [name, use] of Object.entries(USES)) {
  Deno.test(`createLazyRequest() behaves as Request does: ${name}`, async () => {
    const expected = await use(createEagerRequest(createParts()));
    assertEquals(await use(createLazyRequest(createParts())), expected);
  });
}

Deno.test("createLazyRequest() has method, url, headers and body without creating a Request", async () => {
  const parts = createParts();
  const request = createLazyRequest(parts);
  assertInstanceOf(request, Request);
  assert([request.method, request.url, request.headers, request.body].every(Boolean));
  assertEquals(request.bodyUsed, false);
  assertEquals(await new Response(request.body).text(), "a=1&b=2");
  assertEquals(request.bodyUsed, true);
  assertEquals(parts.made, false);
  assert(request.mode);
  assertEquals(parts.made, true);
});

Deno.test("createLazyRequest() has immutable headers, as requests of Deno.serve have", () => {
  const request = createLazyRequest(createParts());
  for (const { headers } of [request, request.clone(), request]) {
    assertThrows(() => headers.delete("x-a"), TypeError, "headers are immutable");
    assertEquals(headers.get("x-a"), "1");
  }
});

Deno.test("createLazyRequest() passes its headers on to copies, which may change them", () => {
  for (const before of [["headers", "mode"], ["mode", "headers"]] as const) {
    const request = createLazyRequest(createParts());
    for (const key of before) assert(request[key]);
    const copy = new Request(request);
    copy.headers.delete("x-a");
    assertEquals([copy.headers.get("x-a"), request.headers.get("x-a")], [null, "1"]);
  }
});

Deno.test("createLazyRequest() creates no Request for properties that the app sets", () => {
  const parts = createParts();
  const request = createLazyRequest(parts) as Request & { ip?: string; then?: unknown };
  assertEquals([request.ip, request.then], [undefined, undefined]);
  request.ip = "127.0.0.1";
  Object.defineProperty(request, "url", { value: "http://proxy/" });
  assertEquals([request.ip, request.url, Object.keys(request)], ["127.0.0.1", "http://proxy/", [
    "ip",
  ]]);
  assertEquals(parts.made, false);
});

Deno.test("createLazyRequest() creates the Request at once where Deno accepts no proxy as one", async () => {
  const original = Object.getOwnPropertyDescriptor(Request.prototype, "url")!;
  Object.defineProperty(Request.prototype, "url", {
    ...original,
    get(this: Request) {
      const url = original.get!.call(this);
      if (typeof url === "symbol") throw new TypeError("Illegal invocation");
      return url;
    },
  });
  try {
    const module = import.meta.resolve("../../server/lazy_request.ts") + "?no-proxy";
    const { createLazyRequest } = await import(module);
    const parts = createParts();
    const request = createLazyRequest(parts);
    assertEquals(parts.made, true);
    assertEquals([request.url, request.headers.get("x-a")], [parts.url, "1"]);
    assertEquals(await request.text(), "a=1&b=2");
  } finally {
    Object.defineProperty(Request.prototype, "url", original);
  }
});

Deno.test("createLazyRequest() passes its signal on to copies", () => {
  const parts = createParts();
  const request = createLazyRequest(parts);
  const copies = [request.clone(), new Request(request)];
  parts.controller.abort();
  assertEquals([request, ...copies].map(({ signal }) => signal.aborted), [true, true, true]);
});

Deno.test("createLazyRequest() can be passed to fetch()", async () => {
  await using server = Deno.serve(
    { hostname: "127.0.0.1", port: 0, onListen: () => {} },
    async (request) => new Response(request.method + await request.text()),
  );
  const parts = { ...createParts(), url: `http://127.0.0.1:${server.addr.port}/` };
  assertEquals(await (await fetch(createLazyRequest(parts))).text(), "POSTa=1&b=2");
});

Deno.test("createLazyRequest() rejects reads if its body fails", async () => {
  const failing = () =>
    new ReadableStream<Uint8Array<ArrayBuffer>>({
      start: (controller) => controller.error(new Error("cut off")),
    });
  const streamed: RequestParts = { ...createParts(), body: failing(), collectBody: () => null };
  await assertRejects(() => createLazyRequest(streamed).text(), Error, "cut off");
  const collected: RequestParts = {
    ...createParts(),
    collectBody: () => Promise.reject(new Error("cut off")),
  };
  for (const method of ["text", "bytes", "json", "arrayBuffer"] as const) {
    await assertRejects(() => createLazyRequest(collected)[method](), Error, "cut off");
  }
});

/** Reads a form by a lazy and by an eager request. */
async function readForms(type: string | null, form: Uint8Array<ArrayBuffer>): Promise<unknown[]> {
  const headers: HeadersInit = type === null ? {} : { "content-type": type };
  const body = new RequestBody({ pull: () => {} });
  body.declare(form.length);
  const parts = { ...createParts(), createHeaders: () => new Headers(headers) };
  parts.collectBody = () => body.collect();
  const lazy = createLazyRequest(parts).formData();
  for (let at = 0; at < form.length; at += 65_536) {
    const read = new ReadBuffer(form.slice(at, at + 65_536));
    body.push(read.bytes, read);
  }
  body.end();
  const eager = new Request(parts.url, { method: "POST", headers, body: form }).formData();
  return await Promise.all([lazy, eager].map(async (reading) => {
    try {
      const entries = [...await reading] as [string, File | string][];
      return await Promise.all(
        entries.map(async ([name, value]) =>
          typeof value === "string"
            ? [name, value]
            : [name, value.name, value.type, value.size, new Uint8Array(await value.arrayBuffer())]
        ),
      );
    } catch (error) {
      return (error as Error).name;
    }
  }));
}

Deno.test("formData() of a request returns what a Request does: fields, and files of each size", async () => {
  for (const size of [0, 10, 100_000, 5_000_000]) {
    const form = new FormData();
    form.set("file", new File([new Uint8Array(size).fill(0xe9)], "a.bin", { type: "x/y" }));
    form.append("a", "é\r\n");
    form.append("a", "");
    const response = new Response(form);
    const [lazy, eager] = await readForms(
      response.headers.get("content-type"),
      await response.bytes(),
    );
    assertEquals(lazy, eager);
  }
});

Deno.test("formData() of a request rejects as a Request does: no type, another one, no boundary", async () => {
  for (const type of [null, "text/plain", "multipart/form-data"]) {
    const [lazy, eager] = await readForms(type, bytes("--b\r\nno form"));
    assertEquals([lazy, eager], ["TypeError", "TypeError"], String(type));
  }
});
