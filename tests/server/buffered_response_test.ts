import { assert, assertEquals, assertRejects } from "@std/assert";
import { bufferedResponse, markSent, TRIED } from "../../server/buffered_response.ts";
import { serveOne } from "../testing/fastcgi_client.ts";

const bytes = new Uint8Array([0, 128, 255]);

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
  "bytes": () => new Response(bytes),
  "bytes with a status": () => new Response(bytes, { status: 201 }),
  "a buffer": () => new Response(bytes.buffer),
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
  "bytes with a type": () => new Response(bytes, { headers: { "content-type": "image/png" } }),
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
    assertEquals(buffered, read);
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
  const tells = Object.entries(BUFFERED)
    .filter(([, make]) => bufferedResponse(make())?.contentType !== undefined)
    .map(([name]) => name);
  assertEquals(tells, [
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

Deno.test("TRIED lists the running version of Deno", () => {
  assert(TRIED.includes(navigator.userAgent), navigator.userAgent);
});

Deno.test("bufferedResponse() returns undefined for a single response on an untried version", async () => {
  const original = Object.getOwnPropertyDescriptor(Navigator.prototype, "userAgent")!;
  // New instances of the module, which have not run the self-check yet.
  const load = (name: string): Promise<typeof import("../../server/buffered_response.ts")> =>
    import(`../../server/buffered_response.ts?${name}`);
  const versions = [
    ["Deno/2.9.99", undefined],
    ["Deno/2.9.60", undefined],
    [TRIED[0], "buffered"],
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
