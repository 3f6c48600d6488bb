/** Returns the path of the main module, or undefined if it is not a file. */
export function mainModulePath(): string | undefined {
  try {
    const url = new URL(Deno.mainModule);
    return url.protocol === "file:" ? decodeURIComponent(url.pathname) : undefined;
  } catch {
    return undefined;
  }
}
