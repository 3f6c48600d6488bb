import { printableLines } from "./printable.ts";

/** The maximum length of a line of the log, in characters. */
const MAX_LINE = 8192;

/** Splits a stream of bytes into lines, with control characters escaped. */
export class LineLog {
  #decoder = new TextDecoder();
  #line = "";
  #onlog: (line: string) => void;

  /** @param onlog Called with each line. */
  constructor(onlog: (line: string) => void) {
    this.#onlog = onlog;
  }

  /** Decodes the next bytes. */
  push(bytes: Uint8Array): void {
    const lines = (this.#line + this.#decoder.decode(bytes, { stream: true })).split(/\r?\n/);
    this.#line = lines.pop()!;
    for (const line of lines) this.#log(line);
    while (this.#line.length > MAX_LINE) {
      this.#log(this.#line.slice(0, MAX_LINE));
      this.#line = this.#line.slice(MAX_LINE);
    }
  }

  /** Logs the last line if it has no line end. */
  end(): void {
    this.#log(this.#line + this.#decoder.decode());
    this.#line = "";
  }

  #log(line: string): void {
    if (line !== "") this.#onlog(printableLines(line));
  }
}
