import type { CompletedRequest, Handler } from "../../bridge/app.ts";
import { plainResponse } from "../../bridge/plain_response.ts";
import { RELOAD_PATH } from "../../debug/development.ts";
import { serveHTTP } from "../../http.ts";
import type { HTTPServer } from "../../io/runtime.ts";
import { dropWarnings, writeLine } from "../../io/log.ts";
import { canonicalIP, isLoopback } from "../../wire/ip_address.ts";
import { Failure } from "../errors.ts";

/** How Deno's notice begins that `request.signal` aborts after a complete response too. The gateway allows for it. */
const NOTICE = "Deno.serve: request.signal aborts";
/** The addresses that stand for all of this machine. */
const ALL = /^(?:0\.0\.0\.0|\[?::\]?)$/;
/** Colors of terminals, by the first digit of a status. */
const COLORS: Record<string, number> = { 2: 32, 3: 36, 4: 33, 5: 31 };

/** Where `dev` serves. */
export interface DevelopmentOptions {
  /** The port; 0 for a free one. */
  port: number;
  /** The address or name to listen on for other machines. @default this machine alone */
  host?: string;
  /** A certificate and its key for HTTPS, in PEM format. @default HTTP */
  tls?: { cert: string; key: string };
}

/**
 * Serves HTTP, and prints each request with its status, size and time.
 *
 * @param stop Ends it, once the requests in progress are finished.
 * @throws {Failure} If it cannot listen.
 */
export async function serveDevelopment(
  handler: Handler,
  { port, host, tls }: DevelopmentOptions,
  stop: AbortSignal,
): Promise<void> {
  if (stop.aborted) return;
  dropWarnings(NOTICE);
  const hosts = servedHosts(host);
  const respond: Handler = (request, info) =>
    isServed(new URL(request.url).hostname, hosts) ? handler(request, info) : plainResponse(421);
  let server: HTTPServer<Deno.NetAddr>;
  try {
    server = serveHTTP(respond, {
      ...tls,
      hostname: host?.replaceAll(/[[\]]/g, "") ?? "127.0.0.1",
      port,
      shutdownTimeout: Infinity,
      onListen: () => {},
      onCompleted: printRequest,
    });
  } catch (error) {
    if (error instanceof Deno.errors.AddrInUse) {
      throw new Failure(`Port ${port} is in use. Try --port ${port + 1}`);
    }
    throw new Failure((error as Error).message, { cause: error });
  }
  const scheme = tls === undefined ? "http" : "https";
  const urls = hosts.map((host) => `${scheme}://${host}:${server.addr.port}/`);
  writeLine(Deno.stdout, `Open ${urls.join(" or ")} in a browser. Stop with Ctrl-C.`);
  // If it rejects, so does finished.
  stop.addEventListener("abort", () => void server.shutdown().catch(() => {}));
  await server.finished;
}

/** An address of this machine. */
type OwnAddress = Pick<Deno.NetworkInterfaceInfo, "address" | "family">;

/**
 * Returns the hosts in the URLs of a server, which other machines may use.
 *
 * @param host What it listens on. @default loopback
 * @param findOwn Returns the addresses of this machine.
 */
export function servedHosts(
  host: string | undefined,
  findOwn: () => OwnAddress[] = Deno.networkInterfaces,
): string[] {
  if (host === undefined) return ["localhost"];
  if (!ALL.test(host)) return [host.includes(":") ? `[${host.replaceAll(/[[\]]/g, "")}]` : host];
  const own = findOwn()
    .filter(({ address }) => !isLoopback(address) && !/^fe80:/i.test(address))
    // Only an IPv6 socket takes both families.
    .filter(({ family }) => family === "IPv4" || host !== "0.0.0.0")
    .map(({ address, family }) => family === "IPv6" ? `[${address}]` : address);
  return ["localhost", ...own];
}

/**
 * Returns whether a request for a host is served: not if it comes from a website whose name resolves to an address of this
 * machine (DNS rebinding).
 *
 * @param hosts The result of {@linkcode servedHosts}.
 */
export function isServed(host: string, hosts: string[]): boolean {
  const name = nameOf(host);
  return isLoopback(name) || hosts.some((host) => nameOf(host) === name);
}

/** Returns a host in the form in which it is compared. */
function nameOf(host: string): string {
  const name = host.replaceAll(/[[\]]/g, "").toLowerCase();
  return canonicalIP(name) ?? name;
}

function printRequest({ request, info, status, bytes, duration }: CompletedRequest): void {
  const { pathname = "*", search = "" } = URL.parse(request?.url ?? "") ?? {};
  if (pathname === RELOAD_PATH) return;
  const method = request?.method ?? info.variables.get("REQUEST_METHOD");
  const size = bytes === undefined ? "" : ` ${formatSize(bytes)}`;
  const text = `${colored(status)} ${method} ${pathname}${search}${size} ${duration.toFixed(1)} ms`;
  writeLine(Deno.stdout, text);
}

function formatSize(bytes: number): string {
  if (bytes < 1000) return `${bytes} B`;
  return bytes < 1e6 ? `${(bytes / 1e3).toFixed(1)} kB` : `${(bytes / 1e6).toFixed(1)} MB`;
}

/** Returns a status in color where that is a terminal that shows it. */
function colored(status: number): string {
  const text = String(status);
  if (Deno.noColor || !Deno.stdout.isTerminal()) return text;
  return `\x1b[${COLORS[text[0]] ?? 0}m${text}\x1b[0m`;
}
