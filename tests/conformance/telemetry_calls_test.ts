/** The gateways export the spans that `fetch()` itself exports, and pass the trace on to the application. */
import { assert, assertEquals } from "@std/assert";
import { fastCGIGateway } from "../../gateway.ts";
import { runExporting } from "../testing/exporting.ts";
import {
  attributesOf,
  type OTLPReceiver,
  type Span,
  type Value,
} from "../testing/otlp_receiver.ts";
import { Application } from "../gateway/application.ts";

const CLIENT = 3;
const GATEWAYS = ["FastCGI", "SCGI", "CGI"];
const PROGRAM = new URL("./traced_calls.ts", import.meta.url);
const TRACE = "0af7651916cd43dd8448eb211c80319c";

const byStart = (a: Span, b: Span) =>
  Number(BigInt(a.startTimeUnixNano) - BigInt(b.startTimeUnixNano));

/** Returns the spans of calls, in the order of the calls. */
function callsOf({ spans }: OTLPReceiver): Span[] {
  return spans.filter(({ kind }) => kind === CLIENT).toSorted(byStart);
}

/** Describes spans without ids, times and what differs between programs. */
function described(receiver: OTLPReceiver) {
  return callsOf(receiver).map((span) => {
    const attributes: Record<string, Value> = attributesOf(span);
    const parent = receiver.spans.find(({ spanId }) => spanId === span.parentSpanId);
    const url = String(attributes["url.full"].stringValue).replace(/:\d+/, "");
    attributes["url.full"] = { stringValue: url };
    if ("exception.stacktrace" in attributes) {
      const [line] = String(attributes["exception.stacktrace"].stringValue).split("\n");
      attributes["exception.stacktrace"] = { stringValue: line };
    }
    return {
      name: span.name,
      attributes,
      status: span.status,
      events: span.events,
      parent: parent?.name ?? span.parentSpanId,
    };
  });
}

let native: ReturnType<typeof runExporting> | undefined;
const ofFetch = () => native ??= runExporting(PROGRAM, ["compare", "fetch"]);

for (const name of GATEWAYS) {
  Deno.test(`${name}: the spans of a gateway are those of fetch()`, async () => {
    const { receiver, output } = await runExporting(PROGRAM, ["compare", name]);
    const expected = described((await ofFetch()).receiver);
    assertEquals(expected.length, 9);
    assertEquals(described(receiver), expected);
    // What the application saw of each call that it responded to with a body.
    const calls = callsOf(receiver).filter((span) =>
      span.name !== "HEAD" && "http.response.status_code" in attributesOf(span)
    );
    assertEquals(
      JSON.parse(output),
      calls.map(({ traceId, spanId }) => ({
        traceparent: `00-${traceId}-${spanId}-01`,
        tracestate: null,
      })),
    );
  });

  Deno.test(`${name}: an application gets one traceparent, with the span as the parent`, async () => {
    const { receiver, output } = await runExporting(PROGRAM, ["continue", name]);
    const [alone, other] = callsOf(receiver);
    assertEquals([alone.traceId, alone.parentSpanId], [TRACE, "b7ad6b7169203331"]);
    const outer = receiver.spans.find(({ name }) => name === "outer")!;
    assertEquals([other.traceId, other.parentSpanId], [outer.traceId, outer.spanId]);
    assertEquals(JSON.parse(output), [
      { traceparent: `00-${TRACE}-${alone.spanId}-01`, tracestate: "a=b" },
      // The state is that of another trace.
      { traceparent: `00-${other.traceId}-${other.spanId}-01`, tracestate: null },
    ]);
  });

  Deno.test(`${name}: an application gets the request's trace where no spans are exported`, async () => {
    const env = { OTEL_DENO: "false" };
    const { receiver, output } = await runExporting(PROGRAM, ["continue", name], env);
    const given = { traceparent: `00-${TRACE}-b7ad6b7169203331-01`, tracestate: "a=b" };
    assertEquals([receiver.spans, JSON.parse(output)], [[], [given, given]]);
  });

  for (
    const [how, title] of Object.entries({
      read: "that is read to its end",
      dies: "whose application fails",
      cancelled: "that is cancelled",
      aborted: "to an aborted request",
    })
  ) {
    Deno.test(`${name}: the span of a response ${title} ends with its body`, async () => {
      const { receiver } = await runExporting(PROGRAM, [how, name]);
      const [call, ...others] = callsOf(receiver);
      assertEquals(others, []);
      const responded = receiver.spans.find(({ name }) => name === "responded")!;
      assert(BigInt(call.endTimeUnixNano) >= BigInt(responded.endTimeUnixNano));
      const attributes = attributesOf(call);
      assertEquals(attributes["http.response.status_code"], { stringValue: "200" });
      // A client that leaves is no failure of the application.
      assertEquals(call.status.code, how === "dies" ? 2 : 0);
      assertEquals("error.type" in attributes, how === "dies");
    });
  }

  Deno.test(`${name}: the span of a call without a response has an error`, async () => {
    const { receiver } = await runExporting(PROGRAM, ["silent", name]);
    const [call, ...others] = callsOf(receiver);
    const attributes = attributesOf(call);
    assertEquals([call.status.code, others], [2, []]);
    assertEquals(attributes["error.type"], { stringValue: "ProtocolError" });
    assertEquals("http.response.status_code" in attributes, false);
    assert(call.status.message.startsWith("Cannot "), call.status.message);
  });

  Deno.test(`${name}: a local redirect is two spans`, async () => {
    const { receiver } = await runExporting(PROGRAM, ["moved", name]);
    const calls = callsOf(receiver).map(attributesOf);
    assertEquals(
      calls.map((call) => [
        call["url.path"].stringValue,
        call["http.response.status_code"]?.stringValue,
      ]),
      [["/moved", undefined], ["/there", "200"]],
    );
  });
}

Deno.test("FastCGI: a call that is repeated over a new connection is one span", async () => {
  const { receiver, output } = await runExporting(PROGRAM, ["repeat"]);
  assertEquals(Number(output), 2);
  const calls = callsOf(receiver);
  assertEquals(calls.map(({ status }) => status.code), [0, 0]);
  assertEquals(calls.map((span) => attributesOf(span)["url.path"].stringValue), [
    "/first",
    "/second",
  ]);
});

Deno.test("a request that reaches no application has no span, and redactQuery hides values", async () => {
  const { receiver } = await runExporting(PROGRAM, ["others"]);
  const [{ "url.full": full, "url.query": query }, ...others] = callsOf(receiver)
    .map(attributesOf);
  assertEquals(others, []);
  assertEquals(full, { stringValue: "http://127.0.0.1:8080/app/ok?token=REDACTED&REDACTED" });
  assertEquals(query, { stringValue: "token=REDACTED&REDACTED" });
});

Deno.test("a variable of the option variables replaces the trace", async () => {
  const seen: unknown[] = [];
  await using application = new Application(async (peer) => {
    seen.push((await peer.request())?.variables.get("HTTP_TRACEPARENT"));
    await peer.response("X: y\n\nok");
  });
  using gateway = fastCGIGateway(application.address, {
    variables: { HTTP_TRACEPARENT: "mine" },
    log() {},
  });
  const headers = { traceparent: "theirs" };
  await (await gateway(new Request("http://localhost/", { headers }))).text();
  assertEquals(seen, ["mine"]);
});
