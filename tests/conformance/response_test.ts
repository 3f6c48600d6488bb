/** Unusual responses: each transport sends them as `Deno.serve` does. */
import { assertEquals } from "@std/assert";
import { text } from "../testing/bytes.ts";
import { IN_PROCESS, overDenoServe } from "./transports.ts";

class Missing extends Response {
  override get status() {
    return 404;
  }
  override get statusText() {
    return "Missing";
  }
  override get headers() {
    return new Headers({ "x-a": "missing" });
  }
}

/** Tells of itself what is not so. */
function pretend(response: Response): Response {
  return Object.defineProperties(response, {
    status: { value: 404 },
    headers: { value: new Headers({ "x-a": "pretended" }) },
    body: { value: null },
  });
}

/** Makes what a handler returns at each of its calls. */
const RESPONSES: Record<string, () => () => unknown> = {
  "a text": same(() => new Response("sent")),
  "a text with a type": same(() =>
    new Response("sent", { headers: { "content-type": "text/css" } })
  ),
  "a text with a status": same(() => new Response("sent", { status: 201 })),
  "JSON": same(() => Response.json([1])),
  "bytes": same(() => new Response(new Uint8Array([1, 2, 3]))),
  "a stream": same(() => new Response(new Blob(["sent"]).stream())),
  "no body": same(() => new Response(null, { status: 201 })),
  "a clone each time": () => {
    const response = new Response("sent");
    return () => response.clone();
  },
  "a text whose headers were read in between": () => {
    const response = new Response("sent");
    return () => {
      response.headers.get("x-a");
      return response;
    };
  },
  "a text of a subclass": () => () => new Missing("sent"),
  "a stream of a subclass": () => () => new Missing(new Blob(["sent"]).stream()),
  "a text with properties of its own": () => () => pretend(new Response("sent")),
  "JSON with properties of its own": () => () => pretend(Response.json([1], { status: 201 })),
  "a stream with properties of its own": () => () =>
    pretend(new Response(new Blob(["sent"]).stream())),
  "an object with the prototype alone": () => () => Object.create(Response.prototype),
  "an object like a Response": () => () => ({ status: 200, headers: new Headers(), body: null }),
};

function same(make: () => Response): () => () => Response {
  return () => {
    const response = make();
    return () => response;
  };
}

const { error } = console;

async function ask(start: typeof overDenoServe, make: () => unknown) {
  console.error = () => {};
  try {
    await using over = start(() => Promise.resolve(make() as Response));
    const seen = [];
    for (let turn = 0; turn < 2; turn++) {
      const { status, headers, body } = await over.ask({ method: "GET", target: "/", headers: [] });
      // What an error's page says is the server's own.
      seen.push(status === 500 ? [status] : [status, headers.get("x-a"), text(body)]);
    }
    return seen;
  } finally {
    console.error = error;
  }
}

for (const [transport, start] of Object.entries(IN_PROCESS)) {
  for (const [name, make] of Object.entries(RESPONSES)) {
    Deno.test(`over ${transport} a response is sent twice as Deno.serve sends it: ${name}`, async () => {
      assertEquals(await ask(start, make()), await ask(overDenoServe, make()));
    });
  }

  Deno.test(`over ${transport} a response is sent though globalThis.Response was replaced`, async () => {
    const { Response } = globalThis;
    const make = () => new Response("sent");
    globalThis.Response = class Other {} as unknown as typeof Response;
    try {
      assertEquals(await ask(start, make), [[200, null, "sent"], [200, null, "sent"]]);
      assertEquals(await ask(overDenoServe, make), [[200, null, "sent"], [200, null, "sent"]]);
    } finally {
      globalThis.Response = Response;
    }
  });
}
