/**
 * The load generator of load.c, with the same arguments and output, for where there is no C compiler. It asks about half as
 * fast as the C one: an application faster than that is seen in its CPU time per request.
 */

import process from "node:process";

const [
  protocol,
  port,
  connectionCount,
  duration,
  mostArgument,
  keepArgument,
  holdArgument,
  ...rest
] = Deno.args;
const [file, ...lengths] = rest;
const most = Number(mostArgument) || Infinity;
const keep = keepArgument === "1";
const hold = holdArgument === "1";
const count = Number(connectionCount);
const [head, body, times] = lengths.map(Number);
const request = Deno.readFileSync(file);
const parts = [
  request.subarray(0, head),
  request.subarray(head, head + body),
  request.subarray(head + body),
];

const TILDE = 0x7e;
const LINE_FEED = 0x0a;
const CARRIAGE_RETURN = 0x0d;
const STDOUT = 6;
const END_REQUEST = 3;
const DIALED_AT_ONCE = 256;

const latencies = new Uint32Array(1 << 22);
let measured = 0;
let requests = 0;
let errors = 0;
let reopened = 0;
let content = 0;
let events = 0;
let expected = 0;
let opened = 0;
let dialed = 0;
let stopping = false;
const open = Promise.withResolvers<void>();
const enough = Promise.withResolvers<void>();

/** Where an answer ends; push() tells whether it is whole. */
abstract class Answer {
  got = 0;
  fault = false;
  /** Whether any of it has come. */
  begun = false;
  #open = false;

  abstract push(bytes: Uint8Array, length: number): boolean;

  begin(): void {
    this.got = 0;
    this.fault = this.begun = false;
  }

  protected take(bytes: Uint8Array, from: number, length: number): void {
    this.got += length;
    if (!hold || length === 0) return;
    if (!this.#open) {
      this.#open = true;
      if (dialed < count) dial();
      if (++opened === count) open.resolve();
    }
    if (opened < count) return;
    for (let at = from; at < from + length; at++) if (bytes[at] === TILDE) events++;
  }
}

class FastCGIAnswer extends Answer {
  #header = new Uint8Array(8);
  #headerLength = 0;
  #left = 0;
  #padding = 0;

  override begin(): void {
    super.begin();
    this.#headerLength = 0;
  }

