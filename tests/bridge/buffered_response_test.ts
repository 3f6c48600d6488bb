import { assert, assertEquals, assertRejects } from "@std/assert";
import { bufferedResponse, markSent, TRIED } from "../../bridge/buffered_response.ts";
import { serveOne } from "../testing/fastcgi_client.ts";

const bytes = new Uint8Array([0, 128, 255]);

/** Responses whose body is held in memory. */
const HELD: Record<string, () => Response> = {
  "a text": () => new Response("held"),
  "a text, not ASCII": () => new Response("hé€ld"),
  "no text": () => new Response(""),
  "a text with a status": () => new Response("held", { status: 404 }),
  "a text with headers": () => new Response("held", { headers: { "x-a": "1" } }),
  "a text with headers set later": () => {
    const response = new Response("held");
    response.headers.set("x-a", "1");
    return response;
  },
  "JSON": () => Response.json({ a: 1 }),
  "JSON with a status": () => Response.json({ a: 1 }, { status: 201 }),
  "bytes": () => new Response(bytes),
  "bytes with a status": () => new Response(bytes, { status: 201 }),
  "a buffer": () => new Response(bytes.buffer),
  "a form": () => new Response(new URLSearchParams({ a: "1" })),
  "a text with a type": () => new Response("held", { headers: { "content-type": "text/html" } }),
  "a text with Headers": () =>
    new Response("held", { headers: new Headers([["content-type", "text/css"]]) }),
  "a text with an empty type": () => new Response("held", { headers: { "content-type": "" } }),
  "a text with its type changed": () => {
    const response = new Response("held");
    response.headers.set("content-type", "text/html");
    return response;
  },
  "a text with its type taken": () => {
    const response = new Response("held");
    response.headers.delete("content-type");
    return response;
  },
  "a text with a type and a reason": () =>
    new Response("held", { statusText: "Fine", headers: { "content-type": "text/html" } }),
  "a text with two types": () =>
    new Response("held", { headers: [["content-type", "text/html"], ["content-type", "a/b"]] }),
  "bytes with a type": () => new Response(bytes, { headers: { "content-type": "image/png" } }),
  "a clone": () => new Response("held").clone(),
  "one of a subclass": () => new (class extends Response {})("held"),
};

/** Others, which must be read. */
const OTHER: Record<string, () => Response | Promise<Response>> = {
  "none": () => new Response(null),
  "a blob": () => new Response(new Blob(["held"])),
  "a stream": () => new Response(new Blob(["held"]).stream()),
  "one asked for as a stream": () => {
    const response = new Response("held");
    assert(response.body);
    return response;
  },
  "one asked for as a stream, with a status": () => {
    const response = new Response("held", { status: 201 });
    assert(response.body);
    return response;
  },
  "one that was read": async () => {
    const response = new Response("held");
    await response.text();
    return response;
  },
  "one that was read, with a status": async () => {
    const response = new Response("held", { status: 201 });
    await response.text();
    return response;
  },
  "one that was sent": () => {
    const response = new Response("held");
    bufferedResponse(response);
    markSent(response);
    return response;
  },
};

for (const [name, make] of Object.entries(HELD)) {
  Deno.test(`bufferedResponse() is what reading would give: ${name}`, async () => {
    const held = bufferedResponse(make());
    assert(held !== undefined);
    const { body, contentType } = held;
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

for (const [name, make] of Object.entries(HELD)) {
  Deno.test(`a held response is answered as its stream is: ${name}`, async () => {
    const held = await serveOne(() => make());
    const read = await serveOne(() => {
      const { body, status, statusText, headers } = make();
      return new Response(body, { status, statusText, headers });
    });
    assertEquals(held, read);
  });
}

for (const [name, make] of Object.entries(OTHER)) {
  Deno.test(`bufferedResponse() leaves a body to be read: ${name}`, async () => {
    assertEquals(bufferedResponse(await make()), undefined);
  });
}

Deno.test("bufferedResponse() takes nothing: what it tells can be read as well", async () => {
  for (const make of Object.values(HELD)) {
    const response = make();
    bufferedResponse(response);
    assertEquals(response.bodyUsed, false);
    assertEquals(await response.bytes(), await make().bytes());
  }
});

Deno.test("bufferedResponse() tells the type of the usual ones", () => {
  const tells = Object.entries(HELD)
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

Deno.test("bufferedResponse() knows what is no Response", () => {
  for (const value of [undefined, null, "held", {}, Response]) {
    assertEquals(bufferedResponse(value), undefined);
  }
});

Deno.test("markSent() has the body count as read", async () => {
  for (const make of Object.values(HELD)) {
    const response = make();
    bufferedResponse(response);
    markSent(response);
    assertEquals(response.bodyUsed, true);
    await assertRejects(() => response.text(), TypeError);
  }
});

Deno.test("the running version of Deno is one of those that a script relies on", () => {
  assert(TRIED.includes(navigator.userAgent), navigator.userAgent);
});

Deno.test("bufferedResponse() leaves the only response to be read on a version that was not tried", async () => {
  const original = Object.getOwnPropertyDescriptor(Navigator.prototype, "userAgent")!;
  // Modules of their own, which have not looked yet.
  const load = (name: string): Promise<typeof import("../../bridge/buffered_response.ts")> =>
    import(`../../bridge/buffered_response.ts?${name}`);
  const versions = [
    ["Deno/2.9.99", undefined],
    ["Deno/2.9.60", undefined],
    [TRIED[0], "held"],
  ] as const;
  for (const [userAgent, body] of versions) {
    const { bufferedResponse } = await load(userAgent);
    Object.defineProperty(Navigator.prototype, "userAgent", {
      value: userAgent,
      configurable: true,
    });
    try {
      assertEquals(bufferedResponse(new Response("held"), true)?.body, body);
    } finally {
      Object.defineProperty(Navigator.prototype, "userAgent", original);
    }
  }
});
