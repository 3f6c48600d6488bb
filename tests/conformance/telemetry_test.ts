/** Over each transport an app exports the spans and metrics that `Deno.serve` itself exports. */
import { assert, assertEquals } from "@std/assert";
import { fetchFastCGI } from "../../gateway.ts";
import { Daemon, ROOT } from "../testing/daemon.ts";
import { deadline } from "../testing/deadline.ts";
import { runScript } from "../testing/cgi_script.ts";
import { runExporting } from "../testing/exporting.ts";
import {
  attributesOf,
  exportingTo,
  OTLPReceiver,
  type Point,
  type Span,
  type Value,
} from "../testing/otlp_receiver.ts";
import { IN_PROCESS } from "./transports.ts";

const SERVER = 2;

/** Runs traced.ts with a receiver and returns what it has exported. */
async function exported(
  what: string,
  transport: string,
  env: Record<string, string> = {},
): Promise<OTLPReceiver> {
  const program = new URL("./traced.ts", import.meta.url);
  return (await runExporting(program, [what, transport], env)).receiver;
}

interface Described {
  name: string;
  kind: number;
  parent: string;
  traceId?: string;
  attributes: Record<string, Value>;
  status: { code: number; message: string };
  events: unknown[];
}

/** Describes spans without ids and times, in the order of their requests. */
function described({ spans }: OTLPReceiver): Described[] {
  const byId = new Map(spans.map((span) => [span.spanId, span]));
  return spans.toSorted((a, b) => Number(BigInt(a.startTimeUnixNano) - BigInt(b.startTimeUnixNano)))
    .map((span) => {
      const parent = byId.get(span.parentSpanId);
      const foreign = span.parentSpanId !== "" && parent === undefined;
      return {
        name: span.name,
        kind: span.kind,
        parent: parent === undefined ? span.parentSpanId : `${parent.name} ${pathOf(parent)}`,
        ...(foreign ? { traceId: span.traceId } : {}),
        attributes: attributesOf(span),
        status: span.status,
        events: span.events,
      };
    });
}

function pathOf(span: Span): unknown {
  return attributesOf(span)["url.path"]?.stringValue;
}

function pointsOf({ metrics }: OTLPReceiver, name: string): Point[] {
  const metric = metrics.get(name);
  assert(metric !== undefined, `${name} was not exported`);
  return (metric.histogram ?? metric.sum)!.dataPoints;
}

const byText = (a: unknown, b: unknown) => JSON.stringify(a) < JSON.stringify(b) ? -1 : 1;

/** Describes the metrics of the server, without times and the sizes of responses. */
function metricsOf(receiver: OTLPReceiver): unknown[] {
  const names = [...receiver.metrics.keys()].filter((name) => name.startsWith("http.server."));
  return names.toSorted().map((name) => {
    const { unit, description, histogram, sum } = receiver.metrics.get(name)!;
    const points = pointsOf(receiver, name).map((point) => ({
      attributes: Object.entries(attributesOf(point)).toSorted(byText),
      count: point.count,
      sum: name === "http.server.request.body.size" ? point.sum : undefined,
      bounds: point.explicitBounds,
      // Deno counts in integers, which no other code can.
      value: sum && Number(point.asInt ?? point.asDouble),
    }));
    return {
      name,
      unit,
      description,
      kind: histogram ? "histogram" : "sum",
      isMonotonic: sum?.isMonotonic,
      points: points.toSorted(byText),
    };
  });
}

/** Returns how many bytes the responses with a status had, which only one request has. */
function sizeOf(receiver: OTLPReceiver, status: number, method = "GET"): number | undefined {
  return pointsOf(receiver, "http.server.response.body.size").find((point) => {
    const attributes = attributesOf(point);
    return attributes["http.response.status_code"]?.intValue === String(status) &&
      attributes["http.request.method"].stringValue === method;
  })?.sum;
}

let native: Promise<OTLPReceiver> | undefined;
const ofDenoServe = () => native ??= exported("all", "Deno.serve");

