import { createServer } from "node:net";

/** Where a listening socket of this process waits for connections. */
export interface ListeningDescriptor {
  /** A descriptor, on which nothing accepts yet. Who opens it closes it. */
  fd: number;
  /** Another one of the same socket. */
  other: number;
  /** What `Deno.connect` takes. */
  address: { transport: "tcp"; hostname: string; port: number } | {
    transport: "unix";
    path: string;
  };
}

/** Opens a listening socket, as another program does that passes it on. */
export async function listeningDescriptor(
  medium: "TCP" | "Unix",
  backlog = 511,
): Promise<ListeningDescriptor> {
  const server = createServer();
  const path = medium === "Unix" ? `${await Deno.makeTempDir()}/app.sock` : "";
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    if (path === "") server.listen({ host: "127.0.0.1", port: 0, backlog }, resolve);
    else server.listen({ path: `${path}.new`, backlog }, resolve);
  });
  const bound = server.address();
  const handle = (server as unknown as { _handle: { fdForIpc(): number } })._handle;
  const [fd, other] = [handle.fdForIpc(), handle.fdForIpc()];
  // Closing the server removes the path that it listens on.
  if (path !== "") await Deno.rename(`${path}.new`, path);
  server.close();
  return {
    fd,
    other,
    address: bound === null || typeof bound === "string"
      ? { transport: "unix", path }
      : { transport: "tcp", hostname: bound.address, port: bound.port },
  };
}