  push(bytes: Uint8Array, length: number): boolean {
    const header = this.#header;
    for (let at = 0; at < length;) {
      if (this.#headerLength < 8) {
        header[this.#headerLength++] = bytes[at++];
        if (this.#headerLength < 8) continue;
        this.#left = header[4] << 8 | header[5];
        this.#padding = header[6];
      }
      const taken = Math.min(length - at, this.#left);
      if (header[1] === STDOUT) this.take(bytes, at, taken);
      // Five bytes of status: nothing went wrong if they are zero.
      if (header[1] === END_REQUEST) {
        for (let i = 0; i < taken; i++) if (this.#left - i > 3 && bytes[at + i]) this.fault = true;
      }
      this.#left -= taken;
      at += taken;
      const skipped = Math.min(length - at, this.#padding);
      this.#padding -= skipped;
      at += skipped;
      if (this.#left > 0 || this.#padding > 0) return false;
      this.#headerLength = 0;
      if (header[1] === END_REQUEST) return true;
    }
    return false;
  }
}

class HTTPAnswer extends Answer {
  #state: "head" | "body" | "chunk size" | "chunk" | "chunk end" | "trailer" = "head";
  #line = "";
  #lines = 0;
  #left = 0;
  #chunked = false;

  override begin(): void {
    super.begin();
    this.#state = "head";
    this.#line = "";
    this.#lines = 0;
    this.#left = 0;
    this.#chunked = false;
  }

  push(bytes: Uint8Array, length: number): boolean {
    for (let at = 0; at < length;) {
      if (this.#state === "body" || this.#state === "chunk") {
        const taken = Math.min(length - at, this.#left);
        this.take(bytes, at, taken);
        this.#left -= taken;
        at += taken;
        if (this.#left > 0) return false;
        if (this.#state === "body") return true;
        this.#state = "chunk end";
        continue;
      }
      const byte = bytes[at++];
      if (byte === CARRIAGE_RETURN) continue;
      if (byte !== LINE_FEED) this.#line += String.fromCharCode(byte);
      else if (this.#takeLine()) return true;
    }
    return false;
  }

  #takeLine(): boolean {
    const line = this.#line.toLowerCase();
    this.#line = "";
    switch (this.#state) {
      case "head":
        if (this.#lines++ === 0) this.fault = !line.startsWith("http/1.1 200");
        else if (line.startsWith("content-length:")) this.#left = Number(line.slice(15));
        else if (line.startsWith("transfer-encoding:")) this.#chunked = true;
        else if (line === "") this.#state = this.#chunked ? "chunk size" : "body";
        return this.#state === "body" && this.#left === 0;
      case "chunk size":
        this.#left = parseInt(line, 16);
        this.#state = this.#left > 0 ? "chunk" : "trailer";
        return false;
      case "chunk end":
        this.#state = "chunk size";
        return false;
      default:
        return line === "";
    }
  }
}

/** The answer of SCGI ends where the connection does. */
class SCGIAnswer extends Answer {
  push(bytes: Uint8Array, length: number): boolean {
    this.take(bytes, 0, length);
    return false;
  }
}

async function write(connection: Deno.Conn, bytes: Uint8Array): Promise<void> {
  let sent = await connection.write(bytes);
  while (sent < bytes.length) sent += await connection.write(bytes.subarray(sent));
}

async function ask(connection: Deno.Conn): Promise<void> {
  if (times === 1) return await write(connection, request);
  await write(connection, parts[0]);
  for (let i = 0; i < times; i++) await write(connection, parts[1]);
  await write(connection, parts[2]);
}

/** Reads one answer; tells whether the connection is still good for another. */
async function receive(
  connection: Deno.Conn,
  answer: Answer,
  buffer: Uint8Array,
): Promise<boolean> {
  while (true) {
    const length = await connection.read(buffer);
    if (length === null) {
      if (protocol !== "scgi") answer.fault = true;
      return false;
    }
    answer.begun = true;
    if (answer.push(buffer, length)) return true;
  }
}

function finish(answer: Answer, began: number): void {
  expected ||= answer.got;
  if (answer.fault || answer.got === 0 || !hold && answer.got !== expected) errors++;
  else {
    requests++;
    if (measured < latencies.length) latencies[measured++] = (performance.now() - began) * 1000;
  }
  content += answer.got;
  if (requests + errors >= most) enough.resolve();
}

/** Asks on one connection for as long as it may; tells since when a request waits that has to be asked again. */
async function serve(
  connection: Deno.TcpConn,
  answer: Answer,
  buffer: Uint8Array,
  waiting: number | undefined,
): Promise<number | undefined> {
  connection.setNoDelay(true);
  for (let answers = 0;; answers++) {
    answer.begin();
    const began = waiting ?? performance.now();
    waiting = undefined;
    let reusable = false;
    try {
      const asked = ask(connection);
      reusable = await receive(connection, answer, buffer);
      await asked;
    } catch {
      answer.fault = true;
    }
    if (stopping) return;
    // Some servers close although asked not to: who asks them has to ask again.
    if (answers > 0 && answer.fault && !answer.begun) {
      reopened++;
      connection.close();
      return began;
    }
    finish(answer, began);
    if (hold) return void await enough.promise;
    if (!keep || !reusable) return void connection.close();
  }
}

async function dial(): Promise<void> {
  dialed++;
  const answer = protocol === "fastcgi"
    ? new FastCGIAnswer()
    : protocol === "http"
    ? new HTTPAnswer()
    : new SCGIAnswer();
  const buffer = new Uint8Array(hold ? 4096 : 65536);
  let waiting: number | undefined;
  do {
    try {
      const connection = await Deno.connect({ hostname: "127.0.0.1", port: Number(port) });
      waiting = await serve(connection, answer, buffer, waiting);
    } catch (error) {
      if (stopping) return;
      if (hold) throw error;
      errors++;
    }
  } while (!stopping);
}

/** The processor time that this process has had, in microseconds. */
function processorTime(): number {
  const { user, system } = process.cpuUsage();
  return user + system;
}

let began = performance.now();
let busy = processorTime();
for (let i = Math.min(count, DIALED_AT_ONCE); i > 0; i--) dial();
if (hold) {
  await open.promise;
  console.log("open");
  began = performance.now();
  busy = processorTime();
}
setTimeout(enough.resolve, Number(duration) * 1000);
await enough.promise;
stopping = true;

const seconds = (performance.now() - began) / 1000;
const sorted = latencies.subarray(0, measured).sort();
const percentile = (share: number) => sorted[Math.floor((measured - 1) * share)] ?? 0;
console.log(JSON.stringify({
  requests,
  errors,
  reopened,
  seconds,
  content,
  events,
  p50: percentile(0.5),
  p99: percentile(0.99),
  busy: (processorTime() - busy) / 1e6 / seconds,
}));
Deno.exit();
