import { EXEC_PATH } from "./exec_path.ts";

/**
 * Kills a process, and ends the CGI scripts that it runs: the process groups that its children lead. Another process
 * does so, since Deno may read /proc with `--allow-all` only.
 *
 * @returns Whether that process has done so.
 */
export async function killTree(pid: number): Promise<boolean> {
  try {
    const killer = new Deno.Command(EXEC_PATH, {
      args: ["eval", "--no-config", `(${kill})(${pid})`],
      stdin: "null",
      stdout: "null",
      stderr: "null",
    }).spawn();
    killer.unref();
    return (await killer.status).success;
  } catch {
    return false;
  }
}

/** The program of that process: uses nothing outside of itself. */
async function kill(pid: number): Promise<void> {
  const signal = (target: number, name: Deno.Signal) => {
    try {
      Deno.kill(target, name);
    } catch {
      // It has ended, or leads no group.
    }
  };
  const groups: number[] = [];
  try {
    for (const { name } of Deno.readDirSync(`/proc/${pid}/task`)) {
      const children = Deno.readTextFileSync(`/proc/${pid}/task/${name}/children`);
      groups.push(...children.split(" ").filter(Boolean).map(Number));
    }
  } catch {
    // The system has no /proc, or the process has ended.
  }
  signal(pid, "SIGKILL");
  for (const group of groups) signal(-group, "SIGTERM");
  if (groups.length > 0) await new Promise((resolve) => setTimeout(resolve, 1000));
  for (const group of groups) signal(-group, "SIGKILL");
}
