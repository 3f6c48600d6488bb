/**
 * IP addresses and ranges, in text form.
 *
 * @module
 */

/**
 * Returns the canonical form of an IP address: `::1` for `0:0:0:0:0:0:0:1`, and `127.0.0.1` for `::ffff:127.0.0.1` and
 * `::ffff:7f00:1`. Returns undefined if the text is not an IP address.
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
  // Programs disagree on leading zeros: some read such a part as an octal number.
  if (parts?.every((part) => Number(part) <= 255 && !/^0\d/.test(part)) !== true) return undefined;
  return text;
}

/** Returns whether only this machine can reach a host. */
export function isLoopback(hostname: string): boolean {
  const address = canonicalIP(hostname);
  if (address === undefined) return /^localhost$/i.test(hostname);
  return address === "::1" || address.startsWith("127.");
}

/** Returns the bits of an IP address, as 32 or 128 digits. Returns undefined if the text is not an IP address. */
function bitsOf(text: string): string | undefined {
  const address = canonicalIP(text);
  if (address === undefined) return undefined;
  if (!address.includes(":")) {
    return address.split(".").map((part) => digits(Number(part), 8)).join("");
  }
  const [left, right] = address.split("::").map((side) => side === "" ? [] : side.split(":"));
  const zeros = right === undefined ? [] : Array(8 - left.length - right.length).fill("0");
  return [...left, ...zeros, ...right ?? []].map((part) => digits(parseInt(part, 16), 16)).join("");
}

function digits(value: number, length: number): string {
  return value.toString(2).padStart(length, "0");
}

/** The IP addresses with a common prefix. */
interface AddressRange {
  /** The number of bits of the addresses: 32 or 128. */
  size: number;
  /** The common bits. */
  prefix: string;
}

/** Parses an IP address, or a range such as `10.0.0.0/8` or `2001:db8::/32` (RFC 4632 section 3.1, RFC 4291 section 2.3). */
function readRange(text: string): AddressRange | undefined {
  const [, address = text, length] = /^(.*)\/(\d{1,3})$/.exec(text) ?? [];
  const bits = bitsOf(address);
  if (bits === undefined) return undefined;
  if (length === undefined) return { size: bits.length, prefix: bits };
  // The prefix of an IPv4-mapped address includes the 96 bits of "::ffff:".
  const end = Number(length) - (address.includes(":") && bits.length === 32 ? 96 : 0);
  if (end < 0 || end > bits.length || bits.includes("1", end)) return undefined;
  return { size: bits.length, prefix: bits.slice(0, end) };
}

/** A set of IP addresses. An address may be written in any of its forms. */
export class AddressSet {
  readonly #ranges: AddressRange[];

  /**
   * @param texts IP addresses, and ranges such as `10.0.0.0/8`, in which the bits after the prefix must be 0.
   * @param invalid Creates the error for a text that is neither.
   */
  constructor(texts: readonly string[], invalid: (text: string) => Error) {
    this.#ranges = texts.map((text) => {
      const range = readRange(text);
      if (range === undefined) throw invalid(text);
      return range;
    });
  }

  /** Returns whether an address is in the set; false for a text that is not an IP address. */
  has(address: string): boolean {
    const bits = bitsOf(address);
    return bits !== undefined &&
      this.#ranges.some(({ size, prefix }) => bits.length === size && bits.startsWith(prefix));
  }
}
