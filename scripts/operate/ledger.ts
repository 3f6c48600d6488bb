/** What became of the requests, and why. */
import type { Outcome, Sent } from "./client.ts";

/** How long before and after a request's end the event may be that explains it, in milliseconds. */
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
  const { sent, outcome, begin, end } = entry;
  const worker = outcome.kind === "cut" ? outcome.worker : undefined;
  const ended = events.filter(({ from, to, pid }) =>
    from <= end + NEAR && to >= (worker === undefined ? begin : end) - NEAR &&
    (worker === undefined || pid === worker)
  );
  const fits = (kind: Event["kind"]) =>
    outcome.kind === "reset" || outcome.kind === "refused"
      ? kind === "nginx restart"
      : kind !== "nginx restart";
  const event = ended.find(({ kind }) => fits(kind));
  return {
    entry,
    counts: isIdempotent(sent) && outcome.kind !== "cut",
    reason: event && REASONS[event.kind],
  };
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
