import { main } from "../../cli.ts";
import { Daemon, ROOT } from "./daemon.ts";

/** How the command line ended, and what it printed. */
export interface Ended {
  code: number;
  stdout: string;
  stderr: string;
}

/** The flag of `deno run` that has `@std/*` where JSR cannot be reached. */
export function importMapFlags(): string[] {
  const importMap = Deno.env.get("GATEHOUSE_IMPORT_MAP");
  return importMap ? [`--import-map=${importMap}`] : [];
}

/**
 * Calls the command line in this process, with its permissions, where no process of its own is needed: to start one
 * takes longer than all that the command does. It has the console until it ends.
 */
export async function callCommandLine(...args: string[]): Promise<Ended> {
  const { log, error } = console;
  let stdout = "";
  let stderr = "";
  console.log = (text = "") => stdout += `${text}\n`;
  console.error = (text = "") => stderr += `${text}\n`;
  try {
    const code = await main(args);
    return { code, stdout, stderr };
  } finally {
    console.log = log;
    console.error = error;
  }
}

/**
 * Runs the command line to its end.
 *
 * @param flags Permissions.
 */
export async function runCommandLine(
  args: string[],
  flags: string[] = [],
  options: Deno.CommandOptions = {},
): Promise<Ended> {
  const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    stdin: "null",
    ...options,
    args: ["run", "--no-prompt", ...importMapFlags(), ...flags, `${ROOT}cli.ts`, ...args],
    env: { NO_COLOR: "1", ...options.env },
  }).output();
  const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
  return { code, stdout: text(stdout), stderr: text(stderr) };
}

/**
 * Starts the command `serve`, on a free port unless the arguments name an address.
 *
 * @param flags Permissions.
 */
export function startServe(
  module: string,
  args: string[] = [],
  flags: string[] = ["--allow-read", "--allow-net"],
  options: Deno.CommandOptions = {},
): Daemon {
  const isPlaced = args.some((argument) => /^(-l|--listen)$/.test(argument));
  const listen = isPlaced ? [] : ["--listen", "127.0.0.1:0"];
  return new Daemon([...flags, `${ROOT}cli.ts`, "serve", module, ...listen, ...args], options);
}

/** Waits until a server listens. Returns its address. */
export async function served(daemon: Daemon): Promise<string> {
  await daemon.says(" on ");
  return / on (\S+)/.exec(daemon.log)![1];
}
