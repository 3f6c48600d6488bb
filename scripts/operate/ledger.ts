/** What became of the requests, and why. */
import type { Outcome, Sent } from "./client.ts";

/** How long before and after a request the event may be that explains its end, in milliseconds. */
const NEAR = 2000;

/** Something that may cost requests. */
export interface Event {
  kind: "kill" | "timeout" | "late end" | "nginx restart";
  /** When it began and ended, in the time of `performance.now()`; Infinity while it goes on. */
  from: number;
  to: number;
  /** The process that it ended. */
  pid?: number;
}

/** A request that has ended. */
export interface Entry {
  sent: Sent;
  outcome: Outcome;
  begin: number;
  end: number;
}

const REASONS: Record<Event["kind"], string> = {
  "kill": "its worker got SIGKILL",
  "timeout": "its worker looped, and was killed",
  "late end": "its worker did not end in time",
  "nginx restart": "nginx restarted",
};

/** A request that did not get its response. */
export interface Loss {
  entry: Entry;
  /** Whether it may be repeated, and its response had not begun. */
  counts: boolean;
  /** The reason; undefined if no event explains it. */
  reason: string | undefined;
}

/** Returns whether a request may be repeated. */
export function isIdempotent({ method }: Sent): boolean {
  return method !== "POST";
}

/** Returns the loss that an entry is. */
export function lossOf(entry: Entry, events: Event[]): Loss {
  const { sent, outcome, end } = entry;
  // The one nearest to its end.
  const [event] = events.filter((event) => explains(event, entry))
    .sort((a, b) => Math.abs(a.from - end) - Math.abs(b.from - end));
  return {
    entry,
    counts: isIdempotent(sent) && outcome.kind !== "cut",
    reason: event === undefined ? undefined : REASONS[event.kind],
  };
}

/** How often nginx has tried a request, as its log says: the status of each try, and its time in milliseconds. */
export interface Tries {
  statuses: string;
  times: number[];
}

/** Reads them from a line of the log. */
export function triesOf(line: string): Tries | undefined {
  const [, statuses, times] = /tries=(.*) times=(.*)$/.exec(line) ?? [];
  if (times === undefined) return undefined;
  return { statuses, times: times.split(", ").map((time) => Number(time) * 1000) };
}

/**
 * Returns what ended each try of a lost request: the event that was nearest to its end.
 *
 * @param begun The processes of the workers that have begun it.
 */
export function account(
  { entry }: Loss,
  { times }: Tries,
  begun: number[],
  events: Event[],
): string {
  let end = entry.begin;
  const ends = times.map((time) => {
    end += time;
    const from = (event: Event) => Math.abs(event.from - end);
    const [event] = events.filter((event) => from(event) < NEAR).sort((a, b) => from(a) - from(b));
    const how = event === undefined ? "NOT EXPLAINED" : `${REASONS[event.kind]} (${event.pid})`;
    return `${Math.round(time)} ms, ${how}`;
  });
  return `tried ${times.length} times: ${ends.join("; ")}; begun by ${
    begun.join(" and ") || "none"
  }`;
}

function explains({ kind, pid, from, to }: Event, { outcome, begin, end }: Entry): boolean {
  // A response that has begun names its worker.
  if (outcome.kind === "cut" && outcome.worker !== undefined) {
    return pid === outcome.worker && from <= end;
  }
  const byNginx = outcome.kind === "reset" || outcome.kind === "refused";
  return byNginx === (kind === "nginx restart") && from <= end + NEAR && to >= begin - NEAR;
}

/** Returns what a loss looked like to the client. */
export function describe({ entry: { sent, outcome } }: Loss): string {
  const how = outcome.kind === "response"
    ? `status ${outcome.status}`
    : outcome.kind === "cut"
    ? "cut after its head"
    : outcome.kind;
  return `${sent.method} ${new URL(sent.path, "http://localhost").pathname}: ${how}`;
}
