import { addressOf, DEFAULT_PORTS, type Endpoint, parseAddress } from "../io/address.ts";
import { canonicalIP } from "../wire/ip_address.ts";
import { UsageError } from "./errors.ts";

/** Returns the address that a protocol is served on unless another is named. */
export function defaultAddress(protocol: keyof typeof DEFAULT_PORTS): string {
  return `127.0.0.1:${DEFAULT_PORTS[protocol]}`;
}

/**
 * Parses an address of the command line.
 *
 * @throws {UsageError} If it is invalid.
 */
export function readAddress(address: string): Endpoint {
  try {
    return parseAddress(address);
  } catch (error) {
    const similar = similarAddress(address);
    throw new UsageError(
      `${(error as Error).message}.${similar === undefined ? "" : ` Did you mean ${similar}?`}`,
    );
  }
}

/** Returns the address that an invalid one may stand for. */
function similarAddress(address: string): string | undefined {
  if (/^\d{1,5}$/.test(address)) return `127.0.0.1:${address}`;
  if (/^\.{0,2}\//.test(address)) return `unix:${address}`;
  const [, authority, path] = /^(?:\w+:\/\/)?([^/\s]+)(\/.*)?$/.exec(address) ?? [];
  if (authority !== address && authority !== undefined && isAddress(authority)) {
    return path === undefined || path === "/" ? authority : `${authority} ${path}`;
  }
  const [, host, port] = /^(.+:.+):(\d{1,5})$/.exec(address) ?? [];
  if (host !== undefined && canonicalIP(host) !== undefined) return `[${host}]:${port}`;
  if (canonicalIP(address) !== undefined && address.includes(":")) {
    return `[${address}]:${DEFAULT_PORTS.fastcgi}`;
  }
  return /^[a-z\d][\w.-]*$/i.test(address) ? `${address}:${DEFAULT_PORTS.fastcgi}` : undefined;
}

function isAddress(text: string): boolean {
  try {
    parseAddress(text);
    return true;
  } catch {
    return false;
  }
}

/** Formats the address of a listener as users type it. */
export function formatAddress(addr: Deno.Addr | Endpoint): string {
  return addressOf(addr) ?? "a Unix socket";
}
