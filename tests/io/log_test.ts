import { assertEquals } from "@std/assert";
import { logLine, pipeWriter, safeLog, writeLine } from "../../io/log.ts";
import { concat, text } from "../testing/bytes.ts";
import { turns } from "../testing/serving.ts";

/** Returns what `console.error()` gets meanwhile. */
async function logged(
  act: () => void,
  error: (line: string) => void = () => {},
): Promise<string[]> {
  const lines: string[] = [];
  const { error: own } = console;
  console.error = (line: string) => {
    lines.push(line);
    error(line);
  };
  try {
    act();
    await turns(2);
  } finally {
    console.error = own;
  }
  return lines;
}

function diskFull(): never {
  throw new Error("No space left on device (os error 28)");
}

Deno.test("logLine() does not throw where console.error() does", async () => {
  assertEquals(await logged(() => logLine("a"), diskFull), ["a"]);
});

Deno.test("safeLog() passes lines on, by default to logLine()", async () => {
  const lines: string[] = [];
  assertEquals(await logged(() => safeLog((line) => lines.push(line))("a")), []);
  assertEquals(lines, ["a"]);
  assertEquals(await logged(() => safeLog()("b")), ["b"]);
});

Deno.test("safeLog() passes a line to logLine() where the option throws or rejects", async () => {
  assertEquals(await logged(() => safeLog(diskFull)("a")), ["a"]);
  assertEquals(await logged(() => safeLog(() => Promise.reject(new Error("broken")))("b")), ["b"]);
  assertEquals(await logged(() => safeLog(diskFull)("c"), diskFull), ["c"]);
});

/** An output whose writes take at most so many bytes. */
class Output {
  readonly written: Uint8Array[] = [];
  readonly #most: number;

  constructor(most: number) {
    this.#most = most;
  }

  writeSync(part: Uint8Array): number {
    this.written.push(part.slice(0, this.#most));
    return Math.min(part.length, this.#most);
  }

  async write(part: Uint8Array): Promise<number> {
    await null;
    return this.writeSync(part);
  }

  get text(): string {
    return text(concat(this.written));
  }
}

Deno.test("writeLine() writes a whole line where a write takes a part", () => {
  const output = new Output(3);
  writeLine(output, "a long line");
  writeLine(output, "é");
  assertEquals(output.text, "a long line\n\xc3\xa9\n");
});

Deno.test("writeLine() writes lines one after the other to an output without writeSync()", async () => {
  const output = new Output(3);
  const later = { write: (part: Uint8Array) => output.write(part) };
  writeLine(later, "a long line");
  writeLine(later, "another");
  await turns(2);
  assertEquals(output.text, "a long line\nanother\n");
});

Deno.test("writeLine() drops what an output does not take", async () => {
  let writes = 0;
  const refuses = (act: () => number) => {
    writes++;
    return act();
  };
  for (const act of [diskFull, () => 0, () => NaN, () => -1]) {
    writeLine({ write: () => Promise.resolve(1), writeSync: () => refuses(act) }, "a");
    writeLine({ write: () => Promise.try(() => refuses(act)) }, "b");
    await turns(2);
  }
  assertEquals(writes, 8);
});

Deno.test("pipeWriter() writes synchronously what a pipe has room for, then in order", async () => {
  const calls: string[] = [];
  const written = new Output(100_000);
  const write = pipeWriter({
    writeSync(part) {
      calls.push("sync");
      return written.writeSync(part);
    },
    write(part) {
      calls.push("async");
      return written.write(part);
    },
  });
  const lines = ["a", "b", "c", "d", "e"].map((char) => char.repeat(1500));
  for (const line of lines) write(line);
  assertEquals(calls, ["sync", "sync"]);
  await turns(2);
  assertEquals(calls, ["sync", "sync", "async", "async", "async"]);
  assertEquals(written.text, lines.map((line) => `${line}\n`).join(""));
});

Deno.test("safeLog() gives the option log nothing but the line, as it may be console.log", () => {
  const calls: unknown[][] = [];
  safeLog((...args: unknown[]) => calls.push(args))("line", { requestId: "1" });
  assertEquals(calls, [["line"]]);
});
