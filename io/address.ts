import type { Addr } from "./addr.ts";

/** An address to listen on or connect to: `host:port`, `[::1]:port` or `unix:/path`. */
export type Address = string;

/** The port that each protocol is served on unless another is named. */
export const DEFAULT_PORTS = { fastcgi: 9000, scgi: 4000, http: 8000 } as const;

/** A parsed {@linkcode Address}. */
export type Endpoint =
  | { transport: "tcp"; hostname: string; port: number }
  | { transport: "unix"; path: string };

/**
 * Parses an address. An empty host means 127.0.0.1.
 *
 * @throws {TypeError} If the address is neither `host:port` nor `unix:/path`.
 */
export function parseAddress(address: Address): Endpoint {
  if (address.startsWith("unix:") && address.length > 5) {
    return { transport: "unix", path: address.slice(5) };
  }
  const match = /^(?:\[([0-9a-f:.]+)\]|([^:/\s[\]]*)):(\d{1,5})$/i.exec(address);
  if (match === null || Number(match[3]) > 65535) {
    throw new TypeError(
      `Cannot use address as it must be host:port or unix:/path: current value is ${
        JSON.stringify(address)
      }`,
    );
  }
  return {
    transport: "tcp",
    hostname: match[1] ?? (match[2] || "127.0.0.1"),
    port: Number(match[3]),
  };
}

/** Returns the address of a listener, or undefined if it has none, such as a Unix socket without a path. */
export function addressOf(addr: Addr): Address | undefined {
  if ("hostname" in addr) return nameOf({ ...addr, transport: "tcp" });
  return "path" in addr && addr.path ? nameOf({ ...addr, transport: "unix" }) : undefined;
}

/** Returns an endpoint's address, as {@linkcode parseAddress} reads it. */
export function nameOf(endpoint: Endpoint): Address {
  if (endpoint.transport === "unix") return `unix:${endpoint.path}`;
  const { hostname, port } = endpoint;
  return `${hostname.includes(":") ? `[${hostname}]` : hostname}:${port}`;
}
