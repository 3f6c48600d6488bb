/** Unusual responses: each transport sends them as `Deno.serve` does. */
import { assertEquals } from "@std/assert";
import { text } from "../testing/bytes.ts";
import { IN_PROCESS, overDenoServe } from "./transports.ts";
import { silence } from "../testing/silence.ts";

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

/** Defines properties on a response that contradict its actual status, headers and body. */
function redefine(response: Response): Response {
  return Object.defineProperties(response, {
    status: { value: 404 },
    headers: { value: new Headers({ "x-a": "redefined" }) },
    body: { value: null },
  });
}

/** Functions that create a handler's function, which returns a response for each call. */
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
  "a text with redefined properties": () => () => redefine(new Response("sent")),
  "JSON with redefined properties": () => () => redefine(Response.json([1], { status: 201 })),
  "a stream with redefined properties": () => () =>
    redefine(new Response(new Blob(["sent"]).stream())),
  "an object with the prototype alone": () => () => Object.create(Response.prototype),
  "an object like a Response": () => () => ({ status: 200, headers: new Headers(), body: null }),
};

function same(make: () => Response): () => () => Response {
  return () => {
    const response = make();
    return () => response;
  };
}

/** Serves a handler, sends two requests and returns the responses. */
async function sendTwice(start: typeof overDenoServe, make: () => unknown) {
  using _ = silence();

  await using over = start(() => Promise.resolve(make() as Response));
  const seen = [];
  for (let turn = 0; turn < 2; turn++) {
    const { status, headers, body } = await over.send({
      method: "GET",
      target: "/",
      headers: [],
    });
    // Each server has its own error page.
    seen.push(status === 500 ? [status] : [status, headers.get("x-a"), text(body)]);
  }
  return seen;
}

for (const [transport, start] of Object.entries(IN_PROCESS)) {
  for (const [name, make] of Object.entries(RESPONSES)) {
    Deno.test(`${transport} sends a response twice as Deno.serve does: ${name}`, async () => {
      assertEquals(await sendTwice(start, make()), await sendTwice(overDenoServe, make()));
    });
  }

  Deno.test(`${transport} sends a response after globalThis.Response was replaced`, async () => {
    const { Response } = globalThis;
    const make = () => new Response("sent");
    globalThis.Response = class Other {} as unknown as typeof Response;
    try {
      assertEquals(await sendTwice(start, make), [[200, null, "sent"], [200, null, "sent"]]);
      assertEquals(await sendTwice(overDenoServe, make), [[200, null, "sent"], [
        200,
        null,
        "sent",
      ]]);
    } finally {
      globalThis.Response = Response;
    }
  });
}
