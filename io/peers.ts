/** Returns whether only this machine can reach a host. */
export function isLoopback(hostname: string): boolean {
  return /^(?:127\.\d+\.\d+\.\d+|::1|localhost|::ffff:127\.\d+\.\d+\.\d+)$/i.test(hostname);
}

/**
 * Rejects a listener that other machines can reach, unless this is allowed.
 *
 * @param allowed Whether other machines may connect.
 * @param option The option that allows it, for the error message.
 * @throws {Error} If other machines can connect and may not.
 */
export function checkExposure(addr: Deno.Addr, allowed: boolean, option: string): void {
  if (allowed || !("hostname" in addr) || isLoopback(addr.hostname)) return;
  throw new Error(
    `Cannot serve as the listener must be on loopback or a Unix socket: current address is ${addr.hostname}. ` +
      `Any program that can connect can pose as any client: to allow this, use ${option}`,
  );
}

/**
 * Reads FCGI_WEB_SERVER_ADDRS, the addresses that connections may come from (FastCGI section 3.2).
 *
 * @returns The addresses, or undefined if the variable is not set or may not be read.
 * @throws {Error} If it is malformed.
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
        `Cannot serve as ${variable} must be a comma-separated list of addresses: current value is ${
          JSON.stringify(list)
        }`,
      );
    }
  }
  return addresses;
}

/** Returns whether a peer has an allowed address. A peer on a Unix socket has no address and is not allowed. */
export function isAllowedPeer(addr: Deno.Addr, allowed: string[]): boolean {
  return "hostname" in addr && allowed.includes(addr.hostname.replace(/^::ffff:/i, ""));
}
