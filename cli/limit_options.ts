import type { FastCGIOptions } from "../fastcgi.ts";
import type { Arguments, Option } from "./arguments.ts";
import { UsageError } from "./errors.ts";

/** The options of the servers that are limits. */
type LimitName = keyof {
  [
    Name in keyof FastCGIOptions as number extends FastCGIOptions[Name] ? Name : never
  ]: unknown;
};

/** A limit as an option of the command line. */
interface Limit extends Option {
  /** The option of the server. */
  limit: LimitName;
  value: "SIZE" | "N" | "SECONDS";
  /** The protocols that have it. */
  protocols: readonly string[];
}

/** The options for which 0 is not Infinity: how long to wait, and a minimum. */
const ZEROS = ["shutdown-timeout", "min-body-rate"];

const FASTCGI = ["fastcgi"];
const BOTH = ["fastcgi", "scgi"];
const ALL = ["fastcgi", "scgi", "http"];

function limit(
  name: string,
  limit: LimitName,
  value: Limit["value"],
  protocols: readonly string[],
  about: string,
): Limit {
  return { name, limit, value, protocols, about };
}

/** The limits of the servers, which each worker has for itself. */
export const LIMIT_OPTIONS: readonly Limit[] = [
  limit(
    "shutdown-timeout",
    "shutdownTimeout",
    "SECONDS",
    ALL,
    "how long to wait for requests at the end; 0 not at all. Default: 10",
  ),
  limit(
    "max-body",
    "maxBodyBytes",
    "SIZE",
    BOTH,
    "reject larger request bodies, such as 10m. Default: none",
  ),
  limit(
    "max-buffered-body",
    "maxBufferedBody",
    "SIZE",
    BOTH,
    "buffer no more of a body that the app does not read. Default: 64m",
  ),
  limit(
    "max-buffered-total",
    "maxBufferedTotal",
    "SIZE",
    BOTH,
    "respond with 503 where more of all such bodies is in memory. Default: 256m",
  ),
  limit(
    "max-variable-bytes",
    "maxVariableBytes",
    "SIZE",
    BOTH,
    "reject a request whose variables have more bytes. Default: 256k",
  ),
  limit(
    "max-variables",
    "maxVariables",
    "N",
    BOTH,
    "reject a request with more variables. Default: 2000",
  ),
  limit(
    "max-concurrent-requests",
    "maxRequests",
    "N",
    BOTH,
    "respond with 503 to more requests at once. Default: 1024",
  ),
  limit(
    "max-requests-per-connection",
    "maxRequestsPerConnection",
    "N",
    FASTCGI,
    "respond with 503 to more at once on one connection. Default: 64",
  ),
  limit(
    "max-connections",
    "maxConnections",
    "N",
    BOTH,
    "respond with 503 on more connections. Default: 1024",
  ),
  limit(
    "variables-timeout",
    "variablesTimeout",
    "SECONDS",
    BOTH,
    "close a connection whose request has not begun by then. Default: 10",
  ),
  limit(
    "body-timeout",
    "bodyTimeout",
    "SECONDS",
    BOTH,
    "fail a body of which nothing has come for so long. Default: 60",
  ),
  limit(
    "min-body-rate",
    "minBodyRate",
    "SIZE",
    BOTH,
    "fail a body that comes with fewer bytes per second. Default: 500",
  ),
  limit(
    "request-timeout",
    "requestTimeout",
    "SECONDS",
    ALL,
    "respond with 503 if the app has not by then. Default: none",
  ),
  limit(
    "slow-log",
    "slowLog",
    "SECONDS",
    ALL,
    "log a request once that still runs by then. Default: none",
  ),
  limit(
    "write-timeout",
    "writeTimeout",
    "SECONDS",
    BOTH,
    "close a connection that has read nothing for so long. Default: 60",
  ),
  limit(
    "idle-timeout",
    "idleTimeout",
    "SECONDS",
    FASTCGI,
    "close a kept connection without a request by then. Default: 90",
  ),
];

/** Reads the limits. @throws {UsageError} If one is not valid, or the protocol does not have it. */
export function readLimits(args: Arguments, protocol: string): Pick<FastCGIOptions, LimitName> {
  const limits: Partial<Record<LimitName, number>> = {};
  for (const { name, limit, value, protocols } of LIMIT_OPTIONS) {
    if (!args.has(name)) continue;
    if (!protocols.includes(protocol)) {
      const hint = protocol === "http" ? ": for http set it in the web server" : "";
      throw new UsageError(`--${name} is for ${protocols.join(" and ")}${hint}.`);
    }
    const given = value === "SIZE" ? args.bytes(name)! : args.number(name, 0)!;
    const isLimit = given > 0 || !ZEROS.includes(name);
    limits[limit] = isLimit ? limitOf(given, value) : 0;
  }
  return limits;
}

/** Returns the limit that a number of an option means: 0 is none. */
export function limitOf(given: number, value: Limit["value"]): number {
  return (given || Infinity) * (value === "SECONDS" ? 1000 : 1);
}
