import { isError, messageOf, readProperty } from "./describe.ts";

/** One line of an error's stack. */
export interface StackFrame {
  /** The function's name; empty at the top level of a module. */
  name: string;
  url: string;
  line: number;
  column: number;
  /** Whether the frame is in a file of the app rather than in a library or in Deno. */
  isApp: boolean;
}

const FRAME = /^ {4}at (?:(.*) \()?([a-z][a-z+.-]*:.*?):(\d+):(\d+)\)?$/;
/** Folders of installed packages: node_modules, and those of Deno's cache. */
const PACKAGES = /\/node_modules\/|\/npm\/registry\.npmjs\.org\//;
/** The folder of this package, undefined if this module is part of a bundle. */
const OWN = /^(.*\/)bridge\/stack\.ts$/.exec(import.meta.url)?.[1];
const OWN_FOLDERS = /^(?:(?:bridge|wire|io|gateway|cli)\/.*|[^/]*)$/;

/** Parses an error's stack. Ignores lines of the error's message that look like frames. */
export function framesOf(error: unknown): StackFrame[] {
  const stack = readStack(error);
  const lines = stack.split("\n");
  let start = lines.length;
  while (start > 0 && lines[start - 1].startsWith("    at ")) start--;
  return lines.slice(start).flatMap((line) => {
    const [, name = "", url, row, column] = FRAME.exec(line) ?? [];
    if (url === undefined) return [];
    return [{ name, url, line: Number(row), column: Number(column), isApp: isAppURL(url) }];
  });
}

/** Returns the stack without the text of the error. */
function readStack(error: unknown): string {
  const stack = isError(error) ? readProperty(error, "stack") : undefined;
  if (typeof stack !== "string") return "";
  const message = messageOf(error);
  const at = stack.indexOf(message);
  return at < 0 ? stack : stack.slice(at + message.length);
}

function isAppURL(url: string): boolean {
  if (!url.startsWith("file:") || PACKAGES.test(url)) return false;
  return OWN === undefined || !url.startsWith(OWN) || !OWN_FOLDERS.test(url.slice(OWN.length));
}
