/** Random requests and apps: each transport behaves as `Deno.serve`, but for the differences in docs/differences.md. */
import { assertEquals } from "@std/assert";
import { text } from "../testing/bytes.ts";
import { type ClientRequest, IN_PROCESS, overDenoServe, type Transport } from "./transports.ts";
import { silence } from "../testing/silence.ts";

const CASES = 200;
const SEED = 20_260_729;

/** Returns a generator of numbers from 0 to 1 that are the same in each run (mulberry32). */
function createRandom(seed: number): () => number {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

const random = createRandom(SEED);
const below = (count: number) => Math.floor(random() * count);
const pick = <T>(items: readonly T[]): T => items[below(items.length)];
const some = <T>(max: number, create: () => T): T[] =>
  Array.from({ length: below(max + 1) }, create);

const METHODS = ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "PROPFIND", "patch"];
const SEGMENTS = ["a", "b%20c", "caf%C3%A9", "%E9", "%2F", ".", "..", "", "~x;y=1", "%zz", "a+b"];
const QUERIES = ["", "?", "?a=b", "?a=b&c=%20", "?a?b=/c", "?q='x'&[]", "?%FF"];
const VALUES = ["1", "a, b", "text/html;q=0.5", 'a "quoted" one', "a\tb", "x".repeat(900)];
const TYPES = ["text/plain", "application/json", "text/html; charset=utf-8", "x/y"];

function createData(): Uint8Array<ArrayBuffer> {
  const length = pick([0, 1, 5, 100, 5000, 70_000]);
  return Uint8Array.from({ length }, () => below(256));
}

function createRequest(): ClientRequest {
  const method = pick(METHODS);
  const headers: ClientRequest["headers"] = [
    ...some(4, (): [string, string] => [`X-${below(5)}`, pick(VALUES)]),
    ...some(2, (): [string, string] => ["Cookie", `c${below(9)}=${below(9)}`]),
  ];
  if (random() < 0.3) headers.push(["Host", pick(["other.example", "[::1]:99", "example.org:80"])]);
  if (random() < 0.5) headers.push(["Content-Type", pick(TYPES)]);
  return {
    method,
    target: "/" + some(4, () => pick(SEGMENTS)).join("/") + pick(QUERIES),
    headers,
    ...(random() < 0.6 && method !== "HEAD" ? { body: createData() } : {}),
  };
}

type Note = (name: string, value: unknown) => void;

/** Ways to use a request's body. */
const USES: Record<string, (request: Request, note: Note) => Promise<void> | void> = {
  "none": () => {},
  "text": async (request, note) => note("text", await request.text()),
  "bytes": async (request, note) => note("bytes", await request.bytes()),
  "blob": async (request, note) => {
    const blob = await request.blob();
    note("blob", [blob.type, await blob.bytes()]);
  },
  "text twice": async (request, note) => {
    note("text", await request.text());
    note("again", await request.text().catch((error) => error.name));
  },
  "JSON": async (request, note) => note("JSON", await request.json().catch((error) => error.name)),
  "clone": async (request, note) => {
    const clone = request.clone();
    note("both", await Promise.all([request.bytes(), clone.bytes()]));
  },
  "clone, and the clone alone": async (request, note) => {
    note("clone", await request.clone().text());
  },
  "tee": async (request, note) => {
    const parts = request.body?.tee() ?? [];
    note("both", await Promise.all(parts.map((part) => new Response(part).bytes())));
  },
  "reader": async (request, note) => {
    const parts: Uint8Array<ArrayBuffer>[] = [];
    for await (const part of request.body ?? []) parts.push(part);
    note("parts", await new Blob(parts).bytes());
  },
  "BYOB": async (request, note) => {
    const parts: Uint8Array<ArrayBuffer>[] = [];
    let reader;
    try {
      reader = request.body?.getReader({ mode: "byob" });
    } catch (error) {
      note("BYOB", (error as Error).name);
      return;
    }
    while (reader) {
      const { done, value } = await reader.read(new Uint8Array(777));
      if (done) break;
      if (value.length === 0) throw new Error("a read of no bytes");
      parts.push(value);
    }
    note("BYOB", await new Blob(parts).bytes());
  },
  "cancel": async (request, note) => {
    await request.body?.cancel("enough");
    note("after", await request.text().catch((error) => error.name));
  },
  "new Request": async (request, note) => {
    const made = new Request(request, { headers: { "x-b": "2" } });
    note("made", [made.method, made.headers.get("x-b"), await made.text()]);
  },
  "new Request of another URL": async (request, note) => {
    const made = new Request("http://moved.example/x", request);
    note("made", [made.url, made.method, made.headers.get("x-1"), await made.text()]);
  },
  "headers": (request, note) => {
    try {
      request.headers.set("x-1", "changed");
    } catch (error) {
      note("error", (error as Error).name);
    }
    note("changed", [request.headers.get("x-1"), request.headers.has("x-2")]);
  },
};

