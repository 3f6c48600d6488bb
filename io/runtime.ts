/**
 * The seam to the runtime: on Deno its own namespace, on Node and Bun what `node.ts` makes of their modules. Chosen once.
 *
 * @module
 */

import type { Addr } from "./addr.ts";

/** The functions of the runtime: the part of the `Deno` namespace that Gatehouse uses. */
export interface Runtime {
  /** The number of this process. */
  readonly pid: number;
  /** The URL of the main module. */
  readonly mainModule: string;
  /** The arguments of the program. */
  readonly args: readonly string[];
  readonly build: { readonly os: string };
  /** The exit code of a process that ends by itself. */
  exitCode: number;
  readonly stdin: RuntimeInput;
  readonly stdout: RuntimeOutput;
  readonly stderr: RuntimeOutput;
  readonly env: RuntimeEnv;
  readonly permissions: {
    querySync(descriptor: PermissionQuery): { readonly state: string };
  };
  readonly errors: Readonly<Record<RuntimeError, new (message?: string) => Error>>;
  readonly SeekMode: { readonly Start: number };
  exit(code?: number): never;
  execPath(): string;
  cwd(): string;
  memoryUsage(): { rss: number };
  /** Lets the process end although the timer runs. */
  unrefTimer(timer: unknown): void;
  addSignalListener(signal: RuntimeSignal, listener: () => void): void;
  removeSignalListener(signal: RuntimeSignal, listener: () => void): void;
  kill(pid: number, signal: RuntimeSignal): void;
  /** Sets the umask, and returns the former one. */
  umask(mask: number): number;
  stat(path: string): Promise<RuntimeFileInfo>;
  lstat(path: string): Promise<RuntimeFileInfo>;
  statSync(path: string): RuntimeFileInfo;
  lstatSync(path: string): RuntimeFileInfo;
  realPathSync(path: string): string;
  readLinkSync(path: string): string;
  readDirSync(path: string): Iterable<{ name: string }>;
  readTextFile(path: string): Promise<string>;
  readTextFileSync(path: string): string;
  openSync(path: string, options?: OpenOptions): RuntimeFile;
  remove(path: string): Promise<void>;
  removeSync(path: string): void;
  renameSync(from: string, to: string): void;
  chmodSync(path: string, mode: number): void;
  chownSync(path: string, uid: number | null, gid: number | null): void;
}

/** What other runtimes lack. */
export interface DenoOnly {
  /** Runs another program. */
  readonly Command: new (program: string, options?: CommandOptions) => RuntimeCommand;
  /** Serves HTTP. */
  serve(
    options: object,
    handler: (request: Request, info: ServeInfo) => Response | Promise<Response>,
  ): HTTPServer;
  listen(
    options:
      | { transport: "tcp"; hostname: string; port: number; tcpBacklog?: number }
      | { transport: "unix"; path: string },
  ): AsyncIterable<RuntimeConn> & { addr: Addr; close(): void; ref(): void; unref(): void };
  connect(
    options:
      | { transport: "tcp"; hostname: string; port: number; signal?: AbortSignal }
      | { transport: "unix"; path: string },
  ): Promise<RuntimeConn>;
}

/** A connection. */
export interface RuntimeConn {
  read(buffer: Uint8Array): Promise<number | null>;
  write(bytes: Uint8Array): Promise<number>;
  closeWrite(): Promise<void>;
  close(): void;
  ref(): void;
  unref(): void;
  readonly remoteAddr: Addr;
}

/** The names of the errors that callers distinguish. */
export type RuntimeError =
  | "AddrInUse"
  | "ConnectionRefused"
  | "NotCapable"
  | "NotFound"
  | "TimedOut"
  | "WouldBlock";

/** The signals that are used. */
export type RuntimeSignal = "SIGHUP" | "SIGINT" | "SIGKILL" | "SIGTERM" | "SIGUSR1";

/** A permission, as `Deno.PermissionDescriptor`. */
export interface PermissionQuery {
  name: "env" | "net" | "read" | "run" | "sys" | "write";
  variable?: string;
  host?: string;
  path?: string;
  command?: string;
  kind?: string;
}

