/**
 * What the configurations have in common that let a web server send files itself.
 *
 * @module
 */

/** Files that a web server sends itself. */
export interface StaticFiles {
  /** Their folder. */
  root: string;
  /** Folders in it whose files never change, such as "/_app/immutable". */
  immutable: string[];
}

/** The comment on {@linkcode neverFiles}. */
export const NEVER_FILES =
  `# Never files: names that begin with a dot, but for /.well-known/, and sources, databases, backups and logs. If yours
# are meant for browsers, remove their extension here.`;

const SOURCES = "[cm]?ts|tsx|jsx|vue|svelte|astro|php|py|rb|pl|sh|sql";
const LEFT = "db|sqlite3?|log|bak|orig|old|swp";

/** Matches the end of paths that are never files. */
export const NEVER_ENDS =
  `\\.(?:${SOURCES}|${LEFT})$|(?:~|-wal|-shm|-journal)$|/(?:deno|package)[\\w-]*\\.(?:jsonc?|lock)$`;

/** Matches a path in which a name, but for the first, begins with a dot. */
export const HIDDEN_BELOW = ".+/\\.";

/**
 * Returns a regular expression, for PCRE and Ruby, for the paths in a folder that are never files. Match it without
 * regard to case.
 *
 * @param path The path that the folder is mounted at; "" for the whole site.
 * @param rest The name of a group that matches the path after that; undefined for none.
 */
export function neverFiles(path: string, rest?: string): string {
  const hidden = path === "" ? "/\\.(?!well-known/)" : "/\\.";
  const never = `(?=/)(?:${hidden}|${HIDDEN_BELOW}|.*(?:${NEVER_ENDS}))`;
  return `^${escape(path)}${rest === undefined ? never : `(?<${rest}>${never}.*)$`}`;
}

/** The value of Cache-Control for files that never change. */
export const IMMUTABLE = "public, max-age=31536000, immutable";

/**
 * Returns a regular expression for the paths of files that never change; undefined if there are none.
 *
 * @param path The path that the folder is mounted at. Default: the paths are relative to the folder, and begin with "/".
 */
export function immutableFiles({ immutable }: StaticFiles, path = ""): string | undefined {
  if (immutable.length === 0) return undefined;
  const folders = immutable.map(escape).join("|");
  return `^${escape(path)}${immutable.length > 1 ? `(?:${folders})` : folders}/`;
}

/** Returns a regular expression that matches a path of {@linkcode ConfigOptions}. */
export function escape(path: string): string {
  return path.replaceAll(".", "\\.");
}