/** Ways to create the body of a response. */
const BODIES: Record<string, (request: Request, data: Uint8Array<ArrayBuffer>) => BodyInit | null> =
  {
    "none": () => null,
    "text": (_, data) => text(data),
    "bytes": (_, data) => data,
    "buffer": (_, data) => data.slice().buffer,
    "blob": (_, data) => new Blob([data], { type: "x/blob" }),
    "form": (_, data) => new URLSearchParams({ a: String(data.length) }),
    "stream": (_, data) => new Blob([data]).stream(),
    "slow stream": (_, data) => slowStream(data, false),
    "stream that fails": (_, data) => slowStream(data, true),
    "request's body": (request) => request.bodyUsed ? "used" : request.body,
  };

function slowStream(data: Uint8Array<ArrayBuffer>, fails: boolean): ReadableStream<Uint8Array> {
  let at = 0;
  return new ReadableStream({
    async pull(controller) {
      await new Promise((resolve) => setTimeout(resolve, 0));
      const part = data.subarray(at, at += 20_000);
      if (part.length > 0) controller.enqueue(part.slice());
      else if (fails) controller.error(new Error("broken"));
      else controller.close();
    },
  }, { highWaterMark: 0 });
}

/** The body that Deno.serve sends in these tests if the app fails. */
const FAILED = "500 Internal Server Error\n";

/** Ways for an app to fail instead of returning a response. */
const FAILURES: Record<string, () => unknown> = {
  "throws": () => {
    throw new Error("the secret");
  },
  "rejects": () => Promise.reject(new TypeError("the secret")),
  "returns undefined": () => undefined,
  "returns Response.error()": () => Response.error(),
  "returns a response that was read": async () => {
    const response = new Response("x");
    await response.text();
    return response;
  },
};

interface Behaviour {
  use: string;
  body: string;
  data: Uint8Array<ArrayBuffer>;
  init: ResponseInit;
  failure?: string;
  changesHeaders: boolean;
}

function createBehaviour({ body }: ClientRequest): Behaviour {
  const use = pick(Object.keys(USES));
  const bodies = Object.keys(BODIES).filter((name) =>
    name !== "request's body" || body !== undefined && body.length > 0 && use !== "BYOB"
  );
  const status = pick([200, 200, 200, 201, 204, 205, 299, 301, 304, 404, 418, 500, 503, 599]);
  const headers: [string, string][] = [
    ...some(3, (): [string, string] => [`X-${below(5)}`, pick(VALUES)]),
    ...some(2, (): [string, string] => ["Set-Cookie", `c${below(9)}=${below(9)}; Path=/`]),
  ];
  if (random() < 0.4) headers.push(["Content-Type", pick(TYPES)]);
  if (random() < 0.1) headers.push(["Content-Encoding", "x-own"]);
  if (random() < 0.1) headers.push(["X-Bytes", "caf\xe9"]);
  if (random() < 0.1) headers.push(["Cache-Control", "no-store"]);
  if (status === 301) headers.push(["Location", "/elsewhere"]);
  return {
    use,
    body: [204, 205, 304].includes(status) ? "none" : pick(bodies),
    data: createData(),
    init: { status, headers, ...(random() < 0.2 ? { statusText: "Fine" } : {}) },
    ...(random() < 0.1 ? { failure: pick(Object.keys(FAILURES)) } : {}),
    changesHeaders: random() < 0.2,
  };
}

/** The request as the app saw it, and the response as the client received it. */
interface Outcome {
  seen: Record<string, unknown>;
  status: number | undefined;
  headers: [string, string][];
  body: Uint8Array;
}

/** Creates an app that behaves as `current()` says, and passes the request as it sees it to `see()`. */
function createApp(current: () => Behaviour, see: (seen: Record<string, unknown>) => void) {
  return async (request: Request, info: Deno.ServeHandlerInfo): Promise<Response> => {
    const { use, body, data, init, failure, changesHeaders } = current();
    const { hostname, transport } = info.remoteAddr as Deno.NetAddr;
    const seen: Record<string, unknown> = {
      method: request.method,
      url: request.url,
      headers: [...request.headers],
      hasBody: request.body !== null,
      aborted: request.signal.aborted,
      client: [transport, hostname],
      isRequest: request instanceof Request,
    };
    see(seen);
    await USES[use](request, (name, value) => seen[name] = value);
    seen.used = request.bodyUsed;
    if (failure !== undefined) return await FAILURES[failure]() as Response;
    const response = new Response(BODIES[body](request, data), init);
    if (changesHeaders) {
      response.headers.append("x-1", "appended");
      response.headers.delete("content-type");
    }
    return response;
  };
}

