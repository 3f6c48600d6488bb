/**
 * The part of the `Deno` namespace that Gatehouse uses, on Node and Bun. It imports nothing of ours: what imports it is
 * still waiting for it. Nothing of `node:` is imported either: a bundle would load that on Deno, too, and importing
 * `node:process` makes standard input non-blocking.
 *
 * @module
 */

import type * as FS from "node:fs";
import type nodeProcess from "node:process";
import type * as TTY from "node:tty";
import type * as URLs from "node:url";

type Process = typeof nodeProcess;

/** What an error of the system is called on Deno, by its code. */
const CODES = {
  AddrInUse: "EADDRINUSE",
  ConnectionRefused: "ECONNREFUSED",
  NotCapable: "ERR_ACCESS_DENIED",
  NotFound: "ENOENT",
  TimedOut: "ETIMEDOUT",
  WouldBlock: "EAGAIN",
} as const;

type ErrorClass = new (message?: string) => Error;

/** Creates a class whose instances are all errors with a code. */
function errorWith(code: string): ErrorClass {
  return class extends Error {
    readonly code = code;
    static override [Symbol.hasInstance](value: unknown): boolean {
      return codeOf(value) === code;
    }
  };
}

function codeOf(error: unknown): unknown {
  return (error as { code?: unknown } | null | undefined)?.code;
}

const STDIN = 0;

/** Creates the {@linkcode Runtime} of Node or Bun. Long, as it has all members of one interface. */
// deno-lint-ignore explicit-function-return-type
export function nodeRuntime() {
  const { process } = globalThis as unknown as { process: Process };
  const builtin = process.getBuiltinModule as (name: string) => unknown;
  const fs = builtin("node:fs") as typeof FS;
  const entries = Object.entries(CODES).map(([name, code]) => [name, errorWith(code)]);
  const errors = Object.fromEntries(entries) as Record<keyof typeof CODES, ErrorClass>;
  const { versions } = process;
  const input = new Input(process, fs);
  return {
    pid: process.pid,
    args: process.argv.slice(2),
    build: { os: process.platform === "win32" ? "windows" : process.platform },
    get mainModule(): string {
      const { pathToFileURL } = builtin("node:url") as typeof URLs;
      return process.argv[1] === undefined ? "" : pathToFileURL(process.argv[1]).href;
    },
    get exitCode(): number {
      return Number(process.exitCode ?? 0);
    },
    set exitCode(code: number) {
      process.exitCode = code;
    },
    stdin: input,
    stdout: new Output(process, fs, 1),
    stderr: new Output(process, fs, 2),
    env: new Env(process, fs),
    permissions: { querySync: () => ({ state: "granted" }) },
    errors,
    SeekMode: { Start: 0 },
    exit(code?: number): never {
      // Node waits for the thread that reads, which ends when the web server closes the pipe.
      if (input.reading && versions.bun === undefined) process.kill(process.pid, "SIGKILL");
      return process.exit(code);
    },
    execPath: () => process.execPath,
    cwd: () => process.cwd(),
    memoryUsage: () => ({ rss: process.memoryUsage.rss() }),
    unrefTimer(timer: unknown): void {
      (timer as { unref(): void }).unref();
    },
    addSignalListener(signal: string, listener: () => void): void {
      process.on(signal, listener);
    },
    removeSignalListener(signal: string, listener: () => void): void {
      process.off(signal, listener);
    },
    kill: (pid: number, signal: string): void => void process.kill(pid, signal),
    umask: (mask: number) => process.umask(mask),
    stat: async (path: string) => fileInfo(await fs.promises.stat(path)),
    lstat: async (path: string) => fileInfo(await fs.promises.lstat(path)),
    statSync: (path: string) => fileInfo(fs.statSync(path)),
    lstatSync: (path: string) => fileInfo(fs.lstatSync(path)),
    realPathSync: (path: string) => fs.realpathSync(path),
    readLinkSync: (path: string) => fs.readlinkSync(path),
    readDirSync: (path: string) => fs.readdirSync(path).map((name) => ({ name })),
    readTextFile: (path: string) => fs.promises.readFile(path, "utf8"),
    readTextFileSync: (path: string) => fs.readFileSync(path, "utf8"),
    openSync: (path: string, options: OpenOptions = {}) => new File(fs, path, options),
    remove: (path: string) => fs.promises.unlink(path),
    removeSync: (path: string) => fs.unlinkSync(path),
    renameSync: (from: string, to: string) => fs.renameSync(from, to),
    chmodSync: (path: string, mode: number) => fs.chmodSync(path, mode),
    chownSync(path: string, uid: number | null, gid: number | null): void {
      fs.chownSync(path, uid ?? -1, gid ?? -1);
    },
  };
}

