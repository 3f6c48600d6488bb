import { spawn } from "node:child_process";
import { createServer, type Server } from "node:net";
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

/** Where to listen. */
type Where = { host: string; port: number } | { path: string };

/** A listening socket on which this process does not accept, as systemd keeps it for programs that come and go. */
export interface KeptSocket {
  address: string;
  fd: number;
}

/** Opens a socket for {@linkcode handDown}. It stays open until this process ends. */
export async function keepSocket(where: Where): Promise<KeptSocket> {
  // Closing a server removes the path that it listens on.
  const opened = "path" in where ? { path: `${where.path}.new` } : where;
  const [server, address, fd] = await openSocket(opened);
  if ("path" in where) Deno.renameSync(`${where.path}.new`, where.path);
  server.close();
  return { address: "path" in where ? `unix:${where.path}` : address, fd };
}

async function openSocket(where: Where): Promise<[server: Server, address: string, fd: number]> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(where, resolve));
  const bound = server.address();
  const handle = (server as unknown as { _handle: { fdForIpc(): number } })._handle;
  const address = typeof bound === "string" ? `unix:${bound}` : `127.0.0.1:${bound!.port}`;
  return [server, address, handle.fdForIpc()];
}

/**
 * Starts a program with a listening socket as a descriptor, as a web server or systemd does.
 *
 * @param args The program and its arguments, after flags of Deno.
 * @param limit The maximum number of the program's descriptors, as `ulimit -n` takes it.
 * @param runner What runs the program, if not Deno.
 */
export async function handDown(
  where: Where | KeptSocket,
  descriptor: number,
  env: Record<string, string> = {},
  args: string[] = ["--allow-env", `${ROOT}examples/hello.ts`],
  limit = "unlimited",
  runner = [Deno.execPath(), "run", "--no-prompt"],
): Promise<HandedDown> {
  const [program, ...flags] = runner;
  const [server, address, fd] = "fd" in where
    ? [null, where.address, where.fd]
    : await openSocket(where);
  const stdio: (number | "ignore" | "pipe")[] = ["ignore", "ignore", "pipe"];
  stdio[descriptor] = fd;
  const limited = limit === "unlimited" ? "" : `ulimit -n ${limit}; `;
  // The program keeps the process id of the shell, which LISTEN_PID names. It finds Deno in a variable
  // because node:child_process adds --allow-all if a shell's arguments name Deno.
  const command = `${limited}${env.LISTEN_FDS ? "export LISTEN_PID=$$; " : ""}exec "$DENO" "$@"`;
  const child = spawn("/bin/sh", [
    "-c",
    command,
    "sh",
    ...flags,
    ...args,
  ], { stdio, env: { ...Deno.env.toObject(), DENO: program, ...env } });
  let log = "";
  let changed = Promise.withResolvers<void>();
  (child.stdio[2] as Readable).on("data", (chunk) => {
    log += chunk;
    changed.resolve();
    changed = Promise.withResolvers();
  });
  const ended = new Promise<number | null>((resolve) => child.once("close", resolve));
  return {
    address,
    pid: child.pid!,
    get log() {
      return log;
    },
    ended,
    closeOurs: () => server?.close(),
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
