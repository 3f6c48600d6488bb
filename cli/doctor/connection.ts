/**
 * What can be wrong with the address that a web server connects to.
 *
 * @module
 */

import type { Endpoint } from "../../io/address.ts";
import { openDuplex } from "../../io/connect.ts";
import { encodeSCGIHeaders } from "../../wire/scgi.ts";
import { readAddress } from "../address.ts";
import { fetchValues } from "../fetch_values.ts";
import { change, formatLine } from "./commands.ts";
import { createFinding, type FindingOf } from "./finding.ts";
import { stat, type User } from "./user.ts";

/** All kinds of findings. Words in braces are replaced. */
export const CONNECTION_FINDINGS = {
  "no-socket": {
    what: "{pass} names a socket that does not exist",
    advice:
      "Start the daemon with --listen {address}, or name its socket. fcgiwrap's: systemctl enable --now fcgiwrap.socket",
  },
  "socket-denied": {
    what: "{user} may not connect to the socket that {pass} names: it may not {right} {path}",
    advice: "Start the daemon with --group {group}",
  },
  "refused": {
    what: "Nothing listens where {pass} connects",
    advice: "Start the daemon with --listen {address}, or name the address that it listens on.",
  },
  "protocol": {
    what: "{pass} speaks {wanted}, but what listens there speaks {spoken}",
    advice: "Start the daemon with --protocol {option}, or write: {write}",
  },
} as const;

/** A fault of an address. */
export type ConnectionFinding = FindingOf<keyof typeof CONNECTION_FINDINGS>;

/** What a web server speaks with the application behind it. */
export type Protocol = "fastcgi" | "scgi" | "http";

/** The protocols as sentences name them. */
export const PROTOCOL_NAMES: Record<Protocol, string> = {
  fastcgi: "FastCGI",
  scgi: "SCGI",
  http: "HTTP",
};

/** A directive that makes a web server connect to an address. */
export interface Connecting {
  /** The directive, as it is written. */
  text: string;
  /** What it speaks. */
  protocol: Protocol;
  /** Returns the directive that speaks another protocol with an address. */
  write(protocol: Protocol, address: string): string;
}

/** Where and how HEAD requests are sent, which change nothing. */
const HEAD = "HEAD / HTTP/1.0\r\nHost: localhost\r\n\r\n";
const SCGI_HEAD = encodeSCGIHeaders([
  ["CONTENT_LENGTH", "0"],
  ["SCGI", "1"],
  ["REQUEST_METHOD", "HEAD"],
  ["REQUEST_URI", "/"],
  ["SCRIPT_NAME", ""],
  ["PATH_INFO", "/"],
  ["QUERY_STRING", ""],
  ["SERVER_NAME", "localhost"],
  ["SERVER_PORT", "80"],
  ["SERVER_PROTOCOL", "HTTP/1.0"],
]);

/**
 * Connects to an address as a web server does, and finds out what listens there.
 *
 * @param address A host and port, or `unix:` and a path.
 * @param user The user of the web server.
 * @param ms How long a daemon may take to respond, in milliseconds.
 */
export async function examineAddress(
  { text, protocol, write }: Connecting,
  address: string,
  user: User,
  ms: number,
): Promise<ConnectionFinding | undefined> {
  const common = { pass: text, user: user.name, group: user.groupName, address };
  const endpoint = readAddress(address);
  if (endpoint.transport === "unix") {
    const { path } = endpoint;
    const folder = user.blockedAt(path);
    if (folder !== undefined) {
      const command = change(folder, ["chmod", `${user.classOf(folder)}+x`, folder]);
      const line = command && formatLine([command]);
      const values = { ...common, right: "enter", path: folder };
      return createFinding(CONNECTION_FINDINGS, "socket-denied", values, line);
    }
    if (stat(path) === undefined) return createFinding(CONNECTION_FINDINGS, "no-socket", common);
    if (!user.canWrite(path)) {
      const values = { ...common, right: "write to", path };
      return createFinding(CONNECTION_FINDINGS, "socket-denied", values);
    }
  }
  try {
    (await openDuplex(endpoint, AbortSignal.timeout(ms))).close();
  } catch (error) {
    // This user may have fewer rights than the web server.
    if (error instanceof Deno.errors.PermissionDenied) return undefined;
    if (error instanceof Deno.errors.NotCapable) throw error;
    return createFinding(CONNECTION_FINDINGS, "refused", common);
  }
  const spoken = await spokenAt(endpoint, protocol, ms);
  if (spoken === undefined || spoken === protocol) return undefined;
  return createFinding(CONNECTION_FINDINGS, "protocol", {
    ...common,
    wanted: PROTOCOL_NAMES[protocol],
    spoken: PROTOCOL_NAMES[spoken],
    option: protocol,
    write: write(spoken, address),
  });
}

