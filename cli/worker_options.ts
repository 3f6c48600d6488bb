import type { PreforkOptions } from "../prefork.ts";
import type { Arguments, Option } from "./arguments.ts";
import { UsageError } from "./errors.ts";
import { limitOf } from "./limit_options.ts";

/** The options of `serve` that concern its workers, except for their number. */
export const WORKER_OPTIONS: Option[] = [
  {
    name: "worker-flags",
    value: "FLAGS",
    about: "flags for each worker's deno run. Default: those of this one",
  },
  {
    name: "worker-timeout",
    value: "SECONDS",
    about: "kill and replace a worker that blocks its event loop for so long.\nDefault: 60",
  },
  {
    name: "start-timeout",
    value: "SECONDS",
    about: "kill a worker that has not started to serve within this. Default: 60",
  },
  {
    name: "max-requests",
    value: "N",
    about: `replace a worker after N requests, and up to a tenth more at random.
Default: never`,
  },
  {
    name: "max-memory",
    value: "SIZE",
    about: "replace a worker whose resident memory exceeds SIZE, such as 512m.\nDefault: never",
  },
];

/** The options of `prefork()` that the command line has. */
type WorkerOptions = Pick<
  PreforkOptions,
  "workerTimeout" | "startTimeout" | "maxRequests" | "maxMemory"
>;

/** Reads the options. @throws {UsageError} If one is given without workers, or is not valid. */
export function readWorkerOptions(args: Arguments, workers: number | undefined): WorkerOptions {
  const { name } = WORKER_OPTIONS.find(({ name }) => args.has(name)) ?? {};
  if (workers === undefined && name !== undefined) {
    throw new UsageError(`--${name} is for workers: add --workers 1 or more.`);
  }
  return {
    workerTimeout: limitOf(args.number("worker-timeout", 0) ?? 60, "SECONDS"),
    startTimeout: limitOf(args.number("start-timeout", 0) ?? 60, "SECONDS"),
    maxRequests: limitOf(args.number("max-requests", 0) ?? 0, "N"),
    maxMemory: limitOf(args.bytes("max-memory") ?? 0, "SIZE"),
  };
}
