import { AddressSet, canonicalIP } from "../wire/ip_address.ts";
import { ProtocolError } from "../wire/protocol_error.ts";
import type { Variables } from "../wire/variables.ts";
import type { AppOptions } from "../bridge/app.ts";
import type { Forwarded } from "../bridge/request.ts";
import type { NetAddr } from "../io/addr.ts";

/** Matches a parameter of Forwarded (RFC 7239 section 4), and what ends it. Proxies leave quotes out: `host=a:8080`. */
const PARAMETER =
  /[ \t]*(?:([\w!#$%&'*+.^`|~-]+)=(?:([^\s;,"]+)|"((?:[^"\\]|\\.)*)"))?[ \t]*([;,]|$)/y;

/** What web servers send as REMOTE_ADDR for a peer on a Unix socket (A30). */
const UNIX_PEERS = /^(?:unix(?::.*)?|\/.*|@.*|localhost)$/s;
const LOOPBACK = ["127.0.0.0/8", "::1"];
const NOTHING: Forwarded = {};

/** The proxies of a list of the option `trustForwarded`. */
class TrustedProxies {
  readonly #addresses: AddressSet;
  readonly #unix: boolean;
  /** The last address and whether it is one of them. */
  #last = { address: "", trusted: false };

  /** @throws {TypeError} If an entry is invalid. */
  constructor(list: readonly string[]) {
    this.#unix = list.includes("unix");
    const addresses = list.filter((entry) => entry !== "unix")
      .flatMap((entry) => entry === "loopback" ? LOOPBACK : entry);
    this.#addresses = new AddressSet(addresses, invalid);
  }

  has(address: string): boolean {
    if (address !== this.#last.address) {
      const trusted = this.#addresses.has(address) || this.#unix && UNIX_PEERS.test(address);
      this.#last = { address, trusted };
    }
    return this.#last.trusted;
  }
}

function invalid(value: unknown): TypeError {
  return new TypeError(
    `Cannot serve as trustForwarded must be true or a list of addresses, ranges such as 10.0.0.0/8, "loopback" and "unix": current value is ${
      JSON.stringify(value)
    }`,
  );
}

/** The parsed lists. */
const lists = new WeakMap<readonly string[], TrustedProxies>();

function readList(list: readonly string[]): TrustedProxies {
  let proxies = lists.get(list);
  if (proxies === undefined) lists.set(list, proxies = new TrustedProxies(list));
  return proxies;
}

/**
 * Checks the option `trustForwarded`.
 *
 * @throws {TypeError} If it is neither a boolean nor a valid list.
 */
export function checkTrust({ trustForwarded = false }: AppOptions): void {
  if (Array.isArray(trustForwarded)) readList(trustForwarded);
  else if (typeof trustForwarded !== "boolean") throw invalid(trustForwarded);
}

/** Returns whether the option `trustForwarded` includes a peer. */
export function isTrusted({ trustForwarded = false }: AppOptions, address: string): boolean {
  return typeof trustForwarded === "boolean"
    ? trustForwarded
    : readList(trustForwarded).has(address);
}

/**
 * Returns what a trusted proxy says of the request: its scheme, its host and the client (A7, A8, A30).
 *
 * @throws {ProtocolError} If Forwarded is malformed.
 */
export function trustedForwarded(variables: Variables, options: AppOptions): Forwarded {
  if (!options.trustForwarded) return NOTHING;
  return isTrusted(options, variables.byteString("REMOTE_ADDR") ?? "")
    ? readForwarded(variables)
    : NOTHING;
}

/** Returns the client's address, with port 0 where REMOTE_PORT is none (A30). */
export function remoteAddress(variables: Variables, options: AppOptions): NetAddr {
  const client = forwardedClient(variables, options);
  if (client !== undefined) return client;
  const port = variables.byteString("REMOTE_PORT") ?? "";
  return {
    transport: "tcp",
    hostname: variables.byteString("REMOTE_ADDR") ?? "",
    port: /^\d{1,5}$/.test(port) && Number(port) <= 65535 ? Number(port) : 0,
  };
}

/** Returns the client that a trusted proxy names, if any. The log of a request with a malformed Forwarded has the proxy. */
function forwardedClient(variables: Variables, options: AppOptions): NetAddr | undefined {
  try {
    return parseNode(trustedForwarded(variables, options).client);
  } catch {
    return undefined;
  }
}

/**
 * Reads `X-Forwarded-Proto`, `-Host` and `-For`, or `Forwarded` if none of them is present: proxies that set only one
 * kind often pass on the client's other kind. Of several values the last counts, which the nearest proxy has appended.
 *
 * @throws {ProtocolError} If Forwarded is malformed, as an open quote would swallow what the proxy has appended.
 */
function readForwarded(variables: Variables): Forwarded {
  const last = (name: string) => {
    const value = variables.byteString(name);
    return value && value.slice(value.lastIndexOf(",") + 1).trim() || undefined;
  };
  const proto = last("HTTP_X_FORWARDED_PROTO");
  const host = last("HTTP_X_FORWARDED_HOST");
  const client = last("HTTP_X_FORWARDED_FOR");
  const text = variables.byteString("HTTP_FORWARDED");
  if (text === undefined || (proto ?? host ?? client) !== undefined) {
    return { proto, host, client };
  }
  const element = lastElement(text);
  return {
    proto: element.get("proto"),
    host: element.get("host"),
    client: element.get("for"),
  };
}

/** Returns the parameters of the last element of Forwarded, by their names in lower case. */
function lastElement(text: string): Map<string, string> {
  let element = new Map<string, string>();
  let next = element;
  for (let at = 0; at < text.length; at = PARAMETER.lastIndex) {
    PARAMETER.lastIndex = at;
    const [, name, value, quoted, end] = PARAMETER.exec(text) ?? malformed(text);
    if (name !== undefined) {
      const key = name.toLowerCase();
      if (next.has(key)) malformed(text);
      next.set(key, value ?? quoted.replaceAll(/\\(.)/g, "$1"));
      element = next;
    }
    if (end === ",") next = new Map();
  }
  return element;
}

function malformed(text: string): never {
  throw new ProtocolError(
    `Cannot create request as Forwarded must be as RFC 7239 has it: current value is ${
      JSON.stringify(text)
    }`,
  );
}

/** Parses the address of a client, with a port or without; returns undefined if the text is none, such as `unknown`. */
function parseNode(text: string | undefined): NetAddr | undefined {
  if (text === undefined) return undefined;
  const [, bracketed, bare = text, port = "0"] =
    /^(?:\[([^\]]*)\]|([^:]*))(?::(\d{1,5}))?$/.exec(text) ?? [];
  const hostname = bracketed ?? bare;
  const valid = !hostname.includes("%") && canonicalIP(hostname) !== undefined;
  return valid && Number(port) <= 65535
    ? { transport: "tcp", hostname, port: Number(port) }
    : undefined;
}
