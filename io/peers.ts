/** Whether an address is one that only this machine can reach. */
export function isLoopback(hostname: string): boolean {
  return /^(?:127\.\d+\.\d+\.\d+|::1|localhost|::ffff:127\.\d+\.\d+\.\d+)$/i.test(hostname);
}

/**
 * Refuses a listener that other machines can reach, unless that is meant.
 *
 * @param meant Whether the caller said so.
 * @param option The option that says so, as it is to be written.
 * @throws {Error} If it is not meant.
 */
export function checkExposure(addr: Deno.Addr, meant: boolean, option: string): void {
  if (meant || !("hostname" in addr) || isLoopback(addr.hostname)) return;
  throw new Error(
    `Cannot serve as the listener must be on loopback or a Unix socket: current address is ${addr.hostname}. ` +
      `Whoever can connect can pretend to be any client: if that is meant, use ${option}`,
  );
}

/**
 * Reads FCGI_WEB_SERVER_ADDRS, the addresses that may connect (FastCGI section 3.2).
 *
 * @returns The addresses, or undefined if the variable is not set or may not be read.
 * @throws {Error} If it is set and lists no addresses.
 */
export function addressesFromEnvironment(): string[] | undefined {
  const variable = "FCGI_WEB_SERVER_ADDRS";
  if (Deno.permissions.querySync({ name: "env", variable }).state !== "granted") return undefined;
  const list = Deno.env.get(variable);
  if (list === undefined) return undefined;
  const addresses = list.split(",").map((address) => address.trim());
  for (const address of addresses) {
    if (!/^(?:\d{1,3}\.){3}\d{1,3}$|^[0-9a-f:.]*:[0-9a-f:.]*$/i.test(address)) {
      throw new Error(
        `Cannot serve as ${variable} must be addresses with commas between: current value is ${
          JSON.stringify(list)
        }`,
      );
    }
  }
  return addresses;
}

/** Whether a peer is among the allowed; one on a Unix socket has no address and is not. */
export function isAllowedPeer(addr: Deno.Addr, allowed: string[]): boolean {
  return "hostname" in addr && allowed.includes(addr.hostname.replace(/^::ffff:/i, ""));
}
