import { assert, assertEquals } from "@std/assert";
import { LineQueue, type LineQueueOptions } from "../../io/line_queue.ts";
import { concat, text } from "../testing/bytes.ts";
import { deadline, eventually } from "../testing/deadline.ts";
import { turns } from "../testing/serving.ts";
import { VirtualTime } from "../testing/virtual_time.ts";

const MIB = 1_048_576;

/** An output whose writes end when a test says so. */
class Output {
  /** The bytes of each write. */
  readonly written: Uint8Array[] = [];
  /** Whether writes end at once. */
  open = true;
  /** What a write takes at most, or an error. */
  takes: number | Error = Infinity;
  #blocked = Promise.withResolvers<void>();
  #begun = Promise.withResolvers<void>();

  async write(bytes: Uint8Array): Promise<number> {
    this.#begun.resolve();
    if (!this.open) await this.#blocked.promise;
    return this.writeSync(bytes);
  }

  writeSync(bytes: Uint8Array): number {
    if (this.takes instanceof Error) throw this.takes;
    const part = bytes.slice(0, this.takes);
    this.written.push(part);
    return part.length;
  }

  /** Ends the writes that have begun, and all others at once. */
  release(): void {
    this.open = true;
    this.#blocked.resolve();
  }

  get lines(): string[] {
    return text(concat(this.written)).split("\n").slice(0, -1);
  }
}

/** Creates a queue with what it reports. */
function queueTo(output: Output, options: Partial<LineQueueOptions> = {}): [LineQueue, string[]] {
  const reports: string[] = [];
  const queue = new LineQueue(output, {
    name: "the log",
    formatDropped: (count) => `# ${count}`,
    report: (line) => reports.push(line),
    ...options,
  });
  return [queue, reports];
}

const numbered = (count: number, width = 6) =>
  Array.from({ length: count }, (_, i) => String(i).padStart(width, "0"));

Deno.test("LineQueue writes lines in order, and together what arrives during a write", async () => {
  const output = new Output();
  output.open = false;
  const [queue, reports] = queueTo(output);
  const lines = ["first", "", "é\u{1f4a9}", ...numbered(100), "x".repeat(300_000), "last"];
  for (const line of lines) queue.write(line);
  await turns(2);
  assertEquals(output.written, []);
  output.release();
  await deadline(queue.flush(), "the lines");
  const expected = new TextEncoder().encode(lines.map((line) => `${line}\n`).join(""));
  assertEquals(concat(output.written), expected);
  assert(output.written.length < 6, `${output.written.length} writes`);
  assertEquals(reports, []);
});

Deno.test("LineQueue writes a line by itself, without another one and without flush()", async () => {
  const output = new Output();
  const [queue] = queueTo(output);
  for (const line of ["a", "b", "c"]) {
    queue.write(line);
    queue.write(line);
    await eventually("the lines", () => output.lines.at(-2) === line);
  }
  assertEquals(output.lines, ["a", "a", "b", "b", "c", "c"]);
});

Deno.test("LineQueue writes a whole line where a write takes a part", async () => {
  const output = new Output();
  output.takes = 7;
  const [queue] = queueTo(output);
  const lines = numbered(50, 10);
  for (const line of lines) queue.write(line);
  await queue.flush();
  assertEquals(output.lines, lines);
});

Deno.test("LineQueue drops and counts lines while its output is blocked, and says how many", async () => {
  const output = new Output();
  output.open = false;
  const [queue, reports] = queueTo(output);
  const lines = numbered(20_000, 99);
  for (const line of lines) queue.write(line);
  assertEquals(reports, ["Dropping lines of the log: its output does not take them"]);
  output.release();
  await eventually("what waited", () => output.lines.length > 1);
  await queue.flush();
  const kept = output.lines.slice(0, -1);
  assertEquals(kept, lines.slice(0, kept.length));
  assert(kept.length * 100 <= MIB && kept.length * 100 > MIB - 1000, `${kept.length} lines`);
  const dropped = lines.length - kept.length;
  assertEquals(output.lines.at(-1), `# ${dropped}`);
  const [, report] = reports;
  assertEquals(report.startsWith(`Dropped ${dropped} lines of the log: `), true, report);
  queue.write("again");
  await queue.flush();
  assertEquals(output.lines.at(-1), "again");
});

