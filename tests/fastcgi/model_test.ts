/**
 * Random connections: records in any order, valid and broken, with apps that respond early, late, never or not at all,
 * and web servers that do not read. Whatever comes, a connection must leave nothing behind (rule F8).
 */
import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import { type FastCGIOptions, serveFastCGI } from "../../fastcgi.ts";
import { bytes, concat } from "../testing/bytes.ts";
import { deadline } from "../testing/deadline.ts";
import { FakeListener } from "../testing/duplex.ts";
import { request, variables } from "../testing/fastcgi_client.ts";
import {
  abortRequest,
  beginRequest,
  firstRecord,
  nameValuePairs,
  params,
  type Received,
  record,
  stdin,
  stdinEnd,
  Type,
} from "../testing/fastcgi_records.ts";
import { turns } from "../testing/serving.ts";

const MAX_REQUESTS = 8;
const MAX_ID = 12;
/** The interval at which a server enforces its timeouts, in milliseconds. */
const TICK = 500;
/** A management record of a type that the specification does not have. */
const UNKNOWN_TYPE = 200;
/** How many bytes may wait for a web server that does not read: the server's limit, and what sockets and buffers hold. */
const MAX_PENDING = 4 * 1024 * 1024 + 1024 * 1024;
const OPTIONS: FastCGIOptions = { maxRequests: MAX_REQUESTS, maxRequestsPerConnection: 64 };

/** What an app does with a request. */
const APPS = ["early", "echo", "late", "never", "throws", "large", "endless", "unread"] as const;

type Step =
  | { do: "begin"; id: number; keep: boolean; role: number }
  | { do: "params"; id: number; app: typeof APPS[number]; split: boolean }
  | { do: "request"; id: number; keep: boolean; app: typeof APPS[number] }
  | { do: "stdin"; id: number; length: number }
  | { do: "stdinEnd" | "abort"; id: number }
  | { do: "management"; count: number }
  | { do: "garbage" | "read" | "halfClose" | "release" | "turn" };

const id = fc.integer({ min: 1, max: MAX_ID });
const app = fc.constantFrom(...APPS);
/** Closing is rarer than keeping. */
const keep = fc.integer({ min: 0, max: 3 }).map((n) => n > 0);
const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 3,
    arbitrary: fc.record({
      do: fc.constant("begin" as const),
      id,
      keep,
      role: fc.constantFrom(1, 1, 1, 1, 2, 7),
    }),
  },
  {
    weight: 3,
    arbitrary: fc.record({ do: fc.constant("params" as const), id, app, split: fc.boolean() }),
  },
  { weight: 4, arbitrary: fc.record({ do: fc.constant("request" as const), id, keep, app }) },
  {
    weight: 2,
    arbitrary: fc.record({
      do: fc.constant("stdin" as const),
      id,
      length: fc.integer({ min: 1, max: 9000 }),
    }),
  },
  { weight: 2, arbitrary: fc.record({ do: fc.constantFrom("stdinEnd" as const, "abort"), id }) },
  {
    weight: 1,
    arbitrary: fc.record({
      do: fc.constant("management" as const),
      count: fc.constantFrom(1, 5, 400_000),
    }),
  },
  {
    weight: 3,
    arbitrary: fc.record({ do: fc.constantFrom("read" as const, "release", "turn") }),
  },
  { weight: 1, arbitrary: fc.record({ do: fc.constantFrom("garbage" as const, "halfClose") }) },
);

/** A call of the app. */
interface Call {
  id: number;
  path: string;
  signal: AbortSignal;
  settled: boolean;
}

/** An app that records its calls. */
class RecordingApp {
  readonly calls: Call[] = [];
  #gate = Promise.withResolvers<void>();

  /** Lets the late handlers respond. */
  release(): void {
    this.#gate.resolve();
    this.#gate = Promise.withResolvers();
  }

  readonly fetch = async (request: Request): Promise<Response> => {
    const { pathname, search } = new URL(request.url);
    const call = {
      id: Number(search.slice(1)),
      path: pathname.slice(1),
      signal: request.signal,
      settled: false,
    };
    this.calls.push(call);
    try {
      return await this.#respond(call.path, request);
    } finally {
      call.settled = true;
    }
  };

  async #respond(path: string, request: Request): Promise<Response> {
    switch (path) {
      case "echo":
        return new Response(await request.bytes());
      case "late":
        await this.#gate.promise;
        return new Response("late");
      case "never":
        return await new Promise(() => {});
      case "throws":
        throw new Error("thrown");
      case "large":
        return new Response(new Uint8Array(300_000));
      case "endless":
        return new Response(
          new ReadableStream({ pull: (controller) => controller.enqueue(new Uint8Array(9000)) }),
        );
      default:
        return new Response(path);
    }
  }

  /**
   * The maximum number of requests that may count as in progress: those whose handler runs, and those whose response is
   * not complete.
   */
  get running(): number {
    return this.calls.filter(({ settled, signal, path }) =>
      !settled || !signal.aborted && (path === "endless" || path === "large")
    ).length;
  }
}