for (const transport of Object.keys(IN_PROCESS)) {
  Deno.test(`${transport}: spans and metrics are those of Deno.serve`, async () => {
    const expected = await ofDenoServe();
    const actual = await exported("all", transport);
    assertEquals(described(actual), described(expected));
    assertEquals(metricsOf(actual), metricsOf(expected));
    assertEquals(sizeOf(actual, 201), 9);
    assertEquals(sizeOf(expected, 201), 9);
  });
}

Deno.test("Deno.serve exports what the tests rely on", async () => {
  const receiver = await ofDenoServe();
  const spans = described(receiver);
  assertEquals(spans.filter(({ kind }) => kind === SERVER).length, 18);
  const pulls = spans.filter(({ name }) => name.startsWith("pull"));
  assertEquals(pulls.map(({ parent }) => parent).includes("GET /stream"), true);
  assertEquals(metricsOf(receiver).length, 4);
  // docs/daemon.md says so.
  assertEquals(sizeOf(receiver, 202), 0);
});

for (const transport of ["CGI", "FastCGI", "SCGI"]) {
  Deno.test(`${transport}: the size of a response in memory is that of its body`, async () => {
    assertEquals(sizeOf(await exported("all", transport), 202), 5);
  });

  Deno.test(`${transport}: redactQuery exports no value of the query`, async () => {
    const [span] = described(await exported("redacted", transport));
    assertEquals(span.attributes["url.query"].stringValue, "token=REDACTED&x=REDACTED&REDACTED");
    assertEquals(
      span.attributes["url.full"].stringValue,
      "http://example.org:8080/?token=REDACTED&x=REDACTED&REDACTED",
    );
  });

  Deno.test(`${transport}: a span has the path that basePath removes`, async () => {
    const paths = (await exported("mounted", transport)).spans.map(pathOf);
    assert(paths.includes("/nested"));
  });

  Deno.test(`${transport}: a request that cannot be created has a span without a URL`, async () => {
    const receiver = await exported("invalid", transport);
    assertEquals(described(receiver), [{
      name: "GET",
      kind: SERVER,
      parent: "",
      attributes: {
        "http.request.method": { stringValue: "GET" },
        "http.response.status_code": { stringValue: "400" },
      },
      status: { code: 0, message: "" },
      events: [],
    }]);
    assertEquals(receiver.metrics.has("http.server.active_requests"), false);
  });

  Deno.test(`${transport}: the span of an app that takes longer than requestTimeout is that of a 503`, async () => {
    const receiver = await exported("expired", transport);
    const [span, aborted, ...others] = described(receiver);
    assertEquals(
      [span.status, span.attributes["http.response.status_code"], span.attributes["error.type"]],
      [{ code: 2, message: "" }, { stringValue: "503" }, { stringValue: "503" }],
    );
    assertEquals([aborted.name, aborted.parent, others], ["aborted", "GET /expired", []]);
    const [{ asInt, asDouble }] = pointsOf(receiver, "http.server.active_requests");
    assertEquals(Number(asInt ?? asDouble), 0);
    const [duration] = pointsOf(receiver, "http.server.request.duration");
    assertEquals(attributesOf(duration)["http.response.status_code"], { intValue: "503" });
  });

  Deno.test(`${transport}: spans are not exported where the variables turn them off`, async () => {
    const none = await exported("all", transport, { OTEL_SDK_DISABLED: "true" });
    assertEquals([none.spans.length, none.metrics.size], [0, 0]);
  });
}

Deno.test("onCompleted gets the id of the span's trace", async () => {
  const trace = "0af7651916cd43dd8448eb211c80319c";
  const program = new URL("./traced_ends.ts", import.meta.url);
  const { receiver, output } = await runExporting(program, [`00-${trace}-b7ad6b7169203331-01`]);
  const printed: Record<string, string[]> = JSON.parse(output);
  assertEquals(Object.keys(printed), ["FastCGI", "SCGI", "HTTP"]);
  const ids = Object.values(printed).flatMap(([own, given]) => {
    assertEquals(given, trace);
    return [own, given];
  });
  assertEquals(receiver.spans.map(({ traceId }) => traceId).toSorted(), ids.toSorted());
});

