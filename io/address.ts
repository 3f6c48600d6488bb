/** An address to listen on or connect to: `host:port`, `[::1]:port` or `unix:/path`. */
export type Address = string;

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

/** Returns an endpoint's address, as {@linkcode parseAddress} reads it. */
export function nameOf(endpoint: Endpoint): Address {
  if (endpoint.transport === "unix") return `unix:${endpoint.path}`;
  const { hostname, port } = endpoint;
  return `${hostname.includes(":") ? `[${hostname}]` : hostname}:${port}`;
}

/**
 * Returns the one form of an IP address: `::1` for `0:0:0:0:0:0:0:1`, and `127.0.0.1` for `::ffff:127.0.0.1` and
 * `::ffff:7f00:1`. Undefined if the text is no IP address.
 */
export function canonicalIP(text: string): string | undefined {
  if (!text.includes(":")) return canonicalIPv4(text);
  // A zone names an interface of this machine: "fe80::1%eth0".
  const [address] = text.split("%", 1);
  const url = /^[0-9a-f:.]+$/i.test(address) ? URL.parse(`http://[${address}]`) : null;
  if (url === null) return undefined;
  const canonical = url.hostname.slice(1, -1);
  const [, high, low] = /^::ffff:([0-9a-f]+):([0-9a-f]+)$/.exec(canonical) ?? [];
  if (high === undefined) return canonical;
  const mapped = [high, low].map((part) => parseInt(part, 16));
  return mapped.flatMap((part) => [part >> 8, part & 0xff]).join(".");
}

function canonicalIPv4(text: string): string | undefined {
  const parts = /^(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.(\d{1,3})$/.exec(text)?.slice(1);
  // Programs disagree on a part with a zero before it: some read it as an octal number.
  if (parts?.every((part) => Number(part) <= 255 && !/^0\d/.test(part)) !== true) return undefined;
  return text;
}
