import { grantedVariable } from "../io/environment.ts";

const VARIABLE = "OTEL_RESOURCE_ATTRIBUTES";
const KEY = "service.instance.id";

/** The variable as this process got it. */
let given: string | undefined;

/**
 * Gives the next process that inherits the environment a `service.instance.id` of its own, if it exports telemetry: the
 * counters of processes that have the same one overwrite each other.
 */
export function nameInstance(): void {
  if (grantedVariable("OTEL_DENO") === undefined) return;
  if (Deno.permissions.querySync({ name: "env", variable: VARIABLE }).state !== "granted") return;
  given ??= Deno.env.get(VARIABLE) ?? "";
  Deno.env.set(VARIABLE, withInstance(given, crypto.randomUUID()));
}

/** Returns attributes with an id, after the one that they have, if any. */
export function withInstance(attributes: string, id: string): string {
  const pairs = attributes.split(",").filter((pair) => pair.trim() !== "");
  const isInstance = (pair: string) => pair.split("=")[0].trim() === KEY;
  const before = pairs.findLast(isInstance)?.split("=")[1].trim();
  const instance = before ? `${before}-${id}` : id;
  return [...pairs.filter((pair) => !isInstance(pair)), `${KEY}=${instance}`].join(",");
}
