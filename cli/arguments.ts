/**
 * The options and operands of a command, and a parser for them.
 *
 * @module
 */

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
    const values = new Map(options.map(({ name }): [string, string[]] => [name, []]));
    const operands: string[] = [];
    const rest = [...args];
    for (let arg = rest.shift(); arg !== undefined; arg = rest.shift()) {
      if (arg === "--") operands.push(...rest.splice(0));
      else if (arg === "-" || !arg.startsWith("-")) operands.push(arg);
      else {
        const { option, value } = readOption(arg, options, rest, usage);
        const given = values.get(option.name)!;
        if (given.length > 0 && !option.repeats) {
          throw new UsageError(`--${option.name} is given twice.`);
        }
        given.push(value);
      }
    }
    return new Arguments(usage, operands, values);
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

/**
 * Reads the option that an argument begins with.
 *
 * @param rest The arguments after it, from which it takes its value, and to which it returns further letters of a group
 * such as `-id`.
 */
function readOption(
  arg: string,
  options: readonly Option[],
  rest: string[],
  usage: Usage,
): { option: Option; value: string } {
  const long = arg.startsWith("--");
  const [, name, attached] = (long ? /^--([^=]*)(?:=(.*))?$/s : /^-(.)(?:=?(.+))?$/s).exec(arg) ??
    [];
  const option = options.find((option) => name === (long ? option.name : option.short));
  if (option === undefined) {
    const next = /^[^-]/.test(rest[0] ?? "") ? rest[0] : undefined;
    throw new UsageError(
      unknownOption(long ? `--${name}` : `-${name}`, attached ?? next, options, usage),
    );
  }
  if (option.value === undefined) {
    if (attached === undefined) return { option, value: "" };
    if (long || arg.includes("=")) throw new UsageError(`--${option.name} takes no value.`);
    rest.unshift(`-${attached}`);
    return { option, value: "" };
  }
  if (attached === undefined && option.bare !== undefined) return { option, value: option.bare };
  const takesNext = attached === undefined && !/^-./.test(rest[0] ?? "-?");
  const value = takesNext ? rest.shift() : attached;
  if (!value) {
    throw new UsageError(`--${option.name} needs a value.${valueHint(option, rest, options)}`);
  }
  return { option, value };
}

/** Says how to write a value that begins with a dash, if that is what follows an option. */
function valueHint({ name }: Option, [next]: string[], options: readonly Option[]): string {
  if (next === undefined || options.some((option) => next.startsWith(`--${option.name}`))) {
    return "";
  }
  return ` One that begins with a dash needs =, as in: --${name}=${next}`;
}

function unknownOption(
  name: string,
  value: string | undefined,
  options: readonly Option[],
  { instead = {} }: Usage,
): string {
  const text = `There is no option ${name}.`;
  const key = name.slice(2);
  if (Object.hasOwn(instead, key)) return `${text} ${instead[key](value)}.`;
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
