import { assertEquals } from "@std/assert";
import { hasLeft, nativeSignal } from "../../server/native_signal.ts";
import { bytes } from "../testing/bytes.ts";
import { deadline } from "../testing/deadline.ts";
import { turns } from "../testing/serving.ts";

type Module = typeof import("../../server/native_signal.ts");

/** Sends a request whose client leaves at once, and passes it to a handler. */
async function leaving(handle: (request: Request) => Promise<void>): Promise<void> {
  const handled = Promise.withResolvers<void>();
  const begun = Promise.withResolvers<void>();
  const left = Promise.withResolvers<void>();
  await using server = Deno.serve(
    { hostname: "127.0.0.1", port: 0, onListen() {} },
    async (request) => {
      begun.resolve();
      await left.promise;
      await handle(request).then(handled.resolve, handled.reject);
      return new Response();
    },
  );
  const conn = await Deno.connect({ hostname: "127.0.0.1", port: server.addr.port });
  await conn.write(bytes("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"));
  await deadline(begun.promise, "the request");
  conn.close();
  await turns(3);
  left.resolve();
  await deadline(handled.promise, "the handler");
}

Deno.test("nativeSignal() and hasLeft() ignore what an app has put in place of the signal", () => {
  const controller = new AbortController();
  const request = new Request("http://localhost/", { signal: controller.signal });
  Object.defineProperty(request, "signal", { value: AbortSignal.abort() });
  assertEquals([nativeSignal(request).aborted, hasLeft(request)], [false, false]);
  controller.abort();
  assertEquals([nativeSignal(request).aborted, hasLeft(request)], [true, true]);
});

Deno.test("hasLeft() does not read a signal that nothing else has read", async () => {
  await leaving(async (request) => {
    assertEquals(hasLeft(request), false);
    await turns(3);
    // Had it read the signal, Deno would say by now that the client has left.
    assertEquals(hasLeft(request), false);
    request.signal.addEventListener("abort", () => {});
    await turns(3);
    assertEquals(hasLeft(request), true);
  });
});

Deno.test("hasLeft() reads the signal where Deno has no field of it", async () => {
  const url = "../../server/native_signal.ts?without";
  const without: Module = await import(url);
  const { getOwnPropertySymbols } = Object;
  await leaving(async (request) => {
    Object.getOwnPropertySymbols = () => [];
    try {
      assertEquals(without.hasLeft(request), false);
    } finally {
      Object.getOwnPropertySymbols = getOwnPropertySymbols;
    }
    await turns(3);
    assertEquals(without.hasLeft(request), true);
  });
});