const variablesOf = (path: string, id: number) =>
  variables({ REQUEST_METHOD: "POST", REQUEST_URI: `/${path}?${id}` });

/** Returns the bytes of a step, or null if it has none. */
function encode(step: Step): Uint8Array | null {
  switch (step.do) {
    case "begin":
      return beginRequest(step.id, step);
    case "params": {
      const { id, app, split } = step;
      if (!split) return params(id, variablesOf(app, id));
      const pairs = [...nameValuePairs(variablesOf(app, id))];
      const records = pairs.map((byte) => record(Type.params, id, new Uint8Array([byte])));
      return concat([...records, record(Type.params, id)]);
    }
    case "request":
      return request({ ...step, variables: variablesOf(step.app, step.id), body: bytes("body") });
    case "stdin":
      return stdin(step.id, new Uint8Array(step.length));
    case "stdinEnd":
      return stdinEnd(step.id);
    case "abort":
      return abortRequest(step.id);
    case "management": {
      const one = record(UNKNOWN_TYPE, 0);
      const all = new Uint8Array(one.length * step.count);
      for (let at = 0; at < all.length; at += one.length) all.set(one, at);
      return all;
    }
    case "garbage":
      return bytes("GET / HTTP/1.1\r\n\r\n");
    default:
      return null;
  }
}

/** The web server's end of a connection. It writes without waiting, and reads only when a test says so. */
class WebServer {
  readonly records: Received[] = [];
  ended = false;
  /** Whether the server has sent all, and drops what it still receives. */
  isDrained = false;
  #conn: ReturnType<FakeListener["connect"]>;
  #sending: Promise<void> = Promise.resolve();
  #bytes: Uint8Array = new Uint8Array();
  #mayRead = Promise.withResolvers<void>();

  constructor(listener: FakeListener) {
    this.#conn = listener.connect();
    const [, theirs] = this.#conn;
    const closeWrite = theirs.closeWrite.bind(theirs);
    theirs.closeWrite = () => {
      this.isDrained = true;
      return closeWrite();
    };
    this.#read();
  }

  send(part: Uint8Array): void {
    const [ours] = this.#conn;
    this.#sending = this.#sending.then(async () => {
      for (let at = 0; at < part.length;) at += await ours.write(part.subarray(at));
    }).catch(() => {}); // The server has closed the connection.
  }

  halfClose(): void {
    this.#sending = this.#sending.then(() => this.#conn[0].closeWrite());
  }

  close(): void {
    this.#conn[0].close();
  }

  /** Reads what comes within some turns. */
  async read(count: number): Promise<void> {
    this.#mayRead.resolve();
    await turns(count);
    this.#mayRead = Promise.withResolvers();
  }

  async #read(): Promise<void> {
    const buffer = new Uint8Array(65_536);
    let reads = 0;
    while (true) {
      await this.#mayRead.promise;
      const count = await this.#conn[0].read(buffer).catch(() => null);
      if (count === null) break;
      // An endless response would otherwise keep the event loop from turning.
      if (++reads % 100 === 0) await turns(1);
      this.#bytes = concat([this.#bytes, buffer.subarray(0, count)]);
      // A peer that speaks HTTP gets an HTTP response, after all records.
      const isHTTP = () => this.#bytes[0] === "H".charCodeAt(0);
      for (let first; !isHTTP() && (first = firstRecord(this.#bytes)) !== undefined;) {
        this.records.push(first.record);
        this.#bytes = first.rest;
      }
    }
    this.ended = true;
  }

  /** The bytes that the server has sent, whether read or not. */
  get sent(): number {
    return this.#conn[1].written.reduce((sum, { length }) => sum + length, 0);
  }

  /** The bytes that the server has received, but for those that the connection buffers. */
  get received(): number {
    return this.#conn[0].written.reduce((sum, { length }) => sum + length, 0) - 65_536;
  }
}

/** Checks the records of each id that was begun once: nothing follows its one FCGI_END_REQUEST. */
function checkRecords(steps: Step[], records: Received[]): void {
  for (let id = 1; id <= MAX_ID; id++) {
    const begun = steps.filter((step) =>
      (step.do === "begin" || step.do === "request") && step.id === id
    ).length;
    const types = records.filter((record) => record.id === id).map(({ type }) => type);
    if (begun === 0) assertEquals(types, [], "records of a request that was not begun");
    const end = types.indexOf(Type.endRequest);
    if (begun === 1 && end >= 0) assertEquals(end, types.length - 1, `records of ${id}: ${types}`);
  }
}

/**
 * Checks that so many requests are admitted on another connection.
 *
 * @param progress What an aborted request may wait for whose last write the connection has no room for.
 */
