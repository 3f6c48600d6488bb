import { grantedVariable } from "../io/environment.ts";
import { AddressSet, isLoopback } from "../wire/ip_address.ts";
import type { Addr } from "../io/addr.ts";

/**
 * Rejects a listener that other machines can reach, unless this is allowed.
 *
 * @param allowed Whether other machines may connect.
 * @param option The option that allows it, for the error message.
 * @throws {Error} If other machines can connect and may not.
 */
export function checkExposure(addr: Addr, allowed: boolean, option: string): void {
  if (allowed || addr.transport === "unix") return;
  // It is unknown who can connect to another kind of address, such as that of a virtual machine.
  const hostname = "hostname" in addr ? addr.hostname : undefined;
  if (hostname !== undefined && isLoopback(hostname)) return;
  throw new Error(
    `Cannot serve as the listener must be on loopback or a Unix socket: current address is ${
      hostname ?? `one of ${addr.transport}`
    }. ` +
      `Any program that can connect can pose as any client: to allow this, use ${option}`,
  );
}

/**
 * Reads FCGI_WEB_SERVER_ADDRS, the addresses that connections may come from (FastCGI section 3.2), or ranges of them.
 *
 * @returns The addresses, or undefined if the variable is not set or may not be read.
 * @throws {Error} If it is malformed.
 */
export function addressesFromEnvironment(): string[] | undefined {
  const variable = "FCGI_WEB_SERVER_ADDRS";
  const list = grantedVariable(variable);
  if (list === undefined) return undefined;
  const addresses = list.split(",").map((address) => address.trim());
  new AddressSet(addresses, () =>
    new Error(
      `Cannot serve as ${variable} must be a comma-separated list of addresses: current value is ${
        JSON.stringify(list)
      }`,
    ));
  return addresses;
}

/** The addresses that peers may have. */
export class AllowedPeers {
  readonly #addresses: AddressSet;

  /** @throws {TypeError} If a text is neither an IP address nor a range. */
  constructor(addresses: string[]) {
    this.#addresses = new AddressSet(addresses, (text) =>
      new TypeError(
        `Cannot serve as webServerAddresses must be IP addresses, or ranges such as 10.0.0.0/8: current value is ${
          JSON.stringify(text)
        }`,
      ));
  }

  /** Returns whether a peer has one of the addresses. A peer on a Unix socket has none. */
  has(addr: Addr): boolean {
    return "hostname" in addr && this.#addresses.has(addr.hostname);
  }
}
