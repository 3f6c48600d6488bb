/** A program that exports telemetry, and prints what `onCompleted` gets of the traces of two requests over each transport. */
import type { CompletedRequest } from "../../bridge/app.ts";
import { deadline } from "../testing/deadline.ts";
import { IN_PROCESS } from "./transports.ts";

const { FastCGI, SCGI, HTTP } = IN_PROCESS;
const printed: Record<string, (string | undefined)[]> = {};
for (const [transport, start] of Object.entries({ FastCGI, SCGI, HTTP })) {
  const ids: (string | undefined)[] = [];
  let ended = Promise.withResolvers<void>();
  const onCompleted = ({ traceId, request, info }: CompletedRequest) => {
    const isComplete = request?.headers.get("x-a") === "b" &&
      info.variables.get("HTTP_X_A") === "b";
    ids.push(isComplete ? traceId : "without headers");
    ended.resolve();
  };
  await using over = start(() => new Response("ok"), { onCompleted });
  // The server loads what it needs meanwhile.
  await import("../../io/telemetry.ts");
  const own: [string, string] = ["X-A", "b"];
  for (const headers of [[own], [own, ["traceparent", Deno.args[0]] as [string, string]]]) {
    await over.send({ method: "GET", target: "/", headers });
    await deadline(ended.promise, "the end");
    ended = Promise.withResolvers();
  }
  printed[transport] = ids;
}
console.log(JSON.stringify(printed));
