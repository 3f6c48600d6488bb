import type { PreforkOptions } from "../prefork.ts";
import type { Arguments, Option } from "./arguments.ts";
import { UsageError } from "./errors.ts";

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
    about: `kill and replace a worker that blocks its event loop for so long;
0 for never. Default: 60`,
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
  const seconds = (name: string, least: number) => {
    const value = args.number(name, least);
    return value === undefined ? undefined : value * 1000;
  };
  return {
    workerTimeout: seconds("worker-timeout", 0) ?? 60_000,
    startTimeout: seconds("start-timeout", 1),
    maxRequests: args.number("max-requests", 1),
    maxMemory: args.bytes("max-memory"),
  };
}