Deno.test("LineQueue writes no more at once than a pipe takes as a whole, unless its output takes all so", async () => {
  for (const whole of [false, true]) {
    const output = new Output();
    const [queue] = queueTo(output, { whole });
    const lines = numbered(2000, 49);
    // Some while it is idle, the rest while its output is blocked, and once it has taken a write at once.
    for (const line of lines.slice(0, 1000)) queue.write(line);
    await turns(30);
    output.open = false;
    for (const line of lines.slice(1000)) queue.write(line);
    output.release();
    await queue.flush();
    const longest = Math.max(...output.written.map(({ length }) => length));
    assertEquals(longest <= 4096, !whole, String(longest));
    for (const part of output.written) assertEquals(part.at(-1), 10);
    assertEquals(output.lines, lines);
  }
});

Deno.test("LineQueue goes on after writes have failed, and says how many lines that lost", async () => {
  const output = new Output();
  output.takes = new Error("No space left on device (os error 28)");
  const [queue, reports] = queueTo(output);
  queue.write("lost");
  queue.write("lost, too");
  await eventually("a report", () => reports.length > 0);
  await turns(30);
  output.takes = Infinity;
  queue.write("kept");
  await eventually("a line", () => output.lines.includes("kept"));
  await queue.flush();
  assertEquals(
    reports[0],
    "Cannot write the log, and drops lines of it: No space left on device (os error 28)",
  );
  assertEquals(output.lines.toSorted(), ["# 2", "kept"]);
  assertEquals(reports[1], "Dropped 2 lines of the log: its output did not take them");
});

Deno.test("LineQueue completes a line that a failed write has torn", async () => {
  const output = new Output();
  let writes = 0;
  const take = output.writeSync;
  output.writeSync = (bytes) => {
    if (++writes === 3) throw new Error("full");
    return take.call(output, writes === 2 ? bytes.subarray(0, 8) : bytes);
  };
  const [queue] = queueTo(output);
  output.open = false;
  for (const line of ["first", "second", "third", "fourth"]) queue.write(line);
  output.release();
  await eventually("the rest of the line", () => output.lines.length > 3);
  queue.write("fifth");
  await queue.flush();
  assertEquals(output.lines, ["first", "second", "third", "# 1", "fifth"]);
});

Deno.test("LineQueue.flush() ends if its output stays blocked, and reports what is lost", async () => {
  const output = new Output();
  output.open = false;
  const [queue, reports] = queueTo(output);
  for (const line of numbered(10)) queue.write(line);
  await deadline(queue.flush(10), "flush()");
  assertEquals(reports, [
    "Dropped 10 lines of the log: its output did not take them",
  ]);
});

Deno.test("LineQueue.flushSync() writes what waits, but for what is being written", async () => {
  const output = new Output();
  output.open = false;
  const [queue, reports] = queueTo(output);
  queue.write("being written");
  queue.write("waits");
  queue.flushSync();
  assertEquals(output.lines, ["waits"]);
  output.release();
  await turns(2);
  assertEquals(output.lines, ["waits", "being written"]);
  // The program may go on, as after an error that a listener handles.
  queue.write("later");
  await queue.flush();
  assertEquals(output.lines, ["waits", "being written", "later"]);
  assertEquals(reports, []);
});

Deno.test("LineQueue.flushSync() does not wait for a blocked output, and reports what is lost", async () => {
  const output = new Output();
  output.open = false;
  const [queue, reports] = queueTo(output);
  using time = new VirtualTime();
  for (const line of numbered(3)) queue.write(line);
  await time.run(100);
  queue.flushSync();
  assertEquals(output.lines, []);
  assertEquals(reports, [
    "Dropped 3 lines of the log: its output did not take them",
  ]);
});

Deno.test("LineQueue.flushSync() reports what an output does not take", () => {
  const output = new Output();
  output.open = false;
  const [queue, reports] = queueTo(output);
  queue.write("a");
  queue.write("b");
  output.takes = new Error("full");
  queue.flushSync();
  assertEquals(reports, [
    "Dropped 1 line of the log: its output did not take them",
  ]);
});
