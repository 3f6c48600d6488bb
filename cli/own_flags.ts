/** Flags that only one process can have, so that workers do not inherit them. */
const OWN = /^--(?:watch|inspect|coverage|cpu-prof|trace-leaks)/;

/**
 * Returns the flags that Deno was started with, such as `--allow-net=127.0.0.1:9000`. They are in /proc,
 * which Deno reads only with --allow-all: a child process with that permission reads them.
 *
 * Needs `--allow-run` of Deno.
 */
export async function ownFlags(): Promise<string[]> {
  const code = `Deno.stdout.writeSync(Deno.readFileSync("/proc/${Deno.pid}/cmdline"))`;
  const { success, stdout } = await new Deno.Command(Deno.execPath(), {
    args: ["eval", "--no-config", code],
    stderr: "null",
  }).output();
  if (!success) return grantedPermissions();
  const words = new TextDecoder().decode(stdout).split("\0").slice(1, -1);
  // The module and its own arguments follow the flags.
  return words.slice(0, -1 - Deno.args.length)
    .filter((word) => word !== "run" && word !== "--no-prompt" && !OWN.test(word));
}

/** Returns the flags of the permissions that are granted as a whole: those granted in part cannot be listed. */
function grantedPermissions(): string[] {
  const names = ["read", "write", "net", "env", "run", "sys", "ffi", "import"] as const;
  return names.filter((name) => Deno.permissions.querySync({ name }).state === "granted")
    .map((name) => `--allow-${name}`);
}
