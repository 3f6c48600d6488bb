import type { Listener } from "../../fastcgi.ts";
import type { Duplex } from "../../io/duplex.ts";
import type { Server, ServerOptions } from "../../io/server.ts";
import { deadline } from "./deadline.ts";
import { FakeListener } from "./duplex.ts";

/** What a server is served over. */
export type Medium = "memory" | "TCP" | "Unix";
export const MEDIA: Medium[] = ["memory", "TCP", "Unix"];

/** A server that runs for a test. */
export interface Served<Client> {
  server: Server;
  listener: Listener;
  /** What the server logged. */
  logged: string[];
  /** @param capacity How much is under way in memory before a write waits, in bytes. */
  connect(capacity?: number): Promise<Client>;
}

/**
 * Runs a server, and shuts it down whatever happens.
 *
 * @param start Starts the server with these options beside its own.
 * @param open Makes the web server's end of a connection.
 */
export async function serving<Client extends { close(): void }>(
  over: Medium,
  start: (listener: Listener, options: ServerOptions) => Server,
  open: (conn: Duplex) => Client,
  use: (served: Served<Client>) => Promise<void>,
): Promise<void> {
  const directory = over === "Unix" ? await Deno.makeTempDir() : "";
  const path = `${directory}/socket`;
  const listener = over === "memory"
    ? new FakeListener()
    : over === "TCP"
    ? Deno.listen({ hostname: "127.0.0.1", port: 0 })
    : Deno.listen({ transport: "unix", path });
  const logged: string[] = [];
  const server = start(listener, {
    log: (message) => logged.push(message),
    shutdownTimeout: 5000,
  });
  const clients: Client[] = [];
  const connect = async (capacity?: number) => {
    const conn = listener instanceof FakeListener
      ? listener.connect(capacity)[0]
      : over === "TCP"
      ? await Deno.connect({ hostname: "127.0.0.1", port: (listener.addr as Deno.NetAddr).port })
      : await Deno.connect({ transport: "unix", path });
    const client = open(conn);
    clients.push(client);
    return client;
  };
  try {
    await use({ server, listener, logged, connect });
  } finally {
    for (const client of clients) client.close();
    await deadline(server.shutdown(), "the server's end");
    if (directory) await Deno.remove(directory, { recursive: true });
  }
}

/** Some turns of the event loop: what was going to happen by itself has happened. */
export async function turns(count = 20): Promise<void> {
  for (let i = 0; i < count; i++) await new Promise((resolve) => setTimeout(resolve, 0));
}
