import { flushAtEnd, LineQueue } from "./line_queue.ts";
import { divertLog, formatLog, type LogSource } from "./log.ts";
import { printableJSON } from "./printable.ts";
import { runtime } from "./runtime.ts";

/** The formats of a daemon's own messages. */
export const LOG_FORMATS = ["text", "json"] as const;
/** One of them. */
export type LogFormat = typeof LOG_FORMATS[number];

function formatJSON(message: string, source?: LogSource): string {
  return printableJSON({
    time: new Date().toISOString(),
    pid: runtime.pid,
    message,
    requestId: source?.requestId,
  });
}

/** Sets the format of the messages of this process. */
export function setLogFormat(format: LogFormat): void {
  formatLog(format === "json" ? formatJSON : (message) => message);
}

/**
 * Sets the format of the messages of this process, and writes them without blocking until the result is disposed of:
 * serving must not stop while nobody reads stderr.
 */
export function openDaemonLog(format: LogFormat): AsyncDisposable {
  setLogFormat(format);
  const formatOne = format === "json" ? formatJSON : (message: string) => message;
  const queue = new LineQueue(runtime.stderr, {
    name: "this log",
    formatDropped: (count) => formatOne(`Dropped ${count} lines of this log: nobody has read it`),
    // There is no other place to say it.
    report: () => {},
  });
  const flushing = flushAtEnd(queue);
  const before = divertLog((line) => queue.write(line));
  return {
    async [Symbol.asyncDispose]() {
      divertLog(before);
      await queue.flush();
      flushing[Symbol.dispose]();
    },
  };
}