/** Standard input. */
class Input {
  /** Whether a thread reads. */
  reading = false;
  #isStream = false;
  readonly #process: Process;
  readonly #fs: typeof FS;

  constructor(process: Process, fs: typeof FS) {
    this.#process = process;
    this.#fs = fs;
  }

  read(buffer: Uint8Array): Promise<number | null> {
    if (this.#isStream) return this.#readStream(buffer);
    this.reading = true;
    return new Promise((resolve, reject) => {
      this.#fs.read(STDIN, buffer, 0, buffer.length, null, (error, count) => {
        this.reading = false;
        if (error === null) resolve(count || null);
        else if (codeOf(error) === CODES.WouldBlock) resolve(this.#readStream(buffer));
        else reject(error);
      });
    });
  }

  /** Does the same, and from then on, where another program, or a library, has made standard input non-blocking. */
  async #readStream(buffer: Uint8Array): Promise<number | null> {
    this.#isStream = true;
    const { stdin } = this.#process;
    while (true) {
      const chunk = stdin.read() as Uint8Array | null;
      if (chunk !== null) {
        const part = chunk.subarray(0, buffer.length);
        buffer.set(part);
        if (part.length < chunk.length) stdin.unshift(chunk.subarray(part.length));
        return part.length;
      }
      if (stdin.readableEnded) return null;
      await new Promise<void>((resolve, reject) => {
        const settle = (error?: Error) => {
          for (const name of ["readable", "end", "error"]) stdin.off(name, settle);
          if (error instanceof Error) reject(error);
          else resolve();
        };
        for (const name of ["readable", "end", "error"]) stdin.on(name, settle);
      });
    }
  }

  close(): void {
    this.#fs.closeSync(STDIN);
  }

  isTerminal(): boolean {
    try {
      const stat = this.#fs.fstatSync(STDIN);
      // Loading node:tty costs more than the rest, and a script without a body has /dev/null.
      if (!stat.isCharacterDevice() || stat.rdev === this.#fs.statSync("/dev/null").rdev) {
        return false;
      }
    } catch {
      return false;
    }
    return (this.#process.getBuiltinModule("node:tty") as typeof TTY).isatty(STDIN);
  }
}

/** Standard output or error. */
class Output {
  readonly #process: Process;
  readonly #fs: typeof FS;
  readonly #fd: 1 | 2;

  constructor(process: Process, fs: typeof FS, fd: 1 | 2) {
    this.#process = process;
    this.#fs = fs;
    this.#fd = fd;
  }

  writeSync(bytes: Uint8Array): number {
    try {
      return this.#fs.writeSync(this.#fd, bytes);
    } catch (error) {
      // It is full, and something has made it non-blocking.
      if (codeOf(error) === CODES.WouldBlock) return 0;
      throw error;
    }
  }

  write(bytes: Uint8Array): Promise<number> {
    return new Promise((resolve, reject) => {
      this.#fs.write(this.#fd, bytes, (error, count) => {
        if (error === null) resolve(count);
        else if (codeOf(error) === CODES.WouldBlock) resolve(this.#writeStream(bytes));
        else reject(error);
      });
    });
  }

  #writeStream(bytes: Uint8Array): Promise<number> {
    const stream = this.#fd === 1 ? this.#process.stdout : this.#process.stderr;
    return new Promise((resolve, reject) => {
      stream.write(bytes, (error?: Error | null) => error ? reject(error) : resolve(bytes.length));
    });
  }
}

/** The environment. Node decodes values that are not UTF-8, too: here they are recognized, as by Deno. */
class Env {
  readonly #process: Process;
  readonly #fs: typeof FS;
  /** The variables as the process got them, as byte strings. */
  #initial: Map<string, string> | undefined;

  constructor(process: Process, fs: typeof FS) {
    this.#process = process;
    this.#fs = fs;
  }