/** The properties of `Outcome.seen` that depend on the request's body. */
const BODY_PROPERTIES = ["hasBody", "used", "both", "after", "BYOB", "again"];

function drop(headers: [string, string][], names: string[]): [string, string][] {
  return headers.filter(([name]) => !names.includes(name));
}

/** The rows of the table in docs/differences.md; each function removes its difference from the two outcomes. */
const DIFFERENCES: Record<string, (native: Outcome, ours: Outcome, test: Case) => void> = {
  "`connection` and its like in a request": (native, ours) => {
    for (const { seen } of [native, ours]) {
      seen.headers = drop(seen.headers as [string, string][], ["connection"]);
    }
  },
  "`content-length: 0` in a request": (native, ours) => {
    for (const { seen } of [native, ours]) {
      seen.headers = (seen.headers as [string, string][]).filter(([name, value]) =>
        name !== "content-length" || value !== "0"
      );
    }
  },
  "`request.url` with dot segments or characters to encode": (native, ours) => {
    for (const { seen } of [native, ours]) seen.url = new URL(seen.url as string).href;
  },
  '`getReader({ mode: "byob" })`': (native, ours) => {
    if (![native, ours].some(({ seen }) => seen.BYOB === "TypeError")) return;
    for (const { seen } of [native, ours]) for (const name of BODY_PROPERTIES) delete seen[name];
  },
  "A body without `content-type`": (native, ours) => {
    const hasType = ({ headers }: Outcome) => headers.some(([name]) => name === "content-type");
    if (!hasType(native)) {
      ours.headers = ours.headers.filter(([name, value]) =>
        name !== "content-type" ||
        !["application/octet-stream", "text/plain; charset=utf-8"].includes(value)
      );
    }
  },
  "`content-length`": (native, ours) => {
    for (const outcome of [native, ours]) {
      outcome.headers = drop(outcome.headers, ["content-length"]);
    }
  },
  "`date`, `connection`, `transfer-encoding`, `vary`": (native, ours) => {
    for (const outcome of [native, ours]) {
      outcome.headers = drop(outcome.headers, ["date", "connection", "transfer-encoding", "vary"]);
    }
  },
  "The response where the app fails": (native, ours) => {
    if (text(native.body) !== FAILED) return;
    for (const outcome of [native, ours]) {
      outcome.headers = [];
      outcome.body = new Uint8Array();
    }
  },
};

interface Case {
  request: ClientRequest;
  behaviour: Behaviour;
}

/** The uses that read the whole body. After others `Deno.serve` resets the connection if the body is still in transit. */
const WHOLE_BODY_USES = ["text", "bytes", "blob", "text twice", "JSON", "clone", "tee", "reader"];
/** The length of a body that arrives together with the headers, in bytes. */
const SMALL_BODY = 100;

const cases: Case[] = Array.from({ length: CASES }, () => {
  const request = createRequest();
  const behaviour = createBehaviour(request);
  if (request.method === "GET" || !WHOLE_BODY_USES.includes(behaviour.use)) {
    request.body = request.body?.slice(0, SMALL_BODY);
  }
  return { request, behaviour };
});

Deno.test("docs/differences.md has a row for each difference that the random test allows", async () => {
  const page = await Deno.readTextFile(new URL("../../docs/differences.md", import.meta.url));
  const [first] = page.split("\n## ");
  const rows = first.split("\n").filter((line) => line.startsWith("|")).slice(2);
  assertEquals(rows.map((row) => row.split(" | ")[0].slice(2).trim()), Object.keys(DIFFERENCES));
});

for (const [transport, start] of Object.entries(IN_PROCESS)) {
  Deno.test(`${transport} handles ${CASES} random requests and responses as Deno.serve does`, async (t) => {
    using _ = silence();
    let test = cases[0];
    let seen: Record<string, unknown> = {};
    const app = createApp(() => test.behaviour, (value) => seen = value);
    const outcome = async (over: Transport): Promise<Outcome> => {
      const { status, headers, body } = await over.send(test.request);
      return { seen, status, headers: [...headers], body };
    };

    await using native = overDenoServe(app);
    await using ours = start(app);
    for (const [number, current] of cases.entries()) {
      test = current;
      const { request: { method, target }, behaviour: { use, body, failure } } = test;
      await t.step(`${number}: ${method} ${target}, ${use}, ${failure ?? body}`, async () => {
        const [expected, actual] = [await outcome(native), await outcome(ours)];
        for (const adapt of Object.values(DIFFERENCES)) adapt(expected, actual, test);
        assertEquals(actual, expected);
      });
    }
  });
}
