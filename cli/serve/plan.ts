/** Reads the options of `serve`, and checks that they go together. */

import type { AppOptions } from "../../bridge/app.ts";
import type { FastCGIOptions } from "../../fastcgi.ts";
import { inheritedDescriptor, otherListenPid } from "../../io/inherited.ts";
import type { ListenOptions } from "../../io/listen.ts";
import { checkTrust } from "../../server/forwarded.ts";
import { checkExposure } from "../../server/peers.ts";
import { ACCESS_LOGS, type AccessLogFormat } from "../access_log.ts";
import { defaultAddress, readAddress } from "../address.ts";
import type { Arguments } from "../arguments.ts";
import { Failure, UsageError } from "../errors.ts";
import { readLimits } from "../limit_options.ts";

const PROTOCOLS = ["fastcgi", "scgi", "http"] as const;
type Protocol = typeof PROTOCOLS[number];

/** Destinations of the app's errors, and the `log` option of the server for each. */
const LOGS = { server: "server", stderr: "log", both: "both" } as const;

/** The value of --trust-forwarded that trusts every sender of the headers. */
export const ANY_PROXY = "any";

/** What to serve, where and how. */
export interface Plan extends ListenOptions {
  module: string;
  protocol: Protocol;
  addresses: string[];
  /** The format of the access log, if there is one, and its file. */
  accessLog?: { format: AccessLogFormat; path: string | undefined };
  /** Whether an app that cannot be loaded responds with its error. */
  servesFailure: boolean;
  options: AppOptions & FastCGIOptions;
}

/**
 * Reads the options of `serve`.
 *
 * @throws {UsageError} If one is invalid, or does not go with another.
 */
export function readPlan(args: Arguments, module: string): Plan {
  const protocol = args.choice("protocol", PROTOCOLS) ?? "fastcgi";
  const allowRemote = args.has("allow-remote");
  const given = args.all("listen").map((address) => address === "systemd" ? ofSystemd() : address);
  const addresses = given.length > 0 ? given : [ownAddress(protocol)];
  for (const address of addresses) checkAddress(address, protocol, allowRemote);
  const log = args.choice("log", Object.keys(LOGS) as (keyof typeof LOGS)[]);
  if (log === "server" && protocol !== "fastcgi") {
    throw new UsageError(`--log server is for fastcgi: ${protocol} does not carry a log.`);
  }
  if (args.has("redact-query") && protocol === "http") {
    throw new UsageError("--redact-query is for fastcgi and scgi: over HTTP Deno exports the URL.");
  }
  return {
    module,
    protocol,
    addresses,
    accessLog: readAccessLog(args),
    servesFailure: args.has("serve-failure"),
    mode: readMode(args.text("mode")),
    group: readGroup(args.text("group")),
    backlog: readBacklog(args, addresses),
    options: {
      basePath: readBasePath(args.text("base-path")),
      trustForwarded: readTrust(args.text("trust-forwarded")),
      debug: args.has("debug"),
      redactQuery: args.has("redact-query"),
      allowRemote,
      ...readLimits(args, protocol),
      logTo: LOGS[log ?? "both"],
    },
  };
}

function readAccessLog(args: Arguments): Plan["accessLog"] {
  const path = args.text("access-log-file");
  const format = args.choice("access-log", ACCESS_LOGS) ?? (path === undefined ? path : "common");
  return format === undefined ? undefined : { format, path };
}

function readMode(text: string | undefined): number | undefined {
  if (text !== undefined && !/^[0-7]{3,4}$/.test(text)) {
    throw new UsageError(`--mode must be octal, such as 660: current value is "${text}".`);
  }
  return text === undefined ? undefined : parseInt(text, 8);
}

function readBacklog(args: Arguments, addresses: string[]): number | undefined {
  const backlog = args.number("backlog", 1);
  if (backlog === undefined) return undefined;
  if (addresses.some((address) => address.startsWith("fd:"))) {
    throw new UsageError(
      "--backlog is for a socket that this opens: for one of systemd set Backlog= in its .socket.",
    );
  }
  if (!args.has("workers") && addresses.some((address) => address.startsWith("unix:"))) {
    throw new UsageError("--backlog of a Unix socket needs --workers 1 or more.");
  }
  return backlog;
}

function readGroup(text: string | undefined): string | number | undefined {
  return text !== undefined && /^\d+$/.test(text) ? Number(text) : text;
}

function readBasePath(text: string | undefined): AppOptions["basePath"] {
  if (text === undefined || text === "auto" || text.startsWith("/")) {
    return text as AppOptions["basePath"];
  }
  throw new UsageError(`--base-path must be auto or begin with /: current value is "${text}".`);
}

function readTrust(text: string | undefined): AppOptions["trustForwarded"] {
  if (text === undefined || text === ANY_PROXY) return text === ANY_PROXY;
  const trustForwarded = text.split(",").map((entry) => entry.trim());
  try {
    checkTrust({ trustForwarded });
  } catch {
    throw new UsageError(
      `--trust-forwarded must be addresses, ranges such as 10.0.0.0/8, loopback or unix, with commas between: current value is "${text}".`,
    );
  }
  return trustForwarded;
}

/** Reads the number of workers; undefined for this process alone. */
export function readWorkers(args: Arguments, { protocol, addresses }: Plan): number | undefined {
  if (!args.has("workers")) return undefined;
  const workers = args.text("workers") === "auto"
    ? navigator.hardwareConcurrency
    : args.number("workers", 1);
  if (protocol === "http") {
    throw new UsageError(
      "--workers is for fastcgi and scgi: for http use `deno serve --parallel`.",
    );
  }
  if (addresses.length > 1) {
    throw new UsageError("--workers share one socket: name one --listen.");
  }
  return workers;
}

/** Returns the address without `--listen`. */
function ownAddress(protocol: Protocol): string {
  const inherited = protocol === "http" ? undefined : socketOfSystemd();
  return inherited ?? defaultAddress(protocol);
}

/** Returns the address of the socket that systemd passes, if it does. */
function socketOfSystemd(): string | undefined {
  try {
    const fd = inheritedDescriptor();
    return fd === 0 ? undefined : `fd:${fd}`;
  } catch (error) {
    throw new Failure((error as Error).message);
  }
}

function ofSystemd(): string {
  const address = socketOfSystemd();
  if (address !== undefined) return address;
  const pid = otherListenPid();
  if (pid !== undefined) {
    throw new Failure(
      `Cannot listen on systemd's socket as LISTEN_PID must be this process, ${Deno.pid}: current value is ${
        JSON.stringify(pid)
      }. ` +
        "A program that systemd starts and that starts this one must do so by exec",
    );
  }
  throw new Failure(
    "Cannot listen on systemd's socket as LISTEN_FDS must name one: it is not set. " +
      "Start this from a .service with a .socket, or by systemd-socket-activate, with --allow-env",
  );
}

function checkAddress(address: string, protocol: Protocol, allowRemote: boolean): void {
  if (/^fd:\d+$/.test(address)) {
    if (protocol !== "http") return;
    throw new UsageError(
      "http cannot take an inherited socket: use --listen host:port or unix:/path, or --protocol fastcgi.",
    );
  }
  const parsed = readAddress(address);
  try {
    if (parsed.transport === "tcp") checkExposure(parsed, allowRemote, "--allow-remote");
  } catch (error) {
    throw new UsageError(`${(error as Error).message}.`);
  }
}
