/**
 * No byte of one request is ever in a buffer of another: concurrent requests, each with bytes of its own, whose apps
 * read their bodies in every way. Looks at whole backing buffers, not only at the views on them.
 */
import { assert, assertEquals, assertGreater } from "@std/assert";
import type { App } from "../bridge/app.ts";
import { serveFastCGI } from "../fastcgi.ts";
import { cgiGateway, fastCGIGateway, type Gateway, scgiGateway } from "../gateway.ts";
import { serveSCGI } from "../scgi.ts";
import { Random } from "./fuzz/bytes.ts";
import { bytes, concat, text } from "./testing/bytes.ts";
import { deadline } from "./testing/deadline.ts";
import { FakeListener } from "./testing/duplex.ts";
import { FastCGIClient } from "./testing/fastcgi_client.ts";
import { beginRequest, type Pairs, params, stdin, stdinEnd } from "./testing/fastcgi_records.ts";
import { SCGIClient } from "./testing/scgi_client.ts";
import { encodeSCGIHeaders } from "../wire/scgi.ts";

/** How long each part runs, in seconds. */
const SECONDS = Number(Deno.env.get("GATEHOUSE_LEAK_SECONDS") ?? 2) / 4;
const SEED = Number(Deno.env.get("GATEHOUSE_SEED") ?? 1);

/** A word of 4 bytes: two that mark it, and two that name the request. No other bytes of a request look like it. */
const MARK = [0xa5, 0x5a];
const MAX_REQUESTS = 4096;

function wordOf(id: number): Uint8Array<ArrayBuffer> {
  return new Uint8Array([...MARK, 0xc0 + (id >> 6), 0xc0 + (id & 63)]);
}

function patternOf(id: number, length: number): Uint8Array<ArrayBuffer> {
  const word = wordOf(id);
  return Uint8Array.from({ length }, (_, i) => word[i & 3]);
}

/** Asserts that a whole buffer has no word of another request. */
function checkBuffer(id: number, buffer: ArrayBufferLike): void {
  const all = new Uint8Array(buffer);
  const [, , high, low] = wordOf(id);
  for (let at = all.indexOf(MARK[0]); at >= 0; at = all.indexOf(MARK[0], at + 1)) {
    if (at + 4 > all.length || all[at + 1] !== MARK[1]) continue;
    if (all[at + 2] === high && all[at + 3] === low) continue;
    // The last bytes of a pattern may be part of a word.
    if (all[at + 2] < 0xc0 || all[at + 3] < 0xc0) continue;
    const other = all[at + 2] - 0xc0 << 6 | all[at + 3] - 0xc0;
    throw new Error(`a buffer of request ${id} has bytes of request ${other} at ${at}`);
  }
}

/** The bytes that an app has read of one request, which are its own for ever. */
class Reading {
  readonly id: number;
  readonly #kept: Uint8Array[] = [];

  constructor(id: number) {
    this.id = id;
  }

  add(chunk: Uint8Array): void {
    checkBuffer(this.id, chunk.buffer);
    this.#kept.push(chunk);
  }

