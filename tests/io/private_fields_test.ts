import { assert, assertEquals, assertRejects } from "@std/assert";
import {
  bufferedResponse,
  fieldList,
  hasLeft,
  markSent,
  nativeSignal,
  requestField,
  TESTED_VERSIONS,
} from "../../io/private_fields.ts";
import { serveOne } from "../testing/fastcgi_client.ts";
import { bytes } from "../testing/bytes.ts";
import { deadline } from "../testing/deadline.ts";
import { turns } from "../testing/serving.ts";

type Module = typeof import("../../io/private_fields.ts");

const someBytes = new Uint8Array([0, 128, 255]);

/** Responses whose body is in memory. */
const BUFFERED: Record<string, () => Response> = {
  "a text": () => new Response("buffered"),
  "a text, not ASCII": () => new Response("hé€ld"),
  "no text": () => new Response(""),
  "a text with a status": () => new Response("buffered", { status: 404 }),
  "a text with headers": () => new Response("buffered", { headers: { "x-a": "1" } }),
  "a text with headers set later": () => {
    const response = new Response("buffered");
    response.headers.set("x-a", "1");
    return response;
  },
  "JSON": () => Response.json({ a: 1 }),
  "JSON with a status": () => Response.json({ a: 1 }, { status: 201 }),
  "bytes": () => new Response(someBytes),
  "bytes with a status": () => new Response(someBytes, { status: 201 }),
  "a buffer": () => new Response(someBytes.buffer),
  "a form": () => new Response(new URLSearchParams({ a: "1" })),
  "a text with a type": () =>
    new Response("buffered", { headers: { "content-type": "text/html" } }),
  "a text with Headers": () =>
    new Response("buffered", { headers: new Headers([["content-type", "text/css"]]) }),
  "a text with an empty type": () => new Response("buffered", { headers: { "content-type": "" } }),
  "a text with its type changed": () => {
    const response = new Response("buffered");
    response.headers.set("content-type", "text/html");
    return response;
  },
  "a text with its type taken": () => {
    const response = new Response("buffered");
    response.headers.delete("content-type");
    return response;
  },
  "a text with a type and a reason": () =>
    new Response("buffered", { statusText: "Fine", headers: { "content-type": "text/html" } }),
  "a text with two types": () =>
    new Response("buffered", { headers: [["content-type", "text/html"], ["content-type", "a/b"]] }),
  "bytes with a type": () => new Response(someBytes, { headers: { "content-type": "image/png" } }),
  "a clone": () => new Response("buffered").clone(),
  "one of a subclass": () => new (class extends Response {})("buffered"),
};

/** Responses whose body must be read. */
const OTHER: Record<string, () => Response | Promise<Response>> = {
  "none": () => new Response(null),
  "a blob": () => new Response(new Blob(["buffered"])),
  "a stream": () => new Response(new Blob(["buffered"]).stream()),
  "one whose stream was created": () => {
    const response = new Response("buffered");
    assert(response.body);
    return response;
  },
  "one whose stream was created, with a status": () => {
    const response = new Response("buffered", { status: 201 });
    assert(response.body);
    return response;
  },
  "one that was read": async () => {
    const response = new Response("buffered");
    await response.text();
    return response;
  },
  "one that was read, with a status": async () => {
    const response = new Response("buffered", { status: 201 });
    await response.text();
    return response;
  },
  "one that was sent": () => {
    const response = new Response("buffered");
    bufferedResponse(response);
    markSent(response);
    return response;
  },
};

for (const [name, make] of Object.entries(BUFFERED)) {
  Deno.test(`bufferedResponse() returns the same as reading: ${name}`, async () => {
    const buffered = bufferedResponse(make());
    assert(buffered !== undefined);
    const { body, contentType } = buffered;
    assertEquals(
      typeof body === "string" ? new TextEncoder().encode(body) : body,
      await make().bytes(),
    );
    if (contentType === undefined) return;
    const { status, statusText, headers } = make();
    assertEquals({ status, statusText }, { status: 200, statusText: "" });
    assertEquals([...headers], contentType === null ? [] : [["content-type", contentType]]);
  });
}

for (const [name, make] of Object.entries(BUFFERED)) {
  Deno.test(`a buffered response is sent as its stream is: ${name}`, async () => {
    const buffered = await serveOne(() => make());
    const read = await serveOne(() => {
      const { body, status, statusText, headers } = make();
      return new Response(body, { status, statusText, headers });
    });
    // The fields may be in another order.
    assertEquals(
      { body: buffered.body, lines: buffered.head.split("\r\n").toSorted() },
      { body: read.body, lines: read.head.split("\r\n").toSorted() },
    );
  });
}

