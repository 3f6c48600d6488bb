import { assert, assertEquals } from "@std/assert";
import { resolveLimits } from "../../server/limits.ts";
import { Arguments } from "../../cli/arguments.ts";
import { LIMIT_OPTIONS, readLimits } from "../../cli/limit_options.ts";
import { usage } from "../../cli/serve.ts";
import { readWorkerOptions, WORKER_OPTIONS } from "../../cli/worker_options.ts";
import { SHUTDOWN_TIMEOUT } from "../../io/timeouts.ts";
import { MAX_CONNECTIONS } from "../../server/server.ts";

/** All limits, with their defaults. */
const DEFAULTS: Record<string, number> = {
  ...resolveLimits({}),
  maxConnections: MAX_CONNECTIONS,
  requestTimeout: Infinity,
  slowLog: Infinity,
  shutdownTimeout: SHUTDOWN_TIMEOUT,
  maxRequestsPerConnection: 64,
  idleTimeout: 90_000,
};

/** Returns the limits that the defaults which the help names would set. */
function defaultsOfHelp(): Record<string, number> {
  return Object.fromEntries(LIMIT_OPTIONS.map(({ name, limit, about }) => {
    const [, text] = /Default: (\w+)$/.exec(about)!;
    if (text === "none") return [limit, Infinity];
    const args = Arguments.parse(usage, [`--${name}=${text}`]);
    const value = readLimits(args, "fastcgi")[limit];
    assert(value !== undefined, name);
    return [limit, value];
  }));
}

Deno.test("serve has an option for each limit, whose help names the default", () => {
  assertEquals(defaultsOfHelp(), DEFAULTS);
});

Deno.test("0 means none for each limit and timeout, but for how long to wait at the end", () => {
  const zeros = (options: readonly { name: string; value?: string }[]) =>
    Arguments.parse(
      usage,
      options.filter(({ value }) => value !== "FLAGS").map(({ name }) => `--${name}=0`),
    );
  const limits = readLimits(zeros(LIMIT_OPTIONS), "fastcgi");
  const workers = readWorkerOptions(zeros(WORKER_OPTIONS), 1);
  assertEquals(Object.keys(limits).length, LIMIT_OPTIONS.length);
  assertEquals(Object.keys(workers).length, WORKER_OPTIONS.length - 1);
  for (const [name, value] of Object.entries({ ...limits, ...workers })) {
    const isZero = name === "shutdownTimeout" || name === "minBodyRate";
    assertEquals(value, isZero ? 0 : Infinity, name);
  }
});
