import { release, reportBusy } from "../io/balance.ts";
import { logLine } from "../io/log.ts";
import { reopenLogFiles } from "../io/log_file.ts";
import { workload } from "../io/workload.ts";
import { thisProcess } from "./node_process.ts";
import { runtime } from "../io/runtime.ts";

/** What a worker reports to its supervisor: once it serves, then at intervals. */
export interface Report {
  /** The number of requests in progress. */
  running: number;
  /** The number of requests so far. */
  begun: number;
  /** Its resident memory, in bytes. */
  rss: number;
  /** Whether a debugger can stop it. One that SIGUSR1 opens is not known without `--allow-sys`. */
  inspected: boolean;
}

/** What a supervisor orders a worker to report. */
export interface ReportOrder {
  /** The time between two reports, in milliseconds. */
  interval: number;
  /** The number of requests that is reported as soon as it is reached; null for none. */
  requests: number | null;
}

/** The message by which a supervisor requests reports on how many connections keep a worker busy. */
export const BALANCE = "balance";

/** What a supervisor sends when log files may have been renamed. */
export const REOPEN = "reopen";

/** The time between two checks of whether the supervisor still runs, in milliseconds. */
const CHECK = 1000;

/**
 * Reports to the supervisor, if there is one, that this worker serves. If the supervisor ends before it stops the
 * worker, the worker logs this and sets `Deno.exitCode` to 1.
 *
 * @param onOrphaned Called when the supervisor has ended.
 */
export function reportReady(onOrphaned: () => void): void {
  const process = thisProcess();
  if (process.send === undefined) return;
  const send = process.send.bind(process) as Send;
  const { ppid } = process;
  let phase: "running" | "stopping" | "orphaned" = "running";
  const orphaned = () => {
    if (phase === "orphaned") return;
    if (phase === "running") {
      logLine("Stopping with exit code 1: the supervisor has ended");
      runtime.exitCode = 1;
    }
    phase = "orphaned";
    onOrphaned();
  };
  process.on("message", (message: unknown) => {
    if (message === "SIGTERM" && phase === "running") phase = "stopping";
    if (typeof message === "object") reportRegularly(message as ReportOrder, send);
    if (message === BALANCE) reportBusy(process.cpuUsage, (count) => send(count, () => {}));
    if (message === REOPEN) reopenLogFiles();
    if (typeof message === "number") release(message);
  });
  process.once("disconnect", orphaned);
  // A supervisor that ends before it reads the message does not disconnect.
  const timer = setInterval(() => process.ppid !== ppid && orphaned(), CHECK);
  runtime.unrefTimer(timer);
  send(report(false), (error) => error && orphaned());
  // The channel must not keep a worker alive after its server has stopped.
  process.channel?.unref?.();
}

type Send = (report: Report | number, sent: (error: Error | null) => void) => void;

function report(inspected: boolean): Report {
  const { running, begun } = workload;
  return { running, begun, rss: runtime.memoryUsage().rss, inspected };
}

/** Sends reports: regularly, and before a handler, which may block the event loop. */
async function reportRegularly({ interval, requests }: ReportOrder, send: Send): Promise<void> {
  const isInspected = await inspection();
  // The supervisor may be stopped, and reports must not accumulate here: at most one is sent and one due.
  let phase: "idle" | "sending" | "due" = "idle";
  const sendReport = () => {
    phase = phase === "idle" ? "sending" : "due";
    if (phase === "due") return;
    send(report(isInspected()), () => {
      const isDue = phase === "due";
      phase = "idle";
      if (isDue) sendReport();
    });
  };
  /** Whether the next request is reported when it begins: it is the first one since the last regular report. */
  let announces = true;
  const timer = setInterval(() => {
    announces = true;
    sendReport();
  }, interval);
  runtime.unrefTimer(timer);
  workload.onBegin = () => {
    if (!announces && workload.begun !== requests) return;
    announces = false;
    sendReport();
  };
  sendReport();
}

/** Returns a function that says whether a debugger can stop this process. */
async function inspection(): Promise<() => boolean> {
  const permission = { name: "sys", kind: "inspector" } as const;
  if (runtime.permissions.querySync(permission).state !== "granted") return () => false;
  const { default: inspector } = await import("node:inspector");
  return () => inspector.url() !== undefined;
}