for (const [name, make] of Object.entries(OTHER)) {
  Deno.test(`bufferedResponse() returns undefined for a body that must be read: ${name}`, async () => {
    assertEquals(bufferedResponse(await make()), undefined);
  });
}

Deno.test("bufferedResponse() consumes nothing: the body can still be read", async () => {
  for (const make of Object.values(BUFFERED)) {
    const response = make();
    bufferedResponse(response);
    assertEquals(response.bodyUsed, false);
    assertEquals(await response.bytes(), await make().bytes());
  }
});

Deno.test("bufferedResponse() returns the content type", () => {
  const buffered = Object.entries(BUFFERED)
    .filter(([, make]) => bufferedResponse(make())?.contentType !== undefined)
    .map(([name]) => name);
  assertEquals(buffered, [
    "a text",
    "a text, not ASCII",
    "no text",
    "JSON",
    "bytes",
    "a buffer",
    "a form",
    "a text with a type",
    "a text with Headers",
    "a text with an empty type",
    "bytes with a type",
    "one of a subclass",
  ]);
});

Deno.test("bufferedResponse() returns undefined for a value that is no Response", () => {
  for (const value of [undefined, null, "buffered", {}, Response]) {
    assertEquals(bufferedResponse(value), undefined);
  }
});

Deno.test("markSent() marks the body as read", async () => {
  for (const make of Object.values(BUFFERED)) {
    const response = make();
    bufferedResponse(response);
    markSent(response);
    assertEquals(response.bodyUsed, true);
    await assertRejects(() => response.text(), TypeError);
  }
});

Deno.test("TESTED_VERSIONS lists the running version of Deno", () => {
  assert(TESTED_VERSIONS.includes(navigator.userAgent), navigator.userAgent);
});

Deno.test("bufferedResponse() returns undefined for a single response on an untried version", async () => {
  const original = Object.getOwnPropertyDescriptor(Navigator.prototype, "userAgent")!;
  // New instances of the module, which have not run the self-check yet.
  const load = (name: string): Promise<Module> => import(`../../io/private_fields.ts?${name}`);
  const versions = [
    ["Deno/2.9.99", undefined],
    ["Deno/2.9.60", undefined],
    [TESTED_VERSIONS[0], "buffered"],
  ] as const;
  for (const [userAgent, body] of versions) {
    const { bufferedResponse } = await load(userAgent);
    Object.defineProperty(Navigator.prototype, "userAgent", {
      value: userAgent,
      configurable: true,
    });
    try {
      assertEquals(bufferedResponse(new Response("buffered"), true)?.body, body);
    } finally {
      Object.defineProperty(Navigator.prototype, "userAgent", original);
    }
  }
});

/** Sends a request whose client leaves at once, and passes it to a handler. */
async function leaving(handle: (request: Request) => Promise<void>): Promise<void> {
  const handled = Promise.withResolvers<void>();
  const begun = Promise.withResolvers<void>();
  const left = Promise.withResolvers<void>();
  await using server = Deno.serve(
    { hostname: "127.0.0.1", port: 0, onListen() {} },
    async (request) => {
      begun.resolve();
      await left.promise;
      await handle(request).then(handled.resolve, handled.reject);
      return new Response();
    },
  );
  const conn = await Deno.connect({ hostname: "127.0.0.1", port: server.addr.port });
  await conn.write(bytes("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"));
  await deadline(begun.promise, "the request");
  conn.close();
  await turns(3);
  left.resolve();
  await deadline(handled.promise, "the handler");
}

Deno.test("nativeSignal() and hasLeft() ignore what an app has put in place of the signal", () => {
  const controller = new AbortController();
  const request = new Request("http://localhost/", { signal: controller.signal });
  Object.defineProperty(request, "signal", { value: AbortSignal.abort() });
  assertEquals([nativeSignal(request).aborted, hasLeft(request)], [false, false]);
  controller.abort();
  assertEquals([nativeSignal(request).aborted, hasLeft(request)], [true, true]);
});

Deno.test("hasLeft() does not read a signal that nothing else has read", async () => {
  await leaving(async (request) => {
    assertEquals(hasLeft(request), false);
    await turns(3);
    // Had it read the signal, Deno would say by now that the client has left.
    assertEquals(hasLeft(request), false);
    request.signal.addEventListener("abort", () => {});
    await turns(3);
    assertEquals(hasLeft(request), true);
  });
});