  /** Asserts that the chunks together are the first bytes of the pattern, and still are. */
  check(): number {
    const all = concat(this.#kept);
    for (const { buffer } of this.#kept) checkBuffer(this.id, buffer);
    assertEquals(text(all), text(patternOf(this.id, all.length)));
    return all.length;
  }
}

/** The ways to read a body. Each returns how many bytes of it were read in order, at most. */
const WAYS: Record<string, (request: Request, reading: Reading) => Promise<void>> = {
  async byob({ body }, reading) {
    const reader = body!.getReader({ mode: "byob" });
    for (let size = 1;; size = size * 3 % 70_001) {
      const { done, value } = await reader.read(new Uint8Array(size));
      if (done) return;
      reading.add(value);
    }
  },
  async reused({ body }, reading) {
    const reader = body!.getReader({ mode: "byob" });
    let buffer = new ArrayBuffer(5000);
    while (true) {
      const { done, value } = await reader.read(new Uint8Array(buffer, 10, 4000));
      if (done) return;
      checkBuffer(reading.id, value.buffer);
      reading.add(value.slice());
      buffer = value.buffer;
      new Uint8Array(buffer).fill(0);
    }
  },
  async min({ body }, reading) {
    const reader = body!.getReader({ mode: "byob" });
    while (true) {
      const { done, value } = await reader.read(new Uint8Array(9000), { min: 7000 });
      if (value && value.length > 0) reading.add(value);
      if (done) return;
    }
  },
  async tee({ body }, reading) {
    const other = new Reading(reading.id);
    const read = async (branch: ReadableStream<Uint8Array>, to: Reading) => {
      for await (const chunk of branch) to.add(chunk);
    };
    const [a, b] = body!.tee();
    await Promise.all([read(a, reading), read(b, other)]);
    assertEquals(other.check(), reading.check());
  },
  async clone(request, reading) {
    const clone = request.clone();
    const [a, b] = await Promise.all([request.bytes(), clone.bytes()]);
    reading.add(a);
    checkBuffer(reading.id, b.buffer);
    assertEquals(text(b), text(a));
  },
  async cancel({ body }, reading) {
    const reader = body!.getReader();
    const { value } = await reader.read();
    if (value) reading.add(value);
    await reader.cancel();
  },
  async releaseLock({ body }, reading) {
    const reader = body!.getReader({ mode: "byob" });
    const { done, value } = await reader.read(new Uint8Array(1000));
    if (done) return;
    reading.add(value);
    const pending = reader.read(new Uint8Array(100)).then(({ value }) => value, () => undefined);
    reader.releaseLock();
    const more = await pending;
    if (more && more.length > 0) reading.add(more);
    // Not a BYOB reader: after a released read its reads wait for ever, in Deno's streams as in Node's.
    for await (const chunk of body!) reading.add(chunk);
  },
  async iterate({ body }, reading) {
    for await (const chunk of body!) reading.add(chunk);
  },
  async bytes(request, reading) {
    reading.add(await request.bytes());
  },
  async early(_request, _reading) {},
};
const NAMES = Object.keys(WAYS);

/** What all apps have read so far. Later requests must not change it. */
let readings: Reading[] = [];
const errors: unknown[] = [];

const app: App = async (request) => {
  const { pathname, search } = new URL(request.url);
  const [id, length] = search.slice(1).split(",").map(Number);
  const reading = new Reading(id);
  readings.push(reading);
  try {
    assertEquals(request.headers.get("x-word"), text(wordOf(id)));
    await WAYS[pathname.slice(1)](request, reading);
    reading.check();
  } catch (error) {
    errors.push(new Error(`${pathname}: ${(error as Error).message}`, { cause: error }));
  }
  const whole = patternOf(id, length);
  if (id % 2 === 0) return new Response(whole);
  const parts = [whole.slice(0, length >> 1), whole.slice(length >> 1)];
  return new Response(
    new ReadableStream({
      async pull(controller) {
        await new Promise((resolve) => setTimeout(resolve, 0));
        const part = parts.shift();
        if (part === undefined) controller.close();
        else if (part.length > 0) controller.enqueue(part);
      },
    }),
  );
};

interface Planned {
  id: number;
  way: string;
  length: number;
}

const LENGTHS = [1, 3, 100, 4000, 16_384, 20_000, 70_000, 150_000];

function planned(id: number, random: Random): Planned {
  return { id: id % MAX_REQUESTS, way: random.pick(NAMES), length: random.pick(LENGTHS) };
}

const pairsOf = ({ id, way, length }: Planned): Pairs => [
  ["CONTENT_LENGTH", String(length)],
  ["SCGI", "1"],
  ["REQUEST_METHOD", "POST"],
  ["REQUEST_URI", `/${way}?${id},${length}`],
  ["HTTP_HOST", "localhost"],
  ["HTTP_X_WORD", text(wordOf(id))],
];

/** Runs rounds of requests until the time is over, then checks what the apps have kept. */
async function rounds(
  concurrency: number,
  run: (requests: Planned[], random: Random) => Promise<unknown>,
): Promise<void> {
  const random = new Random(SEED);
  readings = [];
  let count = 0;
  const end = performance.now() + SECONDS * 1000;
  do {
    const requests = Array.from({ length: concurrency }, () => planned(count++, random));
    await deadline(run(requests, random), "a round of requests", 60_000);
    // The chunks of the last rounds, since more would fill the memory.
    if (readings.length > 200) {
      for (const reading of readings.splice(0, 100)) reading.check();
    }
  } while (performance.now() < end);
  for (const reading of readings) reading.check();
  assertGreater(count, concurrency - 1);
  if (errors.length > 0) throw errors.splice(0)[0];
}

function checkResponse({ id, length }: Planned, body: Uint8Array): void {
  assertEquals(text(body), text(patternOf(id, length)));
}

Deno.test("no byte of one FastCGI request is in a buffer of another", async () => {
  const listener = new FakeListener();
  await using _server = serveFastCGI(app, listener, { log: (line) => errors.push(line) });
  await rounds(12, async (requests, random) => {
    // Two connections, each with interleaved requests.
    const halves = [requests.slice(0, 6), requests.slice(6)];
    await Promise.all(halves.map(async (half) => {
      using client = new FastCGIClient(listener.connect(1 << 22)[0]);
      const left = half.map((request, i) => {
        const body = patternOf(request.id, request.length);
        return { id: i + 1, request, body, at: 0 };
      });
      for (const { id, request } of left) {
        await client.send(beginRequest(id, { keep: true }), params(id, pairsOf(request)));
      }
      for (let open = [...left]; open.length > 0;) {
        // Records of several requests arrive in one read.
        const records: Uint8Array[] = [];
        for (let count = 1 + random.below(6); count > 0 && open.length > 0; count--) {
          const one = random.pick(open);
          const part = one.body.subarray(one.at, one.at + 1 + random.below(40_000));
          one.at += part.length;
          records.push(stdin(one.id, part));
          if (one.at < one.body.length) continue;
          records.push(stdinEnd(one.id));
          open = open.filter((other) => other !== one);
        }
        await client.send(...records);
      }
      for (const { id, request } of left) {
        const { body, status } = await client.response(id);
        assertEquals(status, 200);
        checkResponse(request, body);
      }
    }));
  });
});

Deno.test("no byte of one SCGI request is in a buffer of another", async () => {
  const listener = new FakeListener();
  await using _server = serveSCGI(app, listener, { log: (line) => errors.push(line) });
  await rounds(12, (requests, random) =>
    Promise.all(requests.map(async (request) => {
      using client = new SCGIClient(listener.connect()[0]);
      const body = patternOf(request.id, request.length);
      const send = async () => {
        await client.send(encodeSCGIHeaders(pairsOf(request)));
        for (let at = 0; at < body.length;) {
          const part = body.subarray(at, at + 1 + random.below(40_000));
          at += part.length;
          await client.send(part);
        }
      };
      // A server may close the connection before it has read the body.
      const sent = send().catch(() => {});
      const response = await client.response();
      assertEquals(response.status, 200);
      checkResponse(request, response.body);
      await sent;
    })));
});

/** Sends requests through a gateway, and looks at the buffers of the responses. */
async function through(gateway: Gateway, requests: Planned[], path?: string): Promise<void> {
  await Promise.all(requests.map(async (request) => {
    const { id, way, length } = request;
    const body = patternOf(id, length);
    const response = await gateway(
      new Request(`http://localhost/${path ?? way}?${id},${length}`, {
        method: "POST",
        headers: { "x-word": text(wordOf(id)), "content-length": String(length) },
        body: id % 3 === 0 ? body : new Blob([body]).stream(),
      }),
    );
    assertEquals(response.status, 200);
    const reading = new Reading(id);
    for await (const chunk of response.body!) reading.add(chunk);
    assertEquals(reading.check(), length);
    readings.push(reading);
  }));
}

const local = () => Deno.listen({ hostname: "127.0.0.1", port: 0 });
const log = (line: string) => void errors.push(line);

Deno.test("no byte of one request is in a buffer of another, through fastCGIGateway() and scgiGateway()", async () => {
  await using fastcgi = serveFastCGI(app, local(), { log });
  await using scgi = serveSCGI(app, local(), { log });
  const address = (addr: Deno.Addr) => `127.0.0.1:${(addr as Deno.NetAddr).port}` as const;
  using toFastCGI = fastCGIGateway(address(fastcgi.addr), { log });
  using toSCGI = scgiGateway(address(scgi.addr), { log });
  await rounds(
    16,
    (requests) =>
      Promise.all([
        through(toFastCGI, requests.slice(0, 8)),
        through(toSCGI, requests.slice(8)),
      ]),
  );
});

Deno.test("no byte of one request is in a buffer of another, through cgiGateway()", async () => {
  const root = await Deno.makeTempDir();
  const script = `${root}/cat`;
  await Deno.writeTextFile(script, "#!/bin/sh\necho 'Content-Type: a/b'\necho\ncat\n", {
    mode: 0o755,
  });
  await Deno.chmod(script, 0o755);
  try {
    using gateway = cgiGateway({ root, log });
    await rounds(8, (requests) => through(gateway, requests, "cat"));
  } finally {
    await Deno.remove(root, { recursive: true });
  }
});

Deno.test("checkBuffer() finds a word of another request, and only that", () => {
  checkBuffer(7, patternOf(7, 1001).slice(3).buffer);
  let found = false;
  try {
    checkBuffer(7, concat([new Uint8Array(5), patternOf(7, 40), patternOf(8, 5)]).buffer);
  } catch {
    found = true;
  }
  assert(found);
  assertEquals(bytes("").length, 0);
});
