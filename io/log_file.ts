import { type LineOutput, logLine } from "./log.ts";
import { runtime, type RuntimeFile } from "./runtime.ts";

/** The permissions of a file that is created: a log is not for everybody. */
const MODE = 0o640;

/** A file that lines are appended to. {@linkcode reopenLogFiles} opens it again once another program has renamed it. */
export class LogFile implements LineOutput, Disposable {
  #path: string;
  #file: RuntimeFile;

  /** Opens the file. @throws The error of the system. */
  constructor(path: string) {
    this.#path = path;
    this.#file = this.#open();
    files.add(this);
  }

  #open(): RuntimeFile {
    return runtime.openSync(this.#path, { append: true, create: true, mode: MODE });
  }

  /** Whether a write of any length is taken as a whole, as a regular file does, but not a pipe or `/dev/stdout`. */
  get takesWhole(): boolean {
    try {
      return this.#file.statSync().isFile;
    } catch {
      // Deno denies it to a program that may write the file, but not read it.
      return false;
    }
  }

  write(bytes: Uint8Array): Promise<number> {
    return this.#file.write(bytes);
  }

  writeSync(bytes: Uint8Array): number {
    return this.#file.writeSync(bytes);
  }

  /** Opens the file again. Never throws: if that fails, lines still go to the open file. */
  reopen(): void {
    const before = this.#file;
    try {
      this.#file = this.#open();
    } catch (error) {
      return logLine(
        `Cannot open ${this.#path} again: ${
          (error as Error).message
        }. Lines still go to the file that was open. ` +
          "Let this user create the file, then send SIGHUP again",
      );
    }
    before.close();
  }

  [Symbol.dispose](): void {
    files.delete(this);
    this.#file.close();
  }
}

const files = new Set<LogFile>();

/** Opens the log files of this process again. Returns whether there are any. */
export function reopenLogFiles(): boolean {
  for (const file of files) file.reopen();
  return files.size > 0;
}