/** Returns what the application at an endpoint speaks, if it shows it. The expected protocol is tried first. */
export async function spokenAt(
  endpoint: Endpoint,
  expected: Protocol,
  ms: number,
): Promise<Protocol | undefined> {
  const protocols = [...new Set<Protocol>([expected, "fastcgi", "scgi", "http"])];
  for (const protocol of protocols) {
    const spoken = protocol === "fastcgi"
      ? await tryValues(endpoint, ms)
      : await tryHead(endpoint, protocol, ms);
    if (spoken !== undefined) return spoken;
  }
  return undefined;
}

/** Requests the limits of a FastCGI application. Not every one responds. */
async function tryValues(endpoint: Endpoint, ms: number): Promise<Protocol | undefined> {
  try {
    await fetchValues(endpoint, ms);
    return "fastcgi";
  } catch (error) {
    if (error instanceof Deno.errors.NotCapable) throw error;
    // A server of HTTP takes the record for a bad request. The version in a record from HTTP is the letter H.
    const { message } = error as Error;
    return /\bHTTP\b|\bversion 72\b|current value is 72\b/.test(message) ? "http" : undefined;
  }
}

/** Sends a HEAD request. */
async function tryHead(
  endpoint: Endpoint,
  protocol: "scgi" | "http",
  ms: number,
): Promise<Protocol | undefined> {
  const signal = AbortSignal.timeout(ms);
  try {
    const duplex = await openDuplex(endpoint, signal);
    using _ = { [Symbol.dispose]: () => duplex.close() };
    const late = Promise.withResolvers<never>();
    late.promise.catch(() => {});
    signal.onabort = () => late.reject(signal.reason);
    let bytes = protocol === "scgi" ? SCGI_HEAD : new TextEncoder().encode(HEAD);
    while (bytes.length > 0) {
      bytes = bytes.subarray(await Promise.race([late.promise, duplex.write(bytes)]));
    }
    let text = "";
    const buffer = new Uint8Array(1024);
    while (!text.includes("\n")) {
      const count = await Promise.race([late.promise, duplex.read(buffer)]);
      if (count === null) return undefined;
      text += new TextDecoder("windows-1252").decode(buffer.subarray(0, count));
    }
    // A daemon of another protocol may say so by a 400 of HTTP.
    if (/^HTTP\/(?!\S+ 400\b)/.test(text)) return "http";
    return protocol === "scgi" && /^[\w-]+:/.test(text) ? "scgi" : undefined;
  } catch (error) {
    if (error instanceof Deno.errors.NotCapable) throw error;
    return undefined;
  }
}

/** A directive with all its addresses. */
interface Pass extends Connecting {
  addresses: string[];
}

/** Returns each address of some directives once for each protocol, as several may name one daemon. */
export function addressesOf(
  passes: Pass[],
): { pass: Connecting; protocol: Protocol; address: string }[] {
  const all = passes.flatMap((pass) =>
    pass.addresses.map((address) => ({ pass, protocol: pass.protocol, address }))
  );
  const keys = all.map(({ protocol, address }) => `${protocol} ${address}`);
  return all.filter((_, i) => keys.indexOf(keys[i]) === i);
}

/** Examines the addresses of all directives. */
export async function examineAddresses(
  passes: Pass[],
  user: User,
  ms: number,
): Promise<ConnectionFinding[]> {
  const findings: ConnectionFinding[] = [];
  for (const { pass, address } of addressesOf(passes)) {
    const finding = await examineAddress(pass, address, user, ms);
    if (finding !== undefined) findings.push(finding);
  }
  return findings;
}
