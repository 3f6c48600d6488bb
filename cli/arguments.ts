/**
 * The options and operands of a command, and a parser for them.
 *
 * @module
 */

import { parseArgs } from "@std/cli/parse-args";
import { closest } from "./closest.ts";
import { UsageError } from "./errors.ts";

/** An option of a command. */
export interface Option {
  /** Its name, without dashes. */
  name: string;
  /** Its letter. */
  short?: string;
  /** The placeholder of its value, such as "ADDR"; absent if it has no value. */
  value?: string;
  /** The value of the option without a value; absent if a value is required. */
  bare?: string;
  /** Whether it may be repeated. */
  repeats?: boolean;
  /** Its description, in lines of at most 72 characters. */
  about: string;
}

/** The options and operands of a command. */
export interface Usage {
  /** The command's name. */
  name: string;
  /** Its operands, such as "MODULE". */
  operands: string;
  /** Its description. */
  about: string;
  /** Its options. */
  options: readonly Option[];
  /** Names that its options have in other programs, and what to type instead, given the value. */
  instead?: Record<string, (value?: string) => string>;
  /** An example of its use, a line or more of shell. */
  example: string;
}

/** Returns the member of {@linkcode Usage.instead} for several names. */
export function names(
  names: string[],
  advice: (value?: string) => string,
): NonNullable<Usage["instead"]> {
  return Object.fromEntries(names.map((name) => [name, advice]));
}

/** The option that every command has. */
const HELP: Option = { name: "help", short: "h", about: "print this" };

/** The parsed arguments of a command. */
export class Arguments {
  /** The arguments that are not options. */
  readonly operands: string[];
  readonly #usage: Usage;
  readonly #values: Map<string, string[]>;

  private constructor(usage: Usage, operands: string[], values: Map<string, string[]>) {
    this.#usage = usage;
    this.operands = operands;
    this.#values = values;
  }

  /**
   * Parses the arguments after a command's name.
   *
   * @throws {UsageError} If an option is unknown, lacks its value or is repeated.
   */
  static parse(usage: Usage, args: string[]): Arguments {
    const options = [...usage.options, HELP];
    const flags = options.filter(({ value }) => value === undefined).map(({ name }) => name);
    const strings = options.filter(({ value }) => value !== undefined).map(({ name }) => name);
    const end = args.includes("--") ? args.indexOf("--") : args.length;
    const given = args.slice(0, end).flatMap((arg) => writtenOut(arg, options));
    const parsed: Record<string, unknown> = parseArgs([...given, ...args.slice(end)], {
      string: [...strings, "_"],
      boolean: flags,
      collect: [...strings, ...flags],
      alias: Object.fromEntries(options.flatMap(({ name, short }) => short ? [[name, short]] : [])),
      unknown: (arg: string, name?: string, value?: unknown) => {
        if (name === undefined) return true;
        throw new UsageError(
          dashedValue(given, arg, options) ?? unknownOption(arg, name, value, options, usage),
        );
      },
    });
    const values = new Map<string, string[]>();
    for (const { name, repeats } of options) {
      const all = (parsed[name] as unknown[]).map(String);
      if (all.includes("")) throw new UsageError(`--${name} needs a value.`);
      if (all.length > 1 && !repeats) throw new UsageError(`--${name} is given twice.`);
      values.set(name, all);
    }
    return new Arguments(usage, parsed._ as string[], values);
  }

  /** Returns whether an option is present. */
  has(name: string): boolean {
    return this.all(name).length > 0;
  }

  /** Returns the value of an option, or undefined if it is absent. */
  text(name: string): string | undefined {
    return this.all(name)[0];
  }

  /** Returns all values of an option. */
  all(name: string): string[] {
    return this.#values.get(name)!;
  }

  /**
   * Returns the value of an option that has a fixed set of values.
   *
   * @throws {UsageError} If the value is not in the set.
   */
  choice<T extends string>(name: string, choices: readonly T[]): T | undefined {
    const text = this.text(name);
    if (text === undefined) return undefined;
    const choice = choices.find((choice) => choice === text);
    if (choice === undefined) {
      throw new UsageError(
        `--${name} must be ${choices.join(", ")}: current value is "${text}".`,
      );
    }
    return choice;
  }

