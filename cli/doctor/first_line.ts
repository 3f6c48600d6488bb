import type { Command } from "./commands.ts";

/** The first line of a script: "#!", a program and its arguments. */
export interface FirstLine {
  /** The line, without its end. */
  text: string;
  /** The file that the system runs. */
  file: string;
  /** The rest of the line, which the system passes as one argument. */
  argument: string;
  /** The intended command: the program that runs the script, and its arguments. */
  command: string[];
  /** Variables that `env` sets, such as DENO_DIR. */
  variables: Record<string, string>;
  /** Whether `env` searches PATH for the program. */
  searched: boolean;
}

/** Parses the first line of a script, or returns undefined if it has no program. */
export function parseFirstLine(line: string): FirstLine | undefined {
  const text = line.trimEnd();
  const match = /^#!\s*(\S+)\s*(.*)$/.exec(text);
  if (match === null) return undefined;
  const [, file, argument] = match;
  const words = argument.split(/\s+/).filter((word) => word !== "");
  if (!/(?:^|\/)env$/.test(file)) {
    return { text, file, argument, command: [file, ...words], variables: {}, searched: false };
  }
  // env's own options and variables come before the program.
  const program = words.findIndex((word) => !word.startsWith("-") && !word.includes("="));
  const command = program < 0 ? [] : words.slice(program);
  const variables = Object.fromEntries(
    words.slice(0, words.length - command.length).filter((word) => word.includes("="))
      .map((word) => word.split(/=(.*)/s, 2)),
  );
  return { text, file, argument, command, variables, searched: !command[0]?.startsWith("/") };
}

/** Returns whether the system passes several words as one argument, which the program rejects. */
export function joinsArguments({ argument }: FirstLine): boolean {
  return /\s/.test(argument) && !/^(?:-\w*S|--split-string)/.test(argument);
}

/** Returns a first line whose arguments the system does not join: `env -S` takes them apart. */
export function splitArguments(text: string): string {
  const first = parseFirstLine(text);
  return first !== undefined && joinsArguments(first)
    ? text.replace(/^#!\s*(?:\S*\/env\s+)?/, "#!/usr/bin/env -S ")
    : text;
}

/** Returns the arguments of Deno, or undefined if another program runs the script. */
export function denoArguments(first: FirstLine | undefined): string[] | undefined {
  const command = first?.command ?? [];
  const at = command.findIndex((word) => /(?:^|\/)deno$/.test(word));
  return at < 0 ? undefined : command.slice(at + 1);
}

/** Returns whether Node runs the script. */
export function isOfNode(first: FirstLine | undefined): boolean {
  return first?.command.some((word) => /(?:^|\/)node$/.test(word)) === true;
}

/** Returns a first line with another flag of Deno's. */
export function withFlag({ text }: FirstLine, flag: string): string {
  return splitArguments(
    text.replace(/(?<=[\s/!])deno(?:\s+run)?(?=\s|$)/, (deno) => `${deno} ${envWord(flag)}`),
  );
}

/** Returns a first line with a variable that `env` sets. */
export function withVariable({ text }: FirstLine, name: string, value: string): string {
  const assignment = envWord(`${name}=${value}`);
  return splitArguments(text).replace(
    /^#!\s*(?:\S*\/env\s+(?:-S\s+)?)?/,
    () => `#!/usr/bin/env -S ${assignment} `,
  );
}

/** Returns a first line with another program in place of its own. */
export function withProgram({ text, command: [name] }: FirstLine, program: string): string {
  const at = text.search(new RegExp(`(?<=[\\s!])${RegExp.escape(name)}(?=\\s|$)`));
  return splitArguments(text.slice(0, at) + program + text.slice(at + name.length));
}

/** Quotes a word for `env -S`. */
function envWord(word: string): string {
  return /^[\w./:@%+=,-]+$/.test(word) ? word : `"${word.replace(/[\\"$]/g, "\\$&")}"`;
}

/** Returns a first line that runs a script with a program. */
export function firstLineOf(program: string, ...args: string[]): string {
  return `#!/usr/bin/env ${
    [...args.length > 0 ? ["-S"] : [], envWord(program), ...args].join(" ")
  }`;
}

/** Returns the command that replaces the first line of a script. */
export function setFirstLine(script: string, line: string): Command {
  return ["sed", "-i", `1s|.*|${escapeReplacement(line)}|`, script];
}

/** Returns the command that inserts a first line. */
export function insertFirstLine(script: string, line: string): Command {
  return ["sed", "-i", `1s|^|${escapeReplacement(line)}\\n|`, script];
}

/** Escapes the replacement of sed's command `s|…|…|`. */
function escapeReplacement(text: string): string {
  return text.replace(/[\\&|]/g, "\\$&");
}
