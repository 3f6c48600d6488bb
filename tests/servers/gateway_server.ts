/** HTTP servers of gateways, which end after all tests of a file. */
import type { Gateway } from "../../gateway.ts";

const servers: AsyncDisposable[] = [];
Deno.test.afterAll(async () => {
  for (const server of servers) await server[Symbol.asyncDispose]();
});

/** Serves a gateway on loopback, and returns its host and port. */
export function serve(gateway: Gateway): string {
  const server = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen() {} }, gateway);
  servers.push({
    async [Symbol.asyncDispose]() {
      gateway[Symbol.dispose]();
      await server.shutdown();
    },
  });
  return `127.0.0.1:${server.addr.port}`;
}
