/** Returns an environment variable, or undefined if it is not set or may not be read. Asks for no permission. */
export function grantedVariable(variable: string): string | undefined {
  const { state } = Deno.permissions.querySync({ name: "env", variable });
  return state === "granted" ? Deno.env.get(variable) : undefined;
}
