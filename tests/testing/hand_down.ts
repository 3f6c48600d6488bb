import { spawn } from "node:child_process";
import { createServer } from "node:net";
import type { Readable } from "node:stream";
import { ROOT } from "./daemon.ts";
import { deadline } from "./deadline.ts";

/** A program that inherited a listening socket of this process. */
export interface HandedDown {
  address: string;
  pid: number;
  /** What it has written to stderr so far. */
  readonly log: string;
  /** Resolves to its exit code when it has ended. */
  readonly ended: Promise<number | null>;
  /** Waits until it has written a text to stderr. */
  says(text: string): Promise<void>;
  /** Closes this process's copy of the socket. */
  closeOurs(): void;
  /** Sends the program SIGTERM. @returns Its exit code. */
  stop(): Promise<number | null>;
  /** Sends the program SIGKILL, if it still runs. */
  kill(): void;
}

/**
 * Starts a program with a listening socket as a descriptor, as a web server or systemd does.
 *
 * @param args Arguments of `deno run`.
 * @param limit The maximum number of the program's descriptors, as `ulimit -n` takes it.
 */
export async function handDown(
  where: { host: string; port: number } | { path: string },
  descriptor: number,
  env: Record<string, string> = {},
  args: string[] = ["--allow-env", `${ROOT}examples/hello.ts`],
  limit = "unlimited",
): Promise<HandedDown> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(where, resolve));
  const bound = server.address();
  const handle = (server as unknown as { _handle: { fdForIpc(): number } })._handle;
  const stdio: (number | "ignore" | "pipe")[] = ["ignore", "ignore", "pipe"];
  stdio[descriptor] = handle.fdForIpc();
  const limited = limit === "unlimited" ? "" : `ulimit -n ${limit}; `;
  // The program keeps the process id of the shell, which LISTEN_PID names. It finds Deno in a variable
  // because node:child_process adds --allow-all if a shell's arguments name Deno.
  const command = `${limited}${env.LISTEN_FDS ? "export LISTEN_PID=$$; " : ""}exec "$DENO" "$@"`;
  const child = spawn("/bin/sh", [
    "-c",
    command,
    "sh",
    "run",
    "--no-prompt",
    ...args,
  ], { stdio, env: { ...Deno.env.toObject(), DENO: Deno.execPath(), ...env } });
  let log = "";
  let changed = Promise.withResolvers<void>();
  (child.stdio[2] as Readable).on("data", (chunk) => {
    log += chunk;
    changed.resolve();
    changed = Promise.withResolvers();
  });
  const ended = new Promise<number | null>((resolve) => child.once("close", resolve));
  return {
    address: typeof bound === "string" ? `unix:${bound}` : `127.0.0.1:${bound!.port}`,
    pid: child.pid!,
    get log() {
      return log;
    },
    ended,
    closeOurs: () => server.close(),
    async says(text) {
      while (!log.includes(text)) await deadline(changed.promise, `"${text}" in the log: ${log}`);
    },
    async stop() {
      // With child.kill() the exit code would be null.
      Deno.kill(child.pid!, "SIGTERM");
      return await deadline(ended, "the program to end");
    },
    kill: () => void child.kill("SIGKILL"),
  };
}
