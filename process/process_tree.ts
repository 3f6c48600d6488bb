import { EXEC_PATH } from "./exec_path.ts";
import { requireDeno } from "../io/runtime.ts";

/**
 * Kills a process, and ends the CGI scripts that it runs: the process groups that its children lead.
 *
 * @returns Whether it did.
 */
export async function killTree(pid: number): Promise<boolean> {
  return await runElsewhere(kill, pid) === 0;
}

/** Returns whether a process is stopped, by a signal or a debugger. */
export async function isStopped(pid: number): Promise<boolean> {
  return await runElsewhere(stopped, pid) === STOPPED;
}

const STOPPED = 10;

/**
 * Runs a function in another process, as only `--allow-all` lets Deno read /proc and signal process groups. The function
 * must use nothing outside of itself.
 *
 * @returns The exit code of that process, or undefined if it could not be started.
 */
async function runElsewhere(
  program: (pid: number) => void | Promise<void>,
  pid: number,
): Promise<number | undefined> {
  try {
    const { Command } = requireDeno("look at processes", "");
    const child = new Command(EXEC_PATH, {
      args: ["eval", "--no-config", `(${program})(${pid})`],
      // It has nothing to export, and Deno.exit() may not return with telemetry (seen on Deno 2.9.6).
      env: { OTEL_DENO: "false" },
      stdin: "null",
      stdout: "null",
      stderr: "null",
    }).spawn();
    child.unref();
    return (await child.status).code;
  } catch {
    return undefined;
  }
}

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

/** Exits with 10 if the process is stopped. */
function stopped(pid: number): void {
  const [, state] = /^.*\) (\w)/s.exec(Deno.readTextFileSync(`/proc/${pid}/stat`))!;
  Deno.exit(state === "T" || state === "t" ? 10 : 0);
}
