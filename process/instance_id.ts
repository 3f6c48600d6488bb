import { grantedVariable } from "../io/environment.ts";
import { runtime } from "../io/runtime.ts";

const VARIABLE = "OTEL_RESOURCE_ATTRIBUTES";
const KEY = "service.instance.id";

/** The value of the variable when this process started. */
let given: string | undefined;

/**
 * Sets a new `service.instance.id` for the next process that inherits the environment, if it exports telemetry: counters
 * of processes with the same id overwrite each other.
 */
export function nameInstance(): void {
  if (grantedVariable("OTEL_DENO") === undefined) return;
  if (runtime.permissions.querySync({ name: "env", variable: VARIABLE }).state !== "granted") {
    return;
  }
  given ??= runtime.env.get(VARIABLE) ?? "";
  runtime.env.set(VARIABLE, withInstance(given, crypto.randomUUID()));
}

/** Returns attributes with an id, which is appended to the id that they have, if any. */
export function withInstance(attributes: string, id: string): string {
  const pairs = attributes.split(",").filter((pair) => pair.trim() !== "");
  const isInstance = (pair: string) => pair.split("=")[0].trim() === KEY;
  const before = pairs.findLast(isInstance)?.split("=")[1].trim();
  const instance = before ? `${before}-${id}` : id;
  return [...pairs.filter((pair) => !isInstance(pair)), `${KEY}=${instance}`].join(",");
}
