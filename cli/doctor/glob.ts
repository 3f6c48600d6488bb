/**
 * The wildcards of included files, as glob(3) expands them, which web servers call.
 *
 * @module
 */

/** Returns whether a path has wildcards. */
export function hasWildcard(path: string): boolean {
  return /[*?[]/.test(path);
}

/** Returns the files that an absolute path with wildcards names, sorted. */
export function expand(path: string): string[] {
  const [, ...names] = path.split("/");
  let found = [""];
  for (const name of names) {
    found = hasWildcard(name)
      ? found.flatMap((folder) => list(folder || "/", name).map((name) => `${folder}/${name}`))
      : found.map((folder) => `${folder}/${name}`);
  }
  return found.filter(exists);
}

function list(folder: string, pattern: string): string[] {
  const matches = toRegExp(pattern);
  try {
    return [...Deno.readDirSync(folder)].map(({ name }) => name)
      .filter((name) => matches.test(name)).sort();
  } catch (error) {
    if (error instanceof Deno.errors.NotCapable) throw error;
    return [];
  }
}

function exists(path: string): boolean {
  try {
    Deno.lstatSync(path);
    return true;
  } catch (error) {
    if (error instanceof Deno.errors.NotCapable) throw error;
    return false;
  }
}

/** Returns the expression of a name with wildcards, which match no leading dot. */
export function toRegExp(pattern: string): RegExp {
  const source = pattern.replaceAll(
    /\[([!^]?)(\]?[^\]]*)\]|\\?([\s\S])/g,
    (text, not: string | undefined, members: string | undefined, char: string) => {
      if (members !== undefined) return members === "" ? quote(text) : toClass(not!, members);
      // A bracket without an end stands for itself.
      return text === "*" ? ".*" : text === "?" ? "." : quote(char);
    },
  );
  return new RegExp(`^${/^[*?[]/.test(pattern) ? "(?!\\.)" : ""}${source}$`, "s");
}

function toClass(not: string, members: string): string {
  const ranges = [...members.matchAll(/([\s\S])-([\s\S])|[\s\S]/g)].map(([text, from, to]) => {
    if (from === undefined) return quote(text);
    // A range that runs backwards has no members.
    return from > to ? "" : `${quote(from)}-${quote(to)}`;
  });
  return `[${not && "^"}${ranges.join("")}]`;
}

function quote(char: string): string {
  return char.replaceAll(/[\\^$.*+?()[\]{}|\/-]/g, "\\$&");
}