Deno.test("serve --redact-query exports no value of the query", async () => {
  const receiver = new OTLPReceiver();
  await using _ = receiver;
  const directory = await Deno.makeTempDir();
  await Deno.writeTextFile(
    `${directory}/app.ts`,
    `export default (request) => new Response(request.url);`,
  );
  {
    const address = `unix:${directory}/socket` as const;
    const args = ["serve", `${directory}/app.ts`, "--listen", address, "--redact-query"];
    await using daemon = new Daemon(["--allow-all", `${ROOT}cli.ts`, ...args], {
      env: receiver.env,
    });
    await daemon.says(" on ");
    const response = await deadline(
      fetchFastCGI("http://localhost/a?token=abc", address),
      "the response",
    );
    assertEquals(await response.text(), "http://localhost/a?token=abc");
  }
  await Deno.remove(directory, { recursive: true });
  const [span] = described(receiver);
  assertEquals(span.attributes["url.full"].stringValue, "http://localhost/a?token=REDACTED");
});

for (const transport of ["Deno.serve", "FastCGI", "SCGI"]) {
  Deno.test(`${transport}: the span of a stream ends before its later chunks`, async () => {
    if (transport === "Deno.serve") return checkStream(await ofDenoServe());
    checkStream(await exported("all", transport));
  });

  Deno.test(`${transport}: the span of a client that leaves ends with the handler`, async () => {
    const receiver = await exported("left", transport);
    const names = described(receiver).map(({ name, parent }) => [name, parent]);
    assertEquals(names, [["GET", ""], ["aborted", "GET /left"], ["late", "GET /left"]]);
    const [server] = receiver.spans.filter(({ kind }) => kind === SERVER);
    const late = receiver.spans.find(({ name }) => name === "late")!;
    assert(BigInt(server.endTimeUnixNano) >= BigInt(late.endTimeUnixNano));
    assertEquals(attributesOf(server)["http.response.status_code"], { stringValue: "200" });
    const [duration, ...others] = pointsOf(receiver, "http.server.request.duration");
    assertEquals(others, []);
    assertEquals(Object.keys(attributesOf(duration)).toSorted(), [
      "http.request.method",
      "network.protocol.version",
      "url.scheme",
    ]);
    const [{ asInt, asDouble }] = pointsOf(receiver, "http.server.active_requests");
    assertEquals(Number(asInt ?? asDouble), 0);
  });
}

for (const transport of ["Deno.serve", "CGI", "FastCGI", "SCGI"]) {
  Deno.test(`${transport}: the span is active when a client leaves during the response`, async () => {
    const receiver = await exported("cancelled", transport);
    const names = described(receiver).map(({ name, parent }) => [name, parent]);
    assertEquals(names.toSorted(byText), [
      ["GET", ""],
      ["aborted", "GET /cancelled"],
      ["cancelled", "GET /cancelled"],
    ]);
  });
}

Deno.test("FastCGI: requests in the other roles have spans and metrics, too", async () => {
  const receiver = await exported("roles", "FastCGI");
  const spans = described(receiver);
  const names = spans.map(({ name, parent }) => [name, parent]);
  assertEquals(names, [
    ["GET", ""],
    ["authorize", "GET /authorized"],
    ["after a turn", "GET /authorized"],
    ["GET", ""],
    ["authorize", "GET /thrown"],
    ["after a turn", "GET /thrown"],
    ["GET", ""],
    ["filter", "GET /filtered"],
  ]);
  const server = spans.filter(({ kind }) => kind === SERVER);
  assertEquals(
    server.map(({ status, attributes }) => [
      status.code,
      attributes["http.response.status_code"].stringValue,
      attributes["url.full"].stringValue,
    ]),
    [
      [0, "403", "http://example.org:8080/authorized"],
      [2, "500", "http://example.org:8080/thrown"],
      [0, "206", "http://example.org:8080/filtered"],
    ],
  );
  const statuses = pointsOf(receiver, "http.server.request.duration").map((point) =>
    attributesOf(point)["http.response.status_code"].intValue
  );
  assertEquals(statuses.toSorted(), ["206", "403", "500"]);
  const active = pointsOf(receiver, "http.server.active_requests");
  assertEquals(active.map(({ asInt, asDouble }) => Number(asInt ?? asDouble)), [0]);
});

