import { spawn } from "node:child_process";
import { createServer } from "node:net";
import type { Readable } from "node:stream";
import { ROOT } from "./daemon.ts";
import { deadline } from "./deadline.ts";

/** A program that has a listening socket of ours. */
export interface HandedDown {
  address: string;
  pid: number;
  /** Whether it has written a text to stderr. */
  says(text: string): Promise<void>;
  /** Closes our end of the socket. */
  closeOurs(): void;
  /** Ends the program. @returns Its exit code. */
  stop(): Promise<number | null>;
}

/**
 * Starts a program with a listening socket as a descriptor, as a web server or systemd does.
 *
 * @param args What `deno run` is given.
 * @param limit The maximum number of its descriptors, as `ulimit -n` takes it.
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
  // The shell's process id is the program's: as systemd does it.
  const limited = limit === "unlimited" ? "" : `ulimit -n ${limit}; `;
  const command = `${limited}${env.LISTEN_FDS ? "export LISTEN_PID=$$; " : ""}exec "$0" "$@"`;
  const child = spawn("/bin/sh", [
    "-c",
    command,
    Deno.execPath(),
    "run",
    "--no-prompt",
    ...args,
  ], { stdio, env: { ...Deno.env.toObject(), ...env } });
  let log = "";
  let changed = Promise.withResolvers<void>();
  (child.stdio[2] as Readable).on("data", (chunk) => {
    log += chunk;
    changed.resolve();
    changed = Promise.withResolvers();
  });
  const ended = new Promise<number | null>((resolve) => child.once("exit", resolve));
  return {
    address: typeof bound === "string" ? `unix:${bound}` : `127.0.0.1:${bound!.port}`,
    pid: child.pid!,
    closeOurs: () => server.close(),
    async says(text) {
      while (!log.includes(text)) await deadline(changed.promise, `"${text}" in the log: ${log}`);
    },
    async stop() {
      // child.kill() would have the exit code told as null.
      Deno.kill(child.pid!, "SIGTERM");
      return await deadline(ended, "the program to end");
    },
  };
}
