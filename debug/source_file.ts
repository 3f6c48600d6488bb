import { filePath } from "../io/main_module.ts";
import { type RuntimeFrame, runtimeFrames } from "../io/private_fields.ts";
import { runtime } from "../io/runtime.ts";

/** Reads the sources and stacks of errors. */
export interface SourceReader {
  /** Reads a source file; undefined if it cannot be read. */
  readSource(url: string): Promise<string | undefined>;
  /** Returns the frames of an error's stack from the runtime; undefined if it does not provide them. */
  readFrames(error: unknown): RuntimeFrame[] | undefined;
}

/** Reads sources from the disk, and stacks from the runtime. */
export const ownSources: SourceReader = { readSource, readFrames: runtimeFrames };

/** Longer files are not read. */
const MAX_LENGTH = 1_048_576;
const EXTENSION = /\.[cm]?[jt]sx?$/;

/**
 * Reads a file with source code, for the debug page. Never prompts for a permission.
 *
 * @returns The source; undefined if the URL is not that of a script or module on disk, or it cannot be read.
 */
export async function readSource(url: string): Promise<string | undefined> {
  try {
    const path = filePath(url);
    if (path === undefined) return undefined;
    if (runtime.permissions.querySync({ name: "read", path }).state !== "granted") return undefined;
    const { isFile, size } = await runtime.stat(path);
    if (!isFile || size > MAX_LENGTH) return undefined;
    const source = await runtime.readTextFile(path);
    return EXTENSION.test(path) || source.startsWith("#!") ? source : undefined;
  } catch {
    return undefined;
  }
}
