/** The first line of a script: "#!", a program and its arguments. */
export interface FirstLine {
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
  const match = /^#!\s*(\S+)\s*(.*?)\s*$/.exec(line);
  if (match === null) return undefined;
  const [, file, argument] = match;
  const words = argument.split(/\s+/).filter((word) => word !== "");
  if (!/(?:^|\/)env$/.test(file)) {
    return { file, argument, command: [file, ...words], variables: {}, searched: false };
  }
  // env's own options and variables come before the program.
  const program = words.findIndex((word) => !word.startsWith("-") && !word.includes("="));
  const command = program < 0 ? [] : words.slice(program);
  const variables = Object.fromEntries(
    words.slice(0, words.length - command.length).filter((word) => word.includes("="))
      .map((word) => [word.slice(0, word.indexOf("=")), word.slice(word.indexOf("=") + 1)]),
  );
  return { file, argument, command, variables, searched: !command[0]?.startsWith("/") };
}

/** Returns whether the system passes several words as one argument, which the program rejects. */
export function joinsArguments({ argument }: FirstLine): boolean {
  return /\s/.test(argument) && !/^(?:-\w*S|--split-string)/.test(argument);
}
