import { assert, assertEquals } from "@std/assert";
import { heldBody } from "../../bridge/held_body.ts";

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
  "a clone": () => new Response("held").clone(),
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
};

for (const [name, make] of Object.entries(HELD)) {
  Deno.test(`heldBody() is what reading would give: ${name}`, async () => {
    const held = heldBody(make());
    assert(held !== undefined);
    const expected = await make().bytes();
    assertEquals(typeof held === "string" ? new TextEncoder().encode(held) : held, expected);
  });
}

for (const [name, make] of Object.entries(OTHER)) {
  Deno.test(`heldBody() leaves a body to be read: ${name}`, async () => {
    assertEquals(heldBody(await make()), undefined);
  });
}

Deno.test("heldBody() takes nothing: what it tells can be read as well", async () => {
  for (const make of Object.values(HELD)) {
    const response = make();
    heldBody(response);
    assertEquals(response.bodyUsed, false);
    assertEquals(await response.bytes(), await make().bytes());
  }
});
