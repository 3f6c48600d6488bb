import { runtime } from "./runtime.ts";

/** Returns the path of the main module, or undefined if it is not a file. */
export function mainModulePath(): string | undefined {
  return filePath(runtime.mainModule);
}

/** Returns the path that a URL names, or undefined if it is not that of a file. */
export function filePath(url: string): string | undefined {
  try {
    const { protocol, pathname } = new URL(url);
    return protocol === "file:" ? decodeURIComponent(pathname) : undefined;
  } catch {
    return undefined;
  }
}