  /**
   * Returns the value of an option that is an integer of at least `least`.
   *
   * @throws {UsageError} If it is not.
   */
  number(name: string, least: number): number | undefined {
    const text = this.text(name);
    if (text === undefined) return undefined;
    if (!/^\d{1,9}$/.test(text) || Number(text) < least) {
      throw new UsageError(
        `--${name} must be a number from ${least}: current value is "${text}".`,
      );
    }
    return Number(text);
  }

  /**
   * Returns the value of an option that is a number of bytes, such as 512, 64k or 10m.
   *
   * @throws {UsageError} If it is not.
   */
  bytes(name: string): number | undefined {
    const text = this.text(name);
    if (text === undefined) return undefined;
    const match = /^(\d{1,9})([kmg]?)$/i.exec(text);
    if (match === null) {
      throw new UsageError(
        `--${name} must be a number of bytes, such as 64k or 10m: current value is "${text}".`,
      );
    }
    return Number(match[1]) * 1024 ** ["", "k", "m", "g"].indexOf(match[2].toLowerCase());
  }

  /** Returns the options as arguments, without those in `names`. */
  optionsExcept(names: string[]): string[] {
    return this.#usage.options.filter(({ name }) => !names.includes(name))
      .flatMap(({ name, value }) =>
        this.all(name).map((given) => value === undefined ? `--${name}` : `--${name}=${given}`)
      );
  }
}

/** Writes out what `parseArgs()` reads otherwise: a letter with its value, and an option whose value is optional. */
function writtenOut(arg: string, options: readonly Option[]): string[] {
  const [, key, equals, rest] = /^(--[^=]+|-[^-=])(=?)(.*)$/s.exec(arg) ?? [];
  const option = options.find(({ name, short }) => key === `--${name}` || key === `-${short}`);
  if (option === undefined) return [arg];
  const { name, value, bare } = option;
  if (value === undefined) {
    if (equals) throw new UsageError(`--${name} takes no value.`);
    return rest === "" ? [key] : [key, ...writtenOut(`-${rest}`, options)];
  }
  if (rest !== "") return [`--${name}=${rest}`];
  if (equals) throw new UsageError(`--${name} needs a value.`);
  return [bare === undefined ? key : `--${name}=${bare}`];
}

/** Says how to write a value that begins with a dash, if that is what an unknown option is. */
function dashedValue(
  args: string[],
  arg: string,
  options: readonly Option[],
): string | undefined {
  const before = args[args.indexOf(arg) - 1];
  const option = options.find(({ name, short }) =>
    before === `--${name}` || before === `-${short}`
  );
  if (option?.value === undefined) return undefined;
  const { name } = option;
  return `--${name} needs a value. One that begins with a dash needs =, as in: --${name}=${arg}`;
}

function unknownOption(
  arg: string,
  key: string,
  value: unknown,
  options: readonly Option[],
  { instead = {} }: Usage,
): string {
  const name = arg.startsWith("--") ? `--${key}` : `-${key}`;
  const text = `There is no option ${name}.`;
  if (Object.hasOwn(instead, key)) {
    return `${text} ${instead[key](typeof value === "string" ? value : undefined)}.`;
  }
  const similar = closest(name, options.map(({ name }) => `--${name}`));
  return similar === undefined ? text : `${text} Did you mean ${similar}?`;
}

/** Formats the help text of a command. */
export function formatUsage({ name, operands, about, options, example }: Usage): string {
  const rows = [...options, HELP].map((
    option,
  ): [string, string] => [synopsis(option), option.about]);
  const width = Math.max(...rows.map(([left]) => left.length)) + 2;
  const lines = rows.map(([left, right]) =>
    `  ${left.padEnd(width)}${right.replaceAll("\n", "\n" + " ".repeat(width + 2))}`
  );
  return [
    `gatehouse ${name} ${operands} [options]`,
    about,
    lines.join("\n"),
    `Example:\n\n${example.replaceAll(/^/gm, "  ")}`,
  ].join("\n\n");
}

/** Formats an option, such as "-l, --listen ADDR". */
function synopsis({ name, short, value, bare }: Option): string {
  const letter = short === undefined ? "    " : `-${short}, `;
  if (value === undefined) return `${letter}--${name}`;
  return `${letter}--${name}${bare === undefined ? ` ${value}` : `[=${value}]`}`;
}
