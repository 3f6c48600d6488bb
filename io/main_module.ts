/** The file of the running program, if it is one. */
export function mainModulePath(): string | undefined {
  try {
    const url = new URL(Deno.mainModule);
    return url.protocol === "file:" ? decodeURIComponent(url.pathname) : undefined;
  } catch {
    return undefined;
  }
}
