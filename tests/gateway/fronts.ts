/** Each gateway behind `Deno.serve`, in front of an application that does as its test says. */
import { fastCGIGateway, type Gateway, type GatewayOptions, scgiGateway } from "../../gateway.ts";
import { cgiGateway } from "../../gateway.ts";
import { bytes, concat } from "../testing/bytes.ts";
import { deadline } from "../testing/deadline.ts";
import { readHeaders } from "../testing/scgi_client.ts";
import { Application, type Peer } from "./application.ts";

/** A gateway to an application that responds to `/?N` with the bytes of response N. */
export interface Front extends AsyncDisposable {
  gateway: Gateway;
}

type Start = (responses: string[], options: GatewayOptions) => Promise<Front>;

/** Reads a whole SCGI request without a body, and returns its variables. */
export async function readSCGI(peer: Peer): Promise<Map<string, string> | undefined> {
  const buffer = new Uint8Array(65_536);
  for (let all = new Uint8Array();;) {
    const count = await deadline(peer.conn.read(buffer).catch(() => null), "a request");
    if (count === null) return undefined;
    all = concat([all, buffer.subarray(0, count)]);
    const headers = readHeaders(all);
    if (headers !== undefined) return new Map(headers.pairs);
  }
}

export const FRONTS: Record<string, Start> = {
  async "fastCGIGateway()"(responses, options) {
    const application = new Application(async (peer) => {
      while (true) {
        const request = await peer.request();
        if (request === undefined) return;
        const all = bytes(responses[Number(request.variables.get("QUERY_STRING"))]);
        // The gateway may have closed the connection.
        await peer.stdout(all).then(() => peer.end()).catch(() => {});
        if (!request.keep) return;
      }
    });
    const gateway = fastCGIGateway(application.address, options);
    return await Promise.resolve({
      gateway,
      async [Symbol.asyncDispose]() {
        gateway[Symbol.dispose]();
        await application[Symbol.asyncDispose]();
      },
    });
  },
  async "scgiGateway()"(responses, options) {
    const application = new Application(async (peer) => {
      const variables = await readSCGI(peer);
      if (variables === undefined) return;
      await peer.write(bytes(responses[Number(variables.get("QUERY_STRING"))])).catch(() => {});
    });
    const gateway = scgiGateway(application.address, options);
    return await Promise.resolve({
      gateway,
      async [Symbol.asyncDispose]() {
        gateway[Symbol.dispose]();
        await application[Symbol.asyncDispose]();
      },
    });
  },
  async "cgiGateway()"(responses, options) {
    const root = await Deno.makeTempDir();
    for (const [i, response] of responses.entries()) {
      await Deno.writeFile(`${root}/${i}`, bytes(response));
    }
    const script = `${root}/script`;
    await Deno.writeTextFile(script, `#!/bin/sh\nexec cat "${root}/$QUERY_STRING"\n`);
    await Deno.chmod(script, 0o755);
    const gateway = cgiGateway({ script, maxProcesses: 100, ...options });
    return {
      gateway,
      async [Symbol.asyncDispose]() {
        gateway[Symbol.dispose]();
        await Deno.remove(root, { recursive: true });
      },
    };
  },
};
