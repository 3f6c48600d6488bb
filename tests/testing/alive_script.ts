/** A CGI script for tests: its path says what it leaves alive, if anything. */
import { serveCGI } from "../../cgi.ts";

const exitTimeout = Deno.env.get("X_EXIT_TIMEOUT");

await serveCGI((_request, info) => {
  switch (info.pathInfo) {
    case "/timer":
      setInterval(() => {}, 100_000);
      return new Response("alive");
    case "/channel":
      new MessageChannel().port1.onmessage = () => {};
      return new Response(
        new ReadableStream({
          start: (controller) => controller.enqueue(new TextEncoder().encode("alive")),
          async pull(controller) {
            await new Promise((resolve) => setTimeout(resolve, 0));
            controller.error(new Error("broken"));
          },
        }, { highWaterMark: 0 }),
      );
    case "/never":
      return new Promise(() => {});
    case "/slow":
      return new Promise(() => setInterval(() => {}, 100_000));
    default:
      return new Response("over");
  }
}, {
  exitTimeout: exitTimeout === undefined ? undefined : Number(exitTimeout),
  requestTimeout: Deno.env.get("PATH_INFO") === "/timer" ? undefined : 50,
});
console.error("after serveCGI()");