async function checkRoom(
  listener: FakeListener,
  app: RecordingApp,
  room: number,
  progress: () => Promise<unknown>,
): Promise<void> {
  const wanted = Math.max(room, 0);
  let admitted = -1;
  for (let attempt = 0; attempt < 5 && admitted < wanted; attempt++) {
    const other = new WebServer(listener);
    const before = app.calls.length;
    for (let id = 1; id <= wanted; id++) {
      other.send(request({ id, keep: true, variables: variablesOf("late", id) }));
    }
    await turns(3);
    admitted = app.calls.length - before;
    other.close();
    app.release();
    await turns(2);
    if (admitted < wanted) await progress();
  }
  assertEquals(admitted, wanted, "requests that are admitted");
}

/** The number of requests that were begun without complete variables, at most. */
function withoutVariables(steps: Step[]): number {
  const ids = new Set<number>();
  for (const step of steps) {
    if (step.do === "begin") ids.add(step.id);
    else if (step.do === "params") ids.delete(step.id);
  }
  return ids.size;
}

/** Runs the intervals of the server's timeouts when a test says so, as well as in time. */
class Intervals implements Disposable {
  #real = globalThis.setInterval;
  #run: (() => void)[] = [];

  constructor() {
    globalThis.setInterval = ((run: () => void, delay: number) => {
      if (delay === TICK) this.#run.push(run);
      return this.#real(run, delay);
    }) as typeof setInterval;
  }

  tick(): void {
    for (const run of this.#run) run();
  }

  [Symbol.dispose](): void {
    globalThis.setInterval = this.#real;
  }
}

async function run(steps: Step[]): Promise<void> {
  using timers = new Intervals();
  const listener = new FakeListener();
  const app = new RecordingApp();
  const server = serveFastCGI(app, listener, { ...OPTIONS, log: () => {} });
  const web = new WebServer(listener);
  for (const step of steps) {
    const part = encode(step);
    if (part !== null) web.send(part);
    if (step.do === "halfClose") web.halfClose();
    else if (step.do === "release") app.release();
    else if (step.do === "read") await web.read(3);
    else await turns(1);
  }
  app.release();
  await turns(3);

  const flood = steps.reduce((sum, step) => sum + (step.do === "management" ? step.count : 0), 0);
  if (flood > 0 && !web.ended && !web.isDrained) {
    // An unknown type is 8 bytes, and its response 16.
    const others = steps.reduce(
      (sum, step) => sum + (step.do === "management" ? 0 : encode(step)?.length ?? 0),
      0,
    );
    const pending = 2 * (web.received - others) - web.sent;
    assert(pending < MAX_PENDING, `${pending} bytes are pending`);
  }
  const room = MAX_REQUESTS - app.running - withoutVariables(steps);
  await checkRoom(listener, app, room, () => web.read(4));

  let unread: number;
  do {
    unread = web.sent;
    await web.read(4);
  } while (web.sent > unread && web.sent < 5_000_000);
  checkRecords(steps, web.records);
  if (!web.ended) {
    for (const { id, settled, path } of app.calls.slice(0)) {
      if (!settled || path === "late" || path === "large" || path === "endless") continue;
      const ends = web.records.filter((record) =>
        record.id === id && record.type === Type.endRequest
      );
      assert(ends.length > 0, `request ${id} to /${path} has no end`);
    }
  }
  web.close();
  // After a half-close the server notices the end only by a write: the second one fails.
  for (let i = 0; i < 3; i++) {
    await turns(2);
    timers.tick();
  }
  for (const { id, settled, signal, path } of app.calls) {
    assert(settled || signal.aborted, `the handler of ${id} to /${path} has not been aborted`);
  }
  await checkRoom(listener, app, MAX_REQUESTS - app.running, () => turns(2));
  await deadline(server.shutdown(), "the server's end");
}

/** Connections that left something behind. */
const FOUND: Step[][] = [
  [{ do: "request", id: 1, keep: false, app: "large" }, {
    do: "begin",
    id: 1,
    keep: false,
    role: 1,
  }],
  [{ do: "request", id: 1, keep: false, app: "endless" }, {
    do: "request",
    id: 2,
    keep: false,
    app: "early",
  }],
  [{ do: "management", count: 400_000 }],
  [{ do: "begin", id: 1, keep: false, role: 2 }, { do: "management", count: 400_000 }],
];

Deno.test("a FastCGI connection leaves nothing behind, whatever comes over it", async () => {
  const seed = Deno.env.get("GATEHOUSE_SEED");
  await fc.assert(fc.asyncProperty(fc.array(step, { minLength: 1, maxLength: 14 }), run), {
    numRuns: Number(Deno.env.get("GATEHOUSE_RUNS") ?? 100),
    examples: FOUND.map((steps) => [steps]),
    ...(seed === undefined ? {} : { seed: Number(seed) }),
  });
});