  get(name: string): string | undefined {
    const value = this.#process.env[name];
    const bytes = value?.includes("\ufffd") ? this.#undecodable(name) : undefined;
    if (bytes === undefined) return value;
    throw new Error(`Cannot read variable ${name} as UTF-8: "${debugFormat(bytes)}"`);
  }

  set(name: string, value: string): void {
    this.#process.env[name] = value;
  }

  has(name: string): boolean {
    return this.#process.env[name] !== undefined;
  }

  delete(name: string): void {
    delete this.#process.env[name];
  }

  toObject(): Record<string, string> {
    const variables = { ...this.#process.env } as Record<string, string>;
    for (const name in variables) {
      if (variables[name].includes("\ufffd") && this.#undecodable(name) !== undefined) {
        delete variables[name];
      }
    }
    return variables;
  }

  /** Returns a value as a byte string if it is not UTF-8. */
  #undecodable(name: string): string | undefined {
    this.#initial ??= this.#readInitial();
    const bytes = this.#initial.get(name);
    if (bytes === undefined) return undefined;
    try {
      new TextDecoder("utf-8", { fatal: true }).decode(
        Uint8Array.from(bytes, (char) => char.charCodeAt(0)),
      );
      return undefined;
    } catch {
      return bytes;
    }
  }

  #readInitial(): Map<string, string> {
    try {
      const entries = this.#fs.readFileSync("/proc/self/environ", "latin1").split("\0");
      return new Map(entries.map((entry) => {
        const at = entry.indexOf("=");
        return [entry.slice(0, at), entry.slice(at + 1)];
      }));
    } catch {
      // There is no such file on other systems.
      return new Map();
    }
  }
}

/** Formats a byte string as Rust's Debug does, with each byte that is not ASCII escaped. */
function debugFormat(bytes: string): string {
  return bytes.replace(
    /[^\x20-\x7e]|["\\]/g,
    (char) =>
      char === '"' || char === "\\"
        ? `\\${char}`
        : `\\x${char.charCodeAt(0).toString(16).toUpperCase().padStart(2, "0")}`,
  );
}

// deno-lint-ignore explicit-function-return-type
function fileInfo(stats: FS.Stats) {
  return {
    isFile: stats.isFile(),
    isDirectory: stats.isDirectory(),
    isSymlink: stats.isSymbolicLink(),
    isSocket: stats.isSocket(),
    size: stats.size,
    mode: stats.mode,
    uid: stats.uid,
  };
}

interface OpenOptions {
  read?: boolean;
  write?: boolean;
  append?: boolean;
  create?: boolean;
  createNew?: boolean;
  mode?: number;
}

/** An open file. Node has no seek: the position is kept here. */
class File {
  readonly #fs: typeof FS;
  readonly #fd: number;
  #at = 0;

  constructor(fs: typeof FS, path: string, options: OpenOptions) {
    const flags = options.createNew ? "wx+" : options.append ? "a" : options.write ? "r+" : "r";
    this.#fs = fs;
    this.#fd = fs.openSync(path, flags, options.mode);
  }

  read(buffer: Uint8Array): Promise<number | null> {
    return new Promise((resolve, reject) => {
      this.#fs.read(this.#fd, buffer, 0, buffer.length, this.#at, (error, count) => {
        if (error !== null) return reject(error);
        this.#at += count;
        resolve(count || null);
      });
    });
  }

  readSync(buffer: Uint8Array): number | null {
    const count = this.#fs.readSync(this.#fd, buffer, 0, buffer.length, this.#at);
    this.#at += count;
    return count || null;
  }

  write(bytes: Uint8Array): Promise<number> {
    return new Promise((resolve, reject) => {
      this.#fs.write(this.#fd, bytes, 0, bytes.length, this.#at, (error, count) => {
        if (error !== null) return reject(error);
        this.#at += count;
        resolve(count);
      });
    });
  }

  writeSync(bytes: Uint8Array): number {
    const count = this.#fs.writeSync(this.#fd, bytes, 0, bytes.length, this.#at);
    this.#at += count;
    return count;
  }

  statSync(): ReturnType<typeof fileInfo> {
    return fileInfo(this.#fs.fstatSync(this.#fd));
  }

  seek(offset: number): Promise<number> {
    this.#at = offset;
    return Promise.resolve(offset);
  }

  close(): void {
    this.#fs.closeSync(this.#fd);
  }

  [Symbol.dispose](): void {
    this.close();
  }
}
