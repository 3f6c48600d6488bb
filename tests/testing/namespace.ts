/** What namespaces of processes need. */
export const NAMESPACES: Record<string, string> = { unshare: "util-linux", pgrep: "procps" };

/** Returns a command that runs another as process 1 of a PID namespace, as in a container. */
export function inNamespace(command: string[]): string[] {
  const asUser = Deno.uid() === 0 ? [] : ["--user", "--map-root-user"];
  return ["unshare", ...asUser, "--pid", "--fork", "--kill-child", "--mount-proc", ...command];
}

/** Returns the process id, outside of the namespace, of the process 1 that a command of {@linkcode inNamespace} runs. */
export async function processOne({ pid }: Deno.ChildProcess): Promise<number> {
  const { stdout } = await new Deno.Command("pgrep", { args: ["-P", String(pid)] }).output();
  return Number(new TextDecoder().decode(stdout));
}
