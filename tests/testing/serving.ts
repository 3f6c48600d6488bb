import type { Listener } from "../../fastcgi.ts";
import type { Duplex } from "../../io/duplex.ts";
import type { Server, ServerOptions } from "../../server/server.ts";
import { deadline } from "./deadline.ts";
import { FakeListener } from "./duplex.ts";

/** The kind of connection between the tests and a server. */
export type Medium = "memory" | "TCP" | "Unix";
export const MEDIA: Medium[] = ["memory", "TCP", "Unix"];

/** A server that runs for a test. */
export interface Served<Client> {
  server: Server;
  listener: Listener;
  /** The messages that the server has logged. */
  logged: string[];
  /** @param capacity How many bytes an in-memory connection buffers before a write waits. */
  connect(capacity?: number): Promise<Client>;
}

/**
 * Runs a server for a test, and shuts it down even if the test fails.
 *
 * @param start Starts the server with these options in addition to its own.
 * @param open Creates the web server's end of a connection.
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

/** Waits some turns of the event loop, so that everything that is pending has happened. */
export async function turns(count = 20): Promise<void> {
  for (let i = 0; i < count; i++) await new Promise((resolve) => setTimeout(resolve, 0));
}