/** Standard input. */
export interface RuntimeInput {
  read(buffer: Uint8Array): Promise<number | null>;
  close(): void;
  isTerminal(): boolean;
}

/** Standard output or error. */
export interface RuntimeOutput {
  write(bytes: Uint8Array): Promise<number>;
  writeSync(bytes: Uint8Array): number;
}

/** The environment. */
export interface RuntimeEnv {
  /** @throws If the value is not UTF-8. The message ends with it as Rust's Debug formats it. */
  get(name: string): string | undefined;
  set(name: string, value: string): void;
  has(name: string): boolean;
  delete(name: string): void;
  /** Returns the variables that are UTF-8. */
  toObject(): Record<string, string>;
}

/** What is known of a file. */
export interface RuntimeFileInfo {
  readonly isFile: boolean;
  readonly isDirectory: boolean;
  readonly isSymlink: boolean;
  readonly isSocket: boolean | null;
  readonly size: number;
  readonly mode: number | null;
  readonly uid: number | null;
}

/** How a file is opened. */
export interface OpenOptions {
  read?: boolean;
  write?: boolean;
  append?: boolean;
  create?: boolean;
  createNew?: boolean;
  mode?: number;
}

/** An open file. */
export interface RuntimeFile extends Disposable {
  read(buffer: Uint8Array): Promise<number | null>;
  readSync(buffer: Uint8Array): number | null;
  write(bytes: Uint8Array): Promise<number>;
  writeSync(bytes: Uint8Array): number;
  statSync(): RuntimeFileInfo;
  seek(offset: number, whence: number): Promise<number>;
  close(): void;
}

/** How a program is run. */
export interface CommandOptions {
  args?: string[];
  cwd?: string;
  env?: Record<string, string>;
  clearEnv?: boolean;
  detached?: boolean;
  stdin?: "piped" | "null";
  stdout?: "piped" | "null";
  stderr?: "piped" | "null";
}

/** How a program ended. */
export interface CommandStatus {
  success: boolean;
  code: number;
  signal: string | null;
}

/** A program to run. */
export interface RuntimeCommand {
  spawn(): RuntimeChild;
  outputSync(): { success: boolean };
}

/** A program that runs. */
export interface RuntimeChild {
  readonly pid: number;
  readonly status: Promise<CommandStatus>;
  readonly stdin: WritableStream<Uint8Array>;
  readonly stdout: ReadableStream<Uint8Array<ArrayBuffer>>;
  readonly stderr: ReadableStream<Uint8Array<ArrayBuffer>>;
  kill(signal: RuntimeSignal): void;
  unref(): void;
}

/** The second argument of a handler of `Deno.serve`, as `Deno.ServeHandlerInfo`. */
export interface ServeInfo<A extends Addr = Addr> {
  /** The peer's address. */
  remoteAddr: A;
  /** Resolves when the response has been sent. */
  completed: Promise<void>;
}

/** A server of HTTP, as `Deno.HttpServer`. */
export interface HTTPServer<A extends Addr = Addr> extends AsyncDisposable {
  /** Resolves when the server has stopped. */
  finished: Promise<void>;
  /** The address that it listens on. */
  addr: A;
  /** Keeps the process alive while the server runs. */
  ref(): void;
  /** Lets the process end while the server runs. */
  unref(): void;
  /** Stops accepting connections, and waits for the requests in progress. */
  shutdown(): Promise<void>;
}

const { Deno } = globalThis as { Deno?: Runtime & DenoOnly };

/** What only Deno has; undefined on another runtime. */
export const denoOnly: DenoOnly | undefined = Deno;

/** The runtime that this process runs on. */
export const runtime: Runtime = Deno ?? (await import("./node.ts")).nodeRuntime();

/**
 * Returns what only Deno has.
 *
 * @param what What needs it, such as "serve HTTP".
 * @param instead A sentence that says what to do on another runtime.
 * @throws {Error} If this is another runtime.
 */
export function requireDeno(what: string, instead: string): DenoOnly {
  if (denoOnly !== undefined) return denoOnly;
  throw new Error(`Cannot ${what} without Deno: this is ${navigator.userAgent}. ${instead}`);
}
