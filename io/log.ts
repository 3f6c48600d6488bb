/** Where a line is written: the part of `Deno.stdout` that is used. */
export interface LineOutput {
  /** Writes some of the bytes and returns their number. */
  write(bytes: Uint8Array): Promise<number>;
  /** Does the same synchronously. */
  writeSync?(bytes: Uint8Array): number;
}

/** The request that a line belongs to. */
export interface LogSource {
  readonly requestId: string;
}

/** Writes a line of a log, which belongs to a request if there is a source. */
export type LogFunction<Source extends LogSource = LogSource> = (
  line: string,
  source?: Source,
) => unknown;

const encoder = new TextEncoder();
/** How lines are formatted, and what writes them in place of the console. */
let format: (line: string, source?: LogSource) => string = (line) => line;
let writer: ((line: string) => void) | undefined;

/** Sets the format of {@linkcode logLine}. */
export function formatLog(formatLine: typeof format): void {
  format = formatLine;
}

/** Sets what writes the lines of {@linkcode logLine}; undefined for the console. Returns what did so before. */
export function divertLog(write: typeof writer): typeof writer {
  const before = writer;
  writer = write;
  return before;
}

/**
 * Writes a line to the log of this process, which is stderr. Never throws: the disk may be full and the terminal closed,
 * and serving must not depend on them.
 */
export function logLine(line: string, source?: LogSource): void {
  try {
    const formatted = format(line, source);
    if (writer === undefined) console.error(formatted);
    else writer(formatted);
  } catch {
    // There is no other place to say it.
  }
}

/**
 * Returns a function that writes a line by the option `log`, and never throws. A line that `log` does not take, as it
 * throws or rejects, goes to another function.
 *
 * @param log The option. @default other
 * @param other The other function, which never throws.
 */
export function safeLog<Source extends LogSource>(
  log?: (line: string) => unknown,
  other: LogFunction<Source> = logLine,
): LogFunction<Source> {
  if (log === undefined) return other;
  return (line, source) => {
    try {
      // It may be `console.error`, which would print the source, too.
      const result = log(line);
      if (result instanceof Promise) result.catch(() => other(line, source));
    } catch {
      other(line, source);
    }
  };
}

/** Writes a line to an output, whole even if each write takes a part only. Never throws, and drops what fails. */
export function writeLine(output: LineOutput, line: string): void {
  const bytes = encoder.encode(line + "\n");
  if (output.writeSync === undefined) return void writeLater(output, bytes);
  try {
    for (let at = 0, count = 1; count > 0 && at < bytes.length; at += count) {
      count = output.writeSync(bytes.subarray(at));
    }
  } catch {
    // There is no other place to say it.
  }
}

/** How many bytes an empty pipe has room for on any system: writing them cannot block. */
const PIPE = 4096;

/**
 * Returns a function that writes lines to an output that perhaps nobody reads. It writes synchronously what an empty pipe
 * has room for, as the program may exit next, and the rest without blocking.
 */
export function pipeWriter(output: LineOutput): (line: string) => void {
  const later = { write: (bytes: Uint8Array) => output.write(bytes) };
  let room = PIPE;
  return (line) => {
    room -= line.length + 1;
    writeLine(room < 0 ? later : output, line);
  };
}

/** The last write to each output that has no synchronous one: the next waits for it. */
const writing = new WeakMap<LineOutput, Promise<void>>();

function writeLater(output: LineOutput, bytes: Uint8Array): void {
  const write = async () => {
    for (let at = 0, count = 1; count > 0 && at < bytes.length; at += count) {
      count = await output.write(bytes.subarray(at));
    }
  };
  const before = writing.get(output) ?? Promise.resolve();
  writing.set(output, before.then(write).catch(() => {}));
}

/**
 * Makes the methods of `console` never throw, for a program whose serving must not depend on them. Deno writes its own
 * warnings by them, too, and 2.9.6 does not survive one that throws.
 */
export function guardConsole(): void {
  const methods = console as unknown as Record<string, (...data: unknown[]) => void>;
  for (const name of ["log", "info", "debug", "warn", "error", "trace", "assert", "dir", "table"]) {
    const own = methods[name];
    methods[name] = (...data) => {
      try {
        own(...data);
      } catch {
        // There is no other place to say it.
      }
    };
  }
}

/** Drops warnings of the runtime that begin with a text. */
export function dropWarnings(beginning: string): void {
  const { warn } = console;
  console.warn = (...data) => {
    if (!String(data[0]).startsWith(beginning)) warn(...data);
  };
}