const script = {
  GATEWAY_INTERFACE: "CGI/1.1",
  SERVER_PROTOCOL: "HTTP/1.1",
  SERVER_NAME: "example.org",
  REQUEST_METHOD: "GET",
};

for (const exitTimeout of ["1000", "0"]) {
  Deno.test(`a CGI script exports its span when it ends, with exitTimeout ${exitTimeout}`, async () => {
    const receiver = new OTLPReceiver();
    await using _ = receiver;
    const outcome = await runScript(new URL("../testing/alive_script.ts", import.meta.url), {
      ...script,
      ...receiver.env,
      X_EXIT_TIMEOUT: exitTimeout,
      SCRIPT_NAME: "/alive.ts",
      PATH_INFO: exitTimeout === "0" ? "/timer" : "/none",
    });
    assertEquals([outcome.status, outcome.code], [200, 0]);
    const [{ name, attributes }, ...others] = described(receiver);
    assertEquals([name, attributes["url.path"].stringValue, others.length], [
      "GET",
      exitTimeout === "0" ? "/alive.ts/timer" : "/alive.ts/none",
      0,
    ]);
    assertEquals(pointsOf(receiver, "http.server.request.duration").length, 1);
  });
}

/** Receivers that never respond: their backlog, and their accepted connections. */
const SILENT: Record<string, [number, (listener: Deno.TcpListener) => Promise<Deno.Conn[]>]> = {
  "that accepts connections": [511, async (listener) => {
    const accepted: Deno.Conn[] = [];
    for await (const conn of listener) accepted.push(conn);
    assert(accepted.length > 0);
    return accepted;
  }],
  // Two connections fill its queue, and the system drops the packets of others.
  "whose packets are dropped": [
    1,
    ({ addr: { port } }) =>
      Promise.all([1, 2].map(() => Deno.connect({ hostname: "127.0.0.1", port }))),
  ],
};

for (const [which, [tcpBacklog, hold]] of Object.entries(SILENT)) {
  Deno.test(`OTEL_EXPORTER_OTLP_TIMEOUT ends a CGI script with a silent receiver ${which}`, async () => {
    const silent = Deno.listen({ hostname: "127.0.0.1", port: 0, tcpBacklog });
    const holding = hold(silent);
    // Without the variable it takes 22 seconds.
    const { status, code } = await deadline(
      runScript(new URL("../testing/alive_script.ts", import.meta.url), {
        ...script,
        ...exportingTo(silent.addr.port),
        OTEL_EXPORTER_OTLP_TIMEOUT: "300",
        SCRIPT_NAME: "/alive.ts",
      }),
      "the script's end",
    );
    assertEquals([status, code], [200, 0]);
    silent.close();
    for (const conn of await holding) conn.close();
  });
}

for (const transport of ["Deno.serve", ...Object.keys(IN_PROCESS)]) {
  Deno.test(`${transport}: what the app prints has the id of its span`, async () => {
    const receiver = await exported("logged", transport, { OTEL_DENO_CONSOLE: "replace" });
    const [server] = receiver.spans.filter(({ kind }) => kind === SERVER);
    const lines = receiver.logs.map((
      { body, spanId, traceId },
    ) => [body.stringValue?.trim(), spanId, traceId]);
    assertEquals(
      lines,
      ["begun", "after a turn", "microtask", "pulled", "pulled", "pulled", "pulled"]
        .map((line) => [line, server.spanId, server.traceId]),
    );
  });
}

function checkStream({ spans }: OTLPReceiver): void {
  const server = spans.find((span) => span.name === "GET" && pathOf(span) === "/stream")!;
  const pull = spans.find(({ name, parentSpanId }) =>
    name === "pull 1" && parentSpanId === server.spanId
  )!;
  assert(BigInt(server.endTimeUnixNano) <= BigInt(pull.startTimeUnixNano));
}
