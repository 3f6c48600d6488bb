import { type Endpoint, nameOf, parseAddress } from "../io/address.ts";
import { UsageError } from "./errors.ts";

/**
 * Parses an address of the command line.
 *
 * @throws {UsageError} If it is invalid.
 */
export function readAddress(address: string): Endpoint {
  try {
    return parseAddress(address);
  } catch (error) {
    throw new UsageError(`${(error as Error).message}.`);
  }
}

/** Formats the address of a listener as users type it. */
export function formatAddress(addr: Deno.Addr | Endpoint): string {
  if ("hostname" in addr) return nameOf({ ...addr, transport: "tcp" });
  return "path" in addr && addr.path ? `unix:${addr.path}` : "a Unix socket";
}
