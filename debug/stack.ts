import { isError, messageOf, readProperty } from "../io/describe.ts";
import type { RuntimeFrame } from "../io/private_fields.ts";

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

const FRAME = /^ {4}at (?:(.*) \(|async )?([a-z][a-z+.-]*:.*?):(\d+):(\d+)\)?$/;
/** The name of an error, before its message. */
const HEADER = /^(?:[^\s:]+(?: \[\w+\])?:? ?)?$/;
/** Folders of installed packages: node_modules, and those of Deno's cache. */
const PACKAGES = /\/node_modules\/|\/npm\/registry\.npmjs\.org\//;
/** The folder of this package, undefined if this module is part of a bundle. */
const OWN = /^(.*\/)debug\/stack\.ts$/.exec(import.meta.url)?.[1];
const OWN_FOLDERS = /^(?:(?:wire|bridge|io|process|debug|server|gateway|cli)\/.*|[^/]*)$/;

/** The frames of an error's stack. */
export interface Stack {
  frames: StackFrame[];
  /** Whether no line of the error's message can be among them. */
  isCertain: boolean;
}

/**
 * Returns the frames of an error's stack.
 *
 * @param read Returns the frames from the runtime. Without them the text of the stack is parsed.
 */
export function stackOf(
  error: unknown,
  read: (error: unknown) => RuntimeFrame[] | undefined = () => undefined,
): Stack {
  if (!isError(error)) return { frames: [], isCertain: true };
  const known = read(error);
  return known === undefined ? parseStack(error) : {
    frames: known.flatMap((frame) => frame.fileName === null ? [] : [toStackFrame(frame)]),
    isCertain: true,
  };
}

function toStackFrame(frame: RuntimeFrame): StackFrame {
  const { typeName, functionName, fileName, lineNumber, columnNumber } = frame;
  const qualified = frame.isToplevel || frame.isConstructor || !typeName || !functionName ||
    functionName.startsWith(`${typeName}.`);
  const words = [
    ...frame.isAsync && functionName ? ["async"] : [],
    ...frame.isConstructor ? ["new"] : [],
    qualified ? functionName ?? "" : `${typeName}.${functionName}`,
  ];
  return {
    name: words.join(" "),
    url: fileName!,
    line: lineNumber ?? 0,
    column: columnNumber ?? 0,
    isApp: isAppURL(fileName!),
  };
}

/** Parses the text of a stack. It begins with the message that the error had when it was created. */
function parseStack(error: Error): Stack {
  const stack = readProperty(error, "stack");
  if (typeof stack !== "string") return { frames: [], isCertain: true };
  const message = messageOf(error);
  const at = stack.indexOf(message);
  const isCertain = at >= 0 && HEADER.test(stack.slice(0, at)) &&
    /^(?:\n|$)/.test(stack.slice(at + message.length));
  const lines = (isCertain ? stack.slice(at + message.length) : stack).split("\n");
  let start = lines.length;
  while (start > 0 && lines[start - 1].startsWith("    at ")) start--;
  const frames = lines.slice(start).flatMap((line) => {
    const [, name = "", url, row, column] = FRAME.exec(line) ?? [];
    if (url === undefined) return [];
    return [{ name, url, line: Number(row), column: Number(column), isApp: isAppURL(url) }];
  });
  return { frames, isCertain };
}

function isAppURL(url: string): boolean {
  if (!url.startsWith("file:") || PACKAGES.test(url)) return false;
  return OWN === undefined || !url.startsWith(OWN) || !OWN_FOLDERS.test(url.slice(OWN.length));
}
