/** The gateways of Gatehouse. */
import { cgiGateway, fastCGIGateway, type Gateway, scgiGateway } from "../../../gateway.ts";

const [port, protocol, target, root, idleTimeout] = Deno.args;
const gateways: Record<string, () => Gateway> = {
  fastcgi: () =>
    fastCGIGateway(target, {
      root: root || undefined,
      idleTimeout: idleTimeout === undefined ? undefined : Number(idleTimeout),
    }),
  scgi: () => scgiGateway(target),
  cgi: () => cgiGateway({ script: target }),
};
const gateway = gateways[protocol]();
const server = Deno.serve({ hostname: "127.0.0.1", port: Number(port), onListen() {} }, gateway);
// Under --cpu-prof the profile is written at an ordinary end.
Deno.addSignalListener("SIGINT", () => {
  gateway[Symbol.dispose]();
  server.shutdown();
});
await server.finished;
Deno.exit();
