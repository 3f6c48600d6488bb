/** The server with a client that others wrote. */
import { assertEquals } from "@std/assert";
import { Buffer } from "node:buffer";
import type { Readable, Writable } from "node:stream";
import connectFastCGI from "fastcgi-client";
import { serveFastCGI } from "../fastcgi.ts";
import { parseResponse } from "./testing/response.ts";
import { concat, pattern } from "./testing/bytes.ts";
import { deadline } from "./testing/deadline.ts";

interface ClientRequest {
  stdin: Writable;
  stdout: Readable;
}

interface Client {
  on(event: "ready", listener: () => void): void;
  on(event: "error", listener: (error: Error) => void): void;
  request(
    params: Record<string, string>,
    callback: (error: Error | null, request: ClientRequest) => void,
  ): void;
}

Deno.test("npm's fastcgi-client, which misreads records that are not padded, gets 500 KB back", async () => {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  await using server = serveFastCGI((request) => new Response(request.body), listener);
  const { port } = server.addr as Deno.NetAddr;
  const connect = connectFastCGI as unknown as (options: Record<string, unknown>) => Client;
  const client = connect({ host: "127.0.0.1", port, skipCheckServer: true });
  const failed = Promise.withResolvers<never>();
  failed.promise.catch(() => {});
  client.on("error", failed.reject);
  await deadline(new Promise<void>((resolve) => client.on("ready", resolve)), "the client");
  for (let round = 0; round < 40; round++) {
    const body = pattern(500_000 + round);
    const params = {
      REQUEST_METHOD: "POST",
      REQUEST_URI: "/",
      HTTP_HOST: "example.org",
      CONTENT_LENGTH: String(body.length),
    };
    const received = new Promise<Uint8Array<ArrayBuffer>>((resolve, reject) => {
      client.request(params, (error, request) => {
        if (error) return reject(error);
        const parts: Uint8Array[] = [];
        request.stdout.on("data", (part: Uint8Array) => parts.push(part));
        request.stdout.on("end", () => resolve(concat(parts)));
        request.stdin.end(Buffer.from(body));
      });
    });
    const response = await deadline(Promise.race([received, failed.promise]), `echo ${round}`);
    assertEquals(parseResponse(response).body, body);
  }
});
