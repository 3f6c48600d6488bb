import { assert, assertEquals } from "@std/assert";
import { resolveLimits } from "../../server/limits.ts";
import { Arguments } from "../../cli/arguments.ts";
import { LIMIT_OPTIONS, readLimits } from "../../cli/limit_options.ts";
import { usage } from "../../cli/serve.ts";
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