Deno.test("hasLeft() reads the signal where Deno has no field of it", async () => {
  const url = "../../io/private_fields.ts?without";
  const without: Module = await import(url);
  const { getOwnPropertySymbols } = Object;
  await leaving(async (request) => {
    Object.getOwnPropertySymbols = () => [];
    try {
      assertEquals(without.hasLeft(request), false);
    } finally {
      Object.getOwnPropertySymbols = getOwnPropertySymbols;
    }
    await turns(3);
    assertEquals(without.hasLeft(request), true);
  });
});

Deno.test("fieldList() returns the fields of headers as they were given, and undefined for those of a request that waits", async () => {
  const headers = new Headers([["X-B", "1"], ["x-a", "2"], ["x-b", "3"]]);
  assertEquals(fieldList(headers), [["X-B", "1"], ["x-a", "2"], ["X-B", "3"]]);
  fieldList(headers)!.push(["x-c", "4"]);
  assertEquals([...headers], [["x-a", "2"], ["x-b", "1, 3"], ["x-c", "4"]]);
  await using server = Deno.serve(
    { hostname: "127.0.0.1", port: 0, onListen() {} },
    (request) => {
      const before = fieldList(request.headers);
      request.headers.forEach(() => {});
      return Response.json([before === undefined, fieldList(request.headers)?.length! > 1]);
    },
  );
  const response = await fetch(`http://127.0.0.1:${server.addr.port}/`);
  assertEquals(await response.json(), [true, true]);
});

Deno.test("fieldList() returns undefined where Deno has no such field, or another one", async () => {
  const url = "../../io/private_fields.ts";
  const { getOwnPropertySymbols } = Object;
  const others: Record<string, (object: object) => symbol[]> = {
    without: () => [],
    other: (object) => getOwnPropertySymbols(object).map(() => Symbol("header list")),
    readOnly: (object) => {
      const copy = Symbol("header list");
      Reflect.set(object, copy, [["X-A", "1"]]);
      return [copy];
    },
  };
  for (const [name, symbols] of Object.entries(others)) {
    const module: Module = await import(`${url}?${name}`);
    Object.getOwnPropertySymbols = symbols;
    try {
      assertEquals(module.fieldList(new Headers({ a: "b" })), undefined, name);
    } finally {
      Object.getOwnPropertySymbols = getOwnPropertySymbols;
    }
    assertEquals(module.fieldList(new Headers({ a: "b" })), undefined, name);
  }
});

/** Sends header lines to a server, and returns what its handler returns. */
async function served(lines: string, handle: (request: Request) => unknown): Promise<unknown> {
  await using server = Deno.serve(
    { hostname: "127.0.0.1", port: 0, onListen() {} },
    (request) => Response.json(handle(request)),
  );
  const conn = await Deno.connect({ hostname: "127.0.0.1", port: server.addr.port });
  await conn.write(bytes(`GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n${lines}\r\n`));
  const text = await deadline(new Response(conn.readable).text(), "the response");
  return JSON.parse(text.slice(text.indexOf("\r\n\r\n")));
}

const NAMES = ["host", "x-a", "x-b", "x-c", "x-none"];

/** Returns the fields before and after the headers were read, and as these have them. */
function lookUp(requestField: Module["requestField"], request: Request) {
  const before = NAMES.map((name) => requestField(request, name));
  const expected = NAMES.map((name) => request.headers.get(name));
  return [before, expected, NAMES.map((name) => requestField(request, name))];
}

Deno.test("requestField() returns what headers.get() returns, and reads no headers", async () => {
  const lines = "X-A: 1\r\nX-A: 2\r\nx-b: \r\nX-C: caf\xe9\r\n";
  const [before, expected, after] = await served(
    lines,
    (request) => lookUp(requestField, request),
  ) as [
    unknown,
    unknown,
    unknown,
  ];
  assertEquals(expected, ["a", "1, 2", "", "caf\xe9", null]);
  assertEquals([before, after], [expected, expected]);
  assertEquals(lookUp(requestField, new Request("http://a", { headers: { "x-a": "1" } }))[0], [
    null,
    "1",
    null,
    null,
    null,
  ]);
});

Deno.test("requestField() reads the headers where Deno has no such fields", async () => {
  const url = "../../io/private_fields.ts?no-request-fields";
  const without: Module = await import(url);
  const { getOwnPropertySymbols } = Object;
  const found = await served("X-A: 1\r\n", (request) => {
    Object.getOwnPropertySymbols = () => [];
    try {
      return without.requestField(request, "x-a");
    } finally {
      Object.getOwnPropertySymbols = getOwnPropertySymbols;
    }
  });
  assertEquals(found, "1");
});
