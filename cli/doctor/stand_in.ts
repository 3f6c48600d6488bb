/**
 * An app that takes the place of a daemon for a moment, to see what the web server passes on.
 *
 * @module
 */

import type { HandlerInfo } from "../../bridge/app.ts";
import { serveFastCGI } from "../../fastcgi.ts";
import { serveHTTP } from "../../http.ts";
import type { Endpoint } from "../../io/address.ts";
import { openDuplex } from "../../io/connect.ts";
import type { Duplex, Listener } from "../../io/duplex.ts";
import { listen } from "../../io/listen.ts";
import { serveSCGI } from "../../scgi.ts";
import { decodeByteString } from "../../wire/byte_string.ts";
import { Failure } from "../errors.ts";
import { listenFailure } from "../listen_failure.ts";
import type { Protocol } from "./connection.ts";

/** The header by which the app knows doctor's requests. */
export const PROBE = "x-gatehouse-doctor";
/** How much of a connection's beginning is kept, in bytes. */
const KEPT = 65_536;

/** What the app has seen of a request. */
export interface Seen {
  url: URL;
  headers: Headers;
  variables: ReadonlyMap<string, string> | undefined;
}

/** What the app does with the requests of one kind. */
export type Probe = (request: Request, seen: Seen) => Response | Promise<Response>;

/** The app, and what has come to it. */
export class StandIn implements AsyncDisposable {
  /** The beginnings of all connections, as byte strings. */
  readonly beginnings: { text: string }[] = [];
  #stop: () => Promise<void>;

  private constructor(
    listener: Listener,
    protocol: Protocol,
    token: string,
    probes: Record<string, Probe>,
  ) {
    const app = async (request: Request, info: HandlerInfo) => {
      const [sent, name] = (request.headers.get(PROBE) ?? "").split(" ");
      const probe = sent === token && Object.hasOwn(probes, name) ? probes[name] : undefined;
      if (probe === undefined) {
        const headers = { "retry-after": "10" };
        return new Response("The site is being examined.\n", { status: 503, headers });
      }
      // Copies, as they are read when the request has ended. Over HTTP there are no variables to compare.
      const headers = new Headers(request.headers);
      const variables = protocol === "http" ? undefined : new Map(info.variables);
      return await probe(request, {
        url: new URL(request.url),
        headers,
        variables,
      });
    };
    const recorded = record(listener, this.beginnings);
    // The address is a daemon's, and this runs for a moment.
    const options = { allowRemote: true, log: () => {} };
    if (protocol === "http") {
      const inner = serveHTTP(app, { hostname: "127.0.0.1", port: 0, onListen() {} });
      const { hostname, port } = inner.addr as Deno.NetAddr;
      const relay = new Relay(recorded, { transport: "tcp", hostname, port });
      this.#stop = async () => {
        await relay.stop();
        await inner.shutdown();
      };
    } else {
      const serve = protocol === "fastcgi" ? serveFastCGI : serveSCGI;
      const server = serve(app, recorded, options);
      this.#stop = () => server.shutdown();
    }
  }

  /**
   * Listens where the daemon did.
   *
   * @param token Marks doctor's requests, so that those of others get 503.
   * @throws {Failure} If it cannot, since the daemon still runs, say.
   */
  static async open(
    address: string,
    protocol: Protocol,
    token: string,
    probes: Record<string, Probe>,
  ): Promise<StandIn> {
    try {
      // Which group the web server has is not known; nothing here is secret.
      const listener = await listen(address, { mode: 0o666 });
      return new StandIn(listener, protocol, token, probes);
    } catch (error) {
      const { message } = listenFailure(error, address);
      // Another address, which a server could take, is no use here.
      const own = message.replace(
        /: it is in use\. .*/s,
        ": it is in use. Stop the daemon meanwhile",
      );
      throw new Failure(own, { cause: error });
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#stop();
  }
}

/** Keeps the beginning of each connection. */
function record(listener: Listener, beginnings: { text: string }[]): Listener {
  return {
    addr: listener.addr,
    close: () => listener.close(),
    async *[Symbol.asyncIterator]() {
      for await (const duplex of listener) {
        const beginning = { text: "" };
        beginnings.push(beginning);
        yield new Recorded(duplex, beginning);
      }
    },
  };
}

class Recorded implements Duplex {
  #duplex: Duplex;
  #beginning: { text: string };

  constructor(duplex: Duplex, beginning: { text: string }) {
    this.#duplex = duplex;
    this.#beginning = beginning;
  }

  get remoteAddr() {
    return this.#duplex.remoteAddr;
  }

  async read(buffer: Uint8Array): Promise<number | null> {
    const count = await this.#duplex.read(buffer);
    if (count !== null && this.#beginning.text.length < KEPT) {
      this.#beginning.text += decodeByteString(buffer.subarray(0, count));
    }
    return count;
  }

  write(bytes: Uint8Array): Promise<number> {
    return this.#duplex.write(bytes);
  }

  async closeWrite(): Promise<void> {
    await this.#duplex.closeWrite?.();
  }

  close(): void {
    this.#duplex.close();
  }
}

/** Passes the bytes of each connection on to an address, and back. */
class Relay {
  #listener: Listener;
  #open = new Set<Duplex>();
  #done: Promise<void>;

  constructor(listener: Listener, endpoint: Endpoint) {
    this.#listener = listener;
    this.#done = this.#run(endpoint);
  }

  async #run(endpoint: Endpoint): Promise<void> {
    const connections: Promise<void>[] = [];
    for await (const outer of this.#listener) connections.push(this.#pass(outer, endpoint));
    await Promise.all(connections);
  }

  async #pass(outer: Duplex, endpoint: Endpoint): Promise<void> {
    const ends = [outer, await openDuplex(endpoint)];
    for (const end of ends) this.#open.add(end);
    await Promise.all([copy(ends[0], ends[1]), copy(ends[1], ends[0])]);
    for (const end of ends) this.#close(end);
  }

  #close(end: Duplex): void {
    if (this.#open.delete(end)) end.close();
  }

  /** Closes all connections. */
  async stop(): Promise<void> {
    this.#listener.close();
    for (const end of this.#open) this.#close(end);
    await this.#done;
  }
}

/** Copies until one of the ends is closed. */
async function copy(from: Duplex, to: Duplex): Promise<void> {
  const buffer = new Uint8Array(16_384);
  try {
    for (let count; (count = await from.read(buffer)) !== null;) {
      let bytes = buffer.subarray(0, count);
      while (bytes.length > 0) bytes = bytes.subarray(await to.write(bytes));
    }
    await to.closeWrite?.();
  } catch {
    // The other direction ends as well.
    await to.closeWrite?.().catch(() => {});
  }
}

/** Returns what a client speaks, by the first byte that it has sent. */
export function protocolOf(beginning: string): Protocol | undefined {
  if (beginning.startsWith("\x01")) return "fastcgi";
  if (/^\d/.test(beginning)) return "scgi";
  return /^[A-Z]/.test(beginning) ? "http" : undefined;
}
