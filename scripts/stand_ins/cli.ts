/** The part of `@std/cli/parse-args` that the command line uses: no dotted names, no `negatable`. */

/** The result of `parseArgs`. */
export type Args<
  B extends string,
  S extends string,
  C extends string,
  D extends Record<string, unknown>,
  DD extends boolean,
> =
  & Record<string, unknown>
  & { [K in Exclude<B, C | keyof D>]: boolean }
  & { [K in Exclude<S, C | keyof D>]?: string }
  & { [K in B & C]: boolean[] }
  & { [K in S & C]: string[] }
  & { [K in Exclude<keyof D & string, C>]: D[K] | ValueOf<K, B, S> }
  & { _: Array<string | number> }
  & (DD extends true ? { "--": string[] } : Record<never, never>);

type ValueOf<K, B, S> = K extends B ? boolean : K extends S ? string : never;

/** Options of `parseArgs`. */
export interface ParseOptions<
  B extends string,
  S extends string,
  C extends string,
  D extends Record<string, unknown>,
  DD extends boolean,
> {
  /** Whether to return the arguments after `--` separately. */
  "--"?: DD;
  /** Other names of options. */
  alias?: Record<string, string | ReadonlyArray<string>>;
  /** Options without a value. */
  boolean?: B | ReadonlyArray<B>;
  /** Options that may be repeated. */
  collect?: C | ReadonlyArray<C>;
  /** Values of absent options. */
  default?: D;
  /** Whether the first non-option ends the options. */
  stopEarly?: boolean;
  /** Options whose value stays a string. */
  string?: S | ReadonlyArray<S>;
  /** Called with each argument that is not named above. Returns false to drop it. */
  unknown?: (arg: string, key?: string, value?: unknown) => unknown;
}

function toArray<T>(value: T | ReadonlyArray<T> | undefined): T[] {
  return value === undefined ? [] : [value].flat() as T[];
}

function toNumber(value: string): string | number {
  return value.trim() !== "" && Number.isFinite(Number(value)) ? Number(value) : value;
}

/** Parses command line arguments. Long, as its parts share the tables of options. */
export function parseArgs<
  const B extends string = never,
  const S extends string = never,
  const C extends string = never,
  D extends Record<string, unknown> = Record<never, never>,
  DD extends boolean = false,
>(
  args: readonly string[],
  options: ParseOptions<B, S, C, D, DD> = {},
): Args<B, S, C, D, DD> {
  const groups = Object.entries(options.alias ?? {}).map(([key, to]) => [key, ...toArray(to)]);
  const namesOf = (key: string) => groups.find((group) => group.includes(key)) ?? [key];
  const booleans = new Set(toArray<string>(options.boolean).flatMap(namesOf));
  const strings = new Set(toArray<string>(options.string).flatMap(namesOf));
  const collected = new Set(toArray<string>(options.collect).flatMap(namesOf));
  const known = new Set([...booleans, ...strings, ...collected, ...groups.flat()]);
  const values: Record<string, unknown> & { _: Array<string | number> } = { _: [] };

  function set(arg: string, key: string, value: string | boolean): void {
    if (!known.has(key) && options.unknown?.(arg, key, value) === false) return;
    const typed = typeof value === "string" && !strings.has(key) ? toNumber(value) : value;
    for (const name of namesOf(key)) {
      if (collected.has(name)) values[name] = [...(values[name] as unknown[] ?? []), typed];
      else values[name] = typed;
    }
  }

  const end = args.includes("--") ? args.indexOf("--") : args.length;
  const rest = args.slice(end + 1);
  const queue = args.slice(0, end);

  // An option that takes a value takes the next argument, unless that is an option itself.
  function setNext(arg: string, key: string, option: RegExp): void {
    const next = queue[0];
    if (booleans.has(key)) {
      if (next === "true" || next === "false") set(arg, key, queue.shift() === "true");
      else set(arg, key, true);
    } else if (next && !option.test(next)) set(arg, key, queue.shift()!);
    else set(arg, key, strings.has(key) ? "" : true);
  }

  while (queue.length > 0) {
    const arg = queue.shift()!;
    const long = /^--([^=]+)(?:=(.*))?$/s.exec(arg);
    const short = /^-([^-].*)$/s.exec(arg);
    if (long) {
      const [, key, value] = long;
      if (value === undefined) setNext(arg, key!, /^-/);
      else set(arg, key!, booleans.has(key!) ? value !== "false" : value);
    } else if (short) {
      let letters = short[1]!;
      for (; letters.length > 1; letters = letters.slice(1)) {
        const key = letters[0]!;
        const tail = letters.slice(1);
        const value = /=(.+)/s.exec(tail)?.[1] ?? (/^\W|\d\.?$/.test(tail) ? tail : undefined);
        set(arg, key, value ?? (strings.has(key) ? "" : true));
        if (value !== undefined) break;
      }
      if (letters.length === 1) setNext(arg, letters, /^--?[^-]/);
    } else {
      if (options.unknown?.(arg) !== false) values._.push(strings.has("_") ? arg : toNumber(arg));
      if (options.stopEarly) values._.push(...queue.splice(0));
    }
  }

  for (const [key, value] of Object.entries(options.default ?? {})) {
    for (const name of namesOf(key)) values[name] ??= value;
  }
  for (const key of booleans) values[key] ??= collected.has(key) ? [] : false;
  for (const key of strings) if (collected.has(key)) values[key] ??= [];
  if (options["--"]) values["--"] = rest;
  else values._.push(...rest);
  return values as Args<B, S, C, D, DD>;
}
