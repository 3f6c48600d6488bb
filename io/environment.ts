import { runtime } from "./runtime.ts";

/** Returns an environment variable, or undefined if it is not set or may not be read. Requests no permission. */
export function grantedVariable(variable: string): string | undefined {
  const { state } = runtime.permissions.querySync({ name: "env", variable });
  return state === "granted" ? runtime.env.get(variable) : undefined;
}
