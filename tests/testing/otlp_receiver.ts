/** A receiver of OpenTelemetry's protocol on the loopback. */

/** A value of an attribute, such as `{ stringValue: "200" }`. */
export type Value = Record<string, unknown>;

interface Attributed {
  attributes: { key: string; value: Value }[];
}

/** A span as it was exported. */
export interface Span extends Attributed {
  traceId: string;
  spanId: string;
  parentSpanId: string;
  name: string;
  kind: number;
  startTimeUnixNano: string;
  endTimeUnixNano: string;
  status: { code: number; message: string };
  events: unknown[];
}

/** A line that was printed, as it was exported. */
export interface LogRecord {
  body: { stringValue?: string };
  traceId: string;
  spanId: string;
}

/** A data point of a metric as it was exported. */
export interface Point extends Attributed {
  count?: string;
  sum?: number;
  asInt?: string;
  asDouble?: number;
  explicitBounds?: number[];
}

/** A metric as it was exported. */
export interface Metric {
  name: string;
  description: string;
  unit: string;
  histogram?: { aggregationTemporality: number; dataPoints: Point[] };
  gauge?: { dataPoints: Point[] };
  sum?: { aggregationTemporality: number; isMonotonic: boolean; dataPoints: Point[] };
}

/** Returns attributes by their names. Fails if a name is there twice. */
export function attributesOf({ attributes }: Attributed): Record<string, Value> {
  const found: Record<string, Value> = {};
  for (const { key, value } of attributes) {
    if (Object.hasOwn(found, key)) throw new Error(`The attribute ${key} is there twice`);
    found[key] = value;
  }
  return found;
}

/** Returns the environment of a program that exports to a port of the loopback. */
export function exportingTo(port: number): Record<string, string> {
  return {
    OTEL_DENO: "true",
    OTEL_DENO_CONSOLE: "ignore",
    OTEL_EXPORTER_OTLP_PROTOCOL: "http/json",
    OTEL_EXPORTER_OTLP_ENDPOINT: `http://127.0.0.1:${port}`,
  };
}

/** Receives spans and metrics. */
export class OTLPReceiver implements AsyncDisposable {
  readonly spans: Span[] = [];
  readonly logs: LogRecord[] = [];
  /** The last export of each metric, by its name. */
  readonly metrics = new Map<string, Metric>();
  /** The attributes of the resources, one for each export. */
  readonly resources: Record<string, Value>[] = [];
  /** Resolves at the next export. */
  #arrived = Promise.withResolvers<void>();
  readonly #server = Deno.serve(
    { hostname: "127.0.0.1", port: 0, onListen() {} },
    async (request) => {
      this.#received(await request.json());
      this.#arrived.resolve();
      this.#arrived = Promise.withResolvers();
      return Response.json({});
    },
  );

  /** The environment of a program that exports to this receiver. */
  get env(): Record<string, string> {
    return exportingTo(this.#server.addr.port);
  }

  /** Waits until the exported data has a property. */
  async until(has: () => boolean): Promise<void> {
    while (!has()) await this.#arrived.promise;
  }

  // deno-lint-ignore no-explicit-any
  #received({ resourceSpans = [], resourceMetrics = [], resourceLogs = [] }: any): void {
    for (const { resource, scopeSpans } of resourceSpans) {
      this.resources.push(attributesOf(resource));
      for (const { spans } of scopeSpans) this.spans.push(...spans);
    }
    for (const { scopeLogs } of resourceLogs) {
      for (const { logRecords } of scopeLogs) this.logs.push(...logRecords);
    }
    for (const { resource, scopeMetrics } of resourceMetrics) {
      this.resources.push(attributesOf(resource));
      for (const { metrics } of scopeMetrics) {
        for (const metric of metrics) this.metrics.set(metric.name, metric);
      }
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#server.shutdown();
  }
}
