import { grantedVariable } from "./environment.ts";
import { runtime, type RuntimeFile } from "./runtime.ts";

/** The size of the parts that a file is read in, in bytes. */
const PART = 65_536;
/** How many entries of the maximum size there may be in memory. */
const MEMORY_ENTRIES = 10;

/** Limits of a {@linkcode Spool}, in bytes. */
export interface SpoolOptions {
  /** The maximum size of all entries in files, and so of one. */
  maxTotal: number;
  /** The maximum size of an entry in memory. All of them have at most ten times as many bytes. */
  maxInMemory: number;
}

/** Thrown if an entry is too large. The message completes "Cannot receive ... as". */
export class EntryTooLargeError extends Error {
  override name = "EntryTooLargeError";
}

/** Thrown if all entries together are too large. The message completes "Cannot receive ... as". */
export class SpoolFullError extends Error {
  override name = "SpoolFullError";
}

/**
 * Buffers bytes until all of them have arrived. Each entry is a file in the temporary folder, which only this user can
 * read, and which has no name, so that it disappears when this process ends. If no file can be written, entries are in
 * memory.
 */
export class Spool {
  #folder = temporaryFolder();
  #files: Quota;
  #memory: Quota;

  /** @param options The limits. */
  constructor({ maxTotal, maxInMemory }: SpoolOptions) {
    const where = ` in memory, as no file can be written in ${this.#folder}`;
    this.#files = new Quota(maxTotal, maxTotal, "");
    this.#memory = new Quota(maxInMemory, MEMORY_ENTRIES * maxInMemory, where);
  }

  /** Creates an entry. */
  create(): SpoolEntry {
    const file = openUnnamed(this.#folder);
    return file === undefined
      ? new SpoolEntry(new MemoryStore(), this.#memory)
      : new SpoolEntry(new FileStore(file), this.#files);
  }
}

/** Bytes that are written first, then read once. */
export class SpoolEntry {
  #store: Store;
  #quota: Quota;
  #length = 0;
  #closed = false;

  /** Creates an entry. Use {@linkcode Spool.create}. */
  constructor(store: Store, quota: Quota) {
    this.#store = store;
    this.#quota = quota;
  }

  /**
   * Checks a length that was announced. Only bytes that are written count against the limit of all entries.
   *
   * @throws {EntryTooLargeError} If the length is above the limit of an entry.
   */
  announce(length: number): void {
    this.#quota.check(length);
  }

  /**
   * Appends bytes.
   *
   * @throws {EntryTooLargeError} If the entry is then too large.
   * @throws {SpoolFullError} If all entries together are.
   * @throws {Error} If the bytes cannot be written. This message completes "Cannot receive ... as", too.
   */
  async write(bytes: Uint8Array<ArrayBuffer>): Promise<void> {
    this.#quota.check(this.#length + bytes.length);
    this.#quota.take(bytes.length);
    this.#length += bytes.length;
    await this.#store.write(bytes);
  }

  /** Reads the next bytes, which are valid until the next read; null at the end. */
  async read(): Promise<Uint8Array<ArrayBuffer> | null> {
    return await this.#store.read();
  }

  /** Discards the bytes; later calls do nothing. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#quota.give(this.#length);
    this.#store.close();
  }
}

/** Limits the bytes of one entry, and of all entries. */
class Quota {
  #one: number;
  #all: number;
  #where: string;
  #used = 0;

  constructor(one: number, all: number, where: string) {
    this.#one = one;
    this.#all = all;
    this.#where = where;
  }

  /** Checks the length of an entry. */
  check(length: number): void {
    if (length <= this.#one) return;
    throw new EntryTooLargeError(
      `it must have at most ${this.#one} bytes${this.#where}: it has more`,
    );
  }

  /** Counts more bytes. */
  take(bytes: number): void {
    if (this.#used + bytes > this.#all) {
      throw new SpoolFullError(
        `all of them must have at most ${this.#all} bytes${this.#where}: they have more`,
      );
    }
    this.#used += bytes;
  }

  /** Gives bytes back. */
  give(bytes: number): void {
    this.#used -= bytes;
  }
}

/** Stores the bytes of an entry. */
interface Store {
  write(bytes: Uint8Array<ArrayBuffer>): Promise<void> | void;
  read(): Promise<Uint8Array<ArrayBuffer> | null> | Uint8Array<ArrayBuffer> | null;
  close(): void;
}

class FileStore implements Store {
  #file: RuntimeFile;
  /** The buffer, once the file is read. */
  #part: Uint8Array<ArrayBuffer> | undefined;

  constructor(file: RuntimeFile) {
    this.#file = file;
  }

  async write(bytes: Uint8Array<ArrayBuffer>): Promise<void> {
    try {
      for (let at = 0; at < bytes.length;) at += await this.#file.write(bytes.subarray(at));
    } catch (error) {
      throw new Error(`it must be written to a file: ${(error as Error).message}`);
    }
  }

  async read(): Promise<Uint8Array<ArrayBuffer> | null> {
    if (this.#part === undefined) {
      this.#part = new Uint8Array(PART);
      await this.#file.seek(0, runtime.SeekMode.Start);
    }
    const count = await this.#file.read(this.#part);
    return count === null ? null : this.#part.subarray(0, count);
  }

  close(): void {
    this.#file.close();
  }
}

class MemoryStore implements Store {
  #parts: Uint8Array<ArrayBuffer>[] = [];

  write(bytes: Uint8Array<ArrayBuffer>): void {
    this.#parts.push(bytes.slice());
  }

  read(): Uint8Array<ArrayBuffer> | null {
    return this.#parts.shift() ?? null;
  }

  close(): void {
    this.#parts = [];
  }
}

/** Opens a new file without a name. Returns undefined if that fails or would prompt for a permission. */
function openUnnamed(folder: string): RuntimeFile | undefined {
  const path = `${folder}/gatehouse-${crypto.randomUUID()}`;
  for (const name of ["read", "write"] as const) {
    if (runtime.permissions.querySync({ name, path }).state !== "granted") return undefined;
  }
  let file: RuntimeFile;
  try {
    file = runtime.openSync(path, { read: true, write: true, createNew: true, mode: 0o600 });
  } catch {
    return undefined;
  }
  try {
    runtime.removeSync(path);
    return file;
  } catch {
    file.close();
    return undefined;
  }
}

/** Returns the folder for temporary files. Does not prompt for a permission. */
function temporaryFolder(): string {
  const variable = runtime.build.os === "windows" ? "TEMP" : "TMPDIR";
  return grantedVariable(variable) || "/tmp";
}
