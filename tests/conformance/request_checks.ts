/** Uses of a request by apps and libraries: each must have the same result as under `Deno.serve`. */
import { inspect } from "node:util";

const PATCHED = new Set<string>();

/** Wraps a getter of `Request.prototype` while a function runs. */
function withGetter<T>(key: keyof Request, wrap: (value: unknown) => unknown, run: () => T): T {
  const original = Object.getOwnPropertyDescriptor(Request.prototype, key)!;
  Object.defineProperty(Request.prototype, key, {
    ...original,
    get(this: Request) {
      PATCHED.add(key);
      return wrap(original.get!.call(this));
    },
  });
  try {
    return run();
  } finally {
    Object.defineProperty(Request.prototype, key, original);
  }
}

/** Returns the result of a function, or the name of the error that it throws. */
function outcome(run: () => unknown): unknown {
  try {
    return run();
  } catch (error) {
    return (error as Error).name;
  }
}

const define = (request: Request, key: string, value: unknown, configurable = true) =>
  Object.defineProperty(request, key, { value, configurable, enumerable: true });

/** The checks; each receives a POST request with the body "body" and the headers `cookie: a=1` and `x-a: 1`. */
export const REQUEST_CHECKS: Record<string, (request: Request) => unknown> = {
  "a redefined url": (request) => {
    define(request, "url", "http://proxy/");
    return [request.url, request.clone().url, new Request(request).url, Object.keys(request)];
  },
  "a redefined url after a clone()": (request) => {
    const { url } = request.clone();
    define(request, "url", "http://proxy/");
    return [url, request.url, request.clone().url];
  },
  "a url as a getter": (request) => {
    Object.defineProperty(request, "url", { get: () => "http://proxy/", configurable: true });
    return [request.url, Reflect.deleteProperty(request, "url"), request.url];
  },
  "a redefined method": (request) => {
    define(request, "method", "PUT");
    return [request.method, request.clone().method, new Request(request).method];
  },
  "a redefined signal": (request) => {
    const signal = AbortSignal.abort();
    define(request, "signal", signal);
    return [request.signal === signal, request.clone().signal.aborted];
  },
  "redefined headers": (request) => {
    define(request, "headers", new Headers({ "x-a": "2" }));
    return [request.headers.get("x-a"), request.clone().headers.get("x-a")];
  },
  "a redefined body": async (request) => {
    define(request, "body", null);
    return [request.body, await request.text()];
  },
  "an assigned json()": async (request) => {
    request.json = () => Promise.resolve("own");
    return [await request.json(), await request.text(), Object.keys(request)];
  },
  "an assigned text() that uses the prototype's": async (request) => {
    request.text = async () => "own " + await Request.prototype.text.call(request);
    return await request.text();
  },
  "an override that is deleted": async (request) => {
    request.text = () => Promise.resolve("own");
    const own = await request.text();
    return [own, Reflect.deleteProperty(request, "text"), await request.text()];
  },
  "an override of mode": (request) => {
    request.clone();
    define(request, "mode", "own");
    return [
      request.mode,
      Object.hasOwn(request, "mode"),
      Reflect.deleteProperty(request, "mode"),
    ];
  },
  "an assignment to url": (request) => [
    outcome(() => Reflect.set(request, "url", "http://proxy/")),
    outcome(() => Object.assign(request, { url: "http://proxy/" })),
    request.url,
  ],
  "a property that cannot be configured": (request) => {
    define(request, "url", "http://proxy/", false);
    return [
      request.url,
      Object.getOwnPropertyDescriptor(request, "url"),
      outcome(() => define(request, "url", "http://other/")),
      Reflect.deleteProperty(request, "url"),
      request.url,
    ];
  },
  "a property with a symbol as its key": (request) => {
    const key = Symbol("key");
    const marked = request as Request & Record<symbol, unknown>;
    marked[key] = 1;
    const seen = [marked[key], key in marked, Object.hasOwn(marked, key)];
    request.clone();
    return [...seen, marked[key], delete marked[key], marked[key], key in marked];
  },
  "a property while a reader locks the body": async (request) => {
    const marked = request as Request & { mark?: number };
    const reader = request.body!.getReader();
    const { mode: _mode, cache: _cache } = request;
    marked.mark = 1;
    define(request, "method", "PUT");
    const locked = [marked.mark, request.method];
    reader.releaseLock();
    return [...locked, marked.mark, request.method, request.clone().method, await request.text()];
  },
  "preventExtensions()": async (request) => {
    const seen = [Object.isExtensible(request), Reflect.preventExtensions(request)];
    return [
      ...seen,
      Object.isExtensible(request),
      Reflect.set(request, "mark", 1),
      "mark" in request,
      request.url,
      request.headers.get("x-a"),
      request.signal.aborted,
      request.clone().method,
      await request.text(),
      request.bodyUsed,
    ];
  },
  "setPrototypeOf()": async (request) => {
    class Own extends Request {
      override get url() {
        return "own " + super.url;
      }
    }
    Object.setPrototypeOf(request, Own.prototype);
    return [
      request.url,
      request.method,
      request instanceof Own,
      Object.getPrototypeOf(request) === Own.prototype,
      await request.text(),
    ];
  },
  "setPrototypeOf(null)": (request) => {
    Object.setPrototypeOf(request, null);
    return [request.url === undefined, request instanceof Request, Object.getPrototypeOf(request)];
  },
  "a patched getter": (request) => {
    const seen = withGetter("url", (url) => `patched ${url}`, () => [request.url]);
    return [...seen, request.url, PATCHED.has("url")];
  },
  "patched getters of headers and method": (request) => [
    withGetter("headers", (headers) => (headers as Headers).get("x-a"), () => request.headers),
    withGetter("method", (method) => `patched ${method}`, () => request.method),
    withGetter("bodyUsed", (used) => `patched ${used}`, () => request.bodyUsed),
    withGetter("body", (body) => body instanceof ReadableStream, () => request.body),
  ],
  "a patched text()": async (request) => {
    const { text } = Request.prototype;
    Request.prototype.text = async function () {
      return "patched " + await text.call(this);
    };
    const texts = [await request.clone().text(), await request.text()];
    Request.prototype.text = text;
    return texts;
  },
  "a text() patched with the request's own": async (request) => {
    const { text } = Request.prototype;
    const original = request.text;
    Request.prototype.text = async function () {
      return "patched " + await original.call(this);
    };
    const seen = await request.text();
    Request.prototype.text = text;
    return seen;
  },
  "a method added to the prototype": (request) => {
    Object.defineProperty(Request.prototype, "added", {
      value(this: Request) {
        return this.url;
      },
      configurable: true,
    });
    return (request as Request & { added(): string }).added();
  },

  "Object.create(request)": (request) => {
    const derived = Object.create(request) as Request;
    return [derived.url, derived.method, derived.headers.get("x-a"), derived instanceof Request];
  },
  "new Proxy(request)": async (request) => {
    const proxy = new Proxy(request, {});
    const copy = new Request(proxy);
    return [proxy.url, proxy.headers.get("x-a"), copy.url, await copy.text()];
  },
  "Request.prototype.clone.call(request)": async (request) => {
    const clone = Request.prototype.clone.call(request);
    return [clone.url, clone.method, clone.headers.get("x-a"), await clone.text()];
  },
  "the getters of Request.prototype": (request) =>
    ["url", "method", "bodyUsed", "mode"].map((key) =>
      String(Object.getOwnPropertyDescriptor(Request.prototype, key)!.get!.call(request))
    ),
  "new Request(request)": async (request) => {
    const copy = new Request(request);
    return [copy.url, copy.method, copy.headers.get("x-a"), await copy.text(), request.bodyUsed];
  },
  "structuredClone(request)": (request) => outcome(() => structuredClone(request)),
  "brands": (request) => [
    request instanceof Request,
    Object.prototype.toString.call(request),
    String(request),
    JSON.stringify(request),
    request.constructor === Request,
    Object.getPrototypeOf(request) === Request.prototype,
    Object.hasOwn(request, "url"),
    "url" in request,
    "then" in request,
    Reflect.has(request, "clone"),
  ],
  "Deno.inspect()": (request) => inspected(Deno.inspect(request)),
  "inspect() of node:util": (request) => inspected(inspect(request)),
  "Deno.inspect() of a redefined url": (request) => {
    define(request, "url", "http://proxy/");
    return inspected(Deno.inspect(request));
  },

  "headers.delete()": (request) => [
    outcome(() => request.headers.delete("cookie")),
    request.headers.get("cookie"),
  ],
  "headers.set() and append()": (request) => [
    outcome(() => request.headers.set("x-b", "1")),
    outcome(() => request.headers.append("x-a", "2")),
    [...request.headers].filter(([name]) => name.startsWith("x-")),
  ],
  "headers.get(), clone(), headers.delete()": (request) => {
    request.headers.get("cookie");
    request.clone();
    return [
      outcome(() => request.headers.delete("cookie")),
      request.headers.get("cookie"),
      new Request(request).headers.get("cookie"),
    ];
  },
  "headers.delete() of a clone()": (request) => {
    const clone = request.clone();
    return [outcome(() => clone.headers.delete("cookie")), clone.headers.get("cookie")];
  },
  "headers.delete() of a copy": (request) => {
    const copy = new Request(request);
    return [
      outcome(() => copy.headers.delete("cookie")),
      copy.headers.get("cookie"),
      new Request(copy).headers.get("cookie"),
      request.headers.get("cookie"),
    ];
  },

  "bodyUsed right after read()": async (request) => {
    const reader = request.body!.getReader();
    const before = request.bodyUsed;
    const reading = reader.read();
    return [before, request.bodyUsed, (await reading).done, request.bodyUsed];
  },
  "bodyUsed right after read() and releaseLock()": async (request) => {
    const reader = request.body!.getReader();
    await reader.read();
    reader.releaseLock();
    return [request.bodyUsed, request.body!.locked];
  },
  "bodyUsed right after pipeTo()": async (request) => {
    const piping = request.body!.pipeTo(new WritableStream());
    const used = request.bodyUsed;
    await piping;
    return [used, request.bodyUsed];
  },
  "bodyUsed right after cancel()": async (request) => {
    const cancelling = request.body!.cancel();
    const used = request.bodyUsed;
    await cancelling;
    return [used, request.bodyUsed];
  },
  "bodyUsed after the other branch of clone() was read": async (request) => {
    await request.clone().text();
    return [request.bodyUsed, await request.text(), request.bodyUsed];
  },
};

/** Returns the lines of an inspected request without its headers, which differ between transports. */
function inspected(shown: string): string[] {
  return shown.split("\n").filter((line) => /^Request|bodyUsed|method|url/.test(line));
}
