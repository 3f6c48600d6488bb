import { toByteString, toText } from "./byte_string.ts";

const NONE: Readonly<Record<string, string>> = {};
const LINE_BREAKS = ["\0", "\n", "\r"];

/** How variables are created that few read. */
export interface LazyVariables {
  /** Returns a variable's value as a byte string, undefined if there is none, or null if only create() knows it. */
  find(name: string): string | undefined | null;
  /** Creates all of them: names and values as byte strings. */
  create(): Iterable<readonly [name: string, value: string]>;
}

/**
 * The meta-variables of one request, under their RFC 3875 names. Read-only.
 *
 * Values of a repeated `HTTP_*` name are joined, as header fields are. Of any other repeated name, and of `HTTP_HOST`,
 * the last value counts (rule A26): with `include fastcgi_params` and then a `fastcgi_param` of the same name nginx
 * sends both. The map never has `HTTP_PROXY` (httpoxy, rule A27) and `AUTH_PASSWORD` (rule A29).
 */
export class Variables implements ReadonlyMap<string, string> {
  /** Names and values as byte strings; null until a method needs all of them. The fields below are its sources. */
  #map: Map<string, string> | null = null;
  #lazy: LazyVariables | null = null;
  #text = "";
  #ranges: number[] = [];
  #environment: Readonly<Record<string, string>> | null = null;
  #byteStrings: Readonly<Record<string, string>> = NONE;

  /** @param pairs Names and values as byte strings, in the order received. */
  constructor(pairs?: Iterable<readonly [name: string, value: string]>) {
    if (pairs !== undefined) this.#map = collect(pairs);
  }

  /**
   * Creates variables that are cut from a text on demand.
   *
   * @param text A byte string with all names and values, each value right after its name.
   * @param ranges Three offsets for each variable: the start of its name, the start of its value, and the value's end.
   */
  static cutFrom(text: string, ranges: number[]): Variables {
    const variables = new Variables();
    variables.#text = text;
    variables.#ranges = ranges;
    return variables;
  }

  /** Creates variables that are created when one is read that cannot be found by itself. */
  static createdBy(lazy: LazyVariables): Variables {
    const variables = new Variables();
    variables.#lazy = lazy;
    return variables;
  }

  /**
   * Creates variables that are looked up in an environment on demand.
   *
   * @param environment Names and values as text.
   * @param byteStrings Names and values that are not valid UTF-8, as byte strings.
   */
  static lookUpIn(
    environment: Readonly<Record<string, string>>,
    byteStrings: Readonly<Record<string, string>> = NONE,
  ): Variables {
    const variables = new Variables();
    variables.#environment = environment;
    variables.#byteStrings = byteStrings;
    return variables;
  }

  /** Returns a variable's value as a byte string; undefined if absent or empty (RFC 3875 section 4.1, rule A4). */
  byteString(name: string): string | undefined {
    return this.#find(name) || undefined;
  }

  /** Finds a variable's value as a byte string, without collecting all variables. */
  #find(name: string): string | undefined {
    if (this.#map !== null) return this.#map.get(name);
    if (this.#lazy !== null) {
      const found = this.#lazy.find(name);
      return found === null ? this.#values.get(name) : found;
    }
    if (isDropped(name)) return undefined;
    if (this.#environment !== null) {
      if (Object.hasOwn(this.#byteStrings, name)) return this.#byteStrings[name];
      if (!Object.hasOwn(this.#environment, name)) return undefined;
      return toByteString(this.#environment[name]);
    }
    const isJoined = joins(name);
    const text = this.#text;
    const ranges = this.#ranges;
    const length = name.length;
    const lastChar = name.charCodeAt(length - 1);
    let found: string | undefined;
    // From the end, as the last value counts. Many names have the same length, few also the same last character.
    for (let i = ranges.length - 3; i >= 0; i -= 3) {
      const start = ranges[i];
      const value = ranges[i + 1];
      if (
        value - start === length && (length === 0 || text.charCodeAt(value - 1) === lastChar) &&
        text.startsWith(name, start)
      ) {
        const part = text.slice(value, ranges[i + 2]);
        if (!isJoined) return part;
        found = found === undefined ? part : join(name, part, found);
      }
    }
    return found;
  }

  /** Whether a value, or a name cut from a text, contains NUL, CR or LF, which `Headers` rejects. */
  get hasLineBreaks(): boolean {
    if (this.#lazy !== null) this.#collect();
    if (this.#map === null && this.#environment === null) {
      return LINE_BREAKS.some((char) => this.#contains(char));
    }
    const environment = this.#environment;
    const values = environment === null
      ? [...this.#map!.values()]
      : [...Object.values(environment), ...Object.values(this.#byteStrings)];
    const text = values.join("");
    return LINE_BREAKS.some((char) => text.includes(char));
  }

  /** Returns whether a name or value of the text contains a character, disregarding the bytes between them. */
  #contains(char: string): boolean {
    const text = this.#text;
    const ranges = this.#ranges;
    let i = 0;
    for (let at = text.indexOf(char); at >= 0; at = text.indexOf(char, at + 1)) {
      while (i < ranges.length && ranges[i + 2] <= at) i += 3;
      if (i < ranges.length && at >= ranges[i]) return true;
    }
    return false;
  }

  /** Returns the names and values that {@linkcode forEachPair} passes on, as byte strings. */
  pairs(): [name: string, value: string][] {
    const pairs: [name: string, value: string][] = [];
    this.forEachPair((name, value) => pairs.push([name, value]));
    return pairs;
  }

  /**
   * Calls a function with each name and value, as byte strings, in the order received. For variables cut from a text,
   * repeated names and those that are dropped are included as received, until another method builds the map.
   *
   * @param callback The function.
   * @param prefix Only names that begin with it are included.
   */
  forEachPair(callback: (name: string, value: string) => void, prefix = ""): void {
    if (this.#lazy !== null) this.#collect();
    if (this.#map !== null) {
      for (const [name, value] of this.#map) if (name.startsWith(prefix)) callback(name, value);
      return;
    }
    for (const [name, value] of Object.entries(this.#environment ?? {})) {
      if (name.startsWith(prefix) && !isDropped(name)) callback(name, toByteString(value));
    }
    for (const [name, value] of Object.entries(this.#byteStrings)) {
      if (name.startsWith(prefix)) callback(name, value);
    }
    const text = this.#text;
    const ranges = this.#ranges;
    for (let i = 0; i < ranges.length; i += 3) {
      const start = ranges[i];
      const value = ranges[i + 1];
      // Without the first test the match could extend into the value.
      if (value - start < prefix.length || !text.startsWith(prefix, start)) continue;
      callback(text.slice(start, value), text.slice(value, ranges[i + 2]));
    }
  }

  #collect(): Map<string, string> {
    const lazy = this.#lazy;
    this.#lazy = null;
    return this.#map ??= collect(lazy?.create() ?? this.pairs());
  }

  get #values(): Map<string, string> {
    return this.#map ?? this.#collect();
  }

  /** Returns a variable's value as text: decoded if it is valid UTF-8, else its byte string. */
  get(name: string): string | undefined {
    const value = this.#find(name);
    return value === undefined ? undefined : toText(value);
  }

  /** Returns whether a variable is present, even if empty. */
  has(name: string): boolean {
    return this.#find(name) !== undefined;
  }

  /** The number of variables. */
  get size(): number {
    return this.#values.size;
  }

  /** Returns all names. */
  keys(): MapIterator<string> {
    return this.#values.keys();
  }

  /** Returns all values as text. */
  *values(): MapIterator<string> {
    for (const value of this.#values.values()) yield toText(value);
  }

  /** Returns all names with their values as text. */
  *entries(): MapIterator<[string, string]> {
    for (const [name, value] of this.#values) yield [name, toText(value)];
  }

  /** Returns all names with their values as text. */
  [Symbol.iterator](): MapIterator<[string, string]> {
    return this.entries();
  }

  /** Calls a function with each value, as text, and its name. */
  forEach(
    callback: (value: string, name: string, map: ReadonlyMap<string, string>) => void,
    thisArg?: unknown,
  ): void {
    for (const [name, value] of this) callback.call(thisArg, value, name, this);
  }
}

/** Returns whether an app must not find a variable: a client's proxy setting (A27), the password of its user (A29). */
function isDropped(name: string): boolean {
  return name === "HTTP_PROXY" || name === "AUTH_PASSWORD";
}

/** Returns whether the values of a repeated name are joined. */
function joins(name: string): boolean {
  return name.startsWith("HTTP_") && name !== "HTTP_HOST";
}

function collect(pairs: Iterable<readonly [name: string, value: string]>): Map<string, string> {
  const map = new Map<string, string>();
  for (const [name, value] of pairs) {
    if (isDropped(name)) continue;
    const previous = joins(name) ? map.get(name) : undefined;
    map.set(name, previous === undefined ? value : join(name, previous, value));
  }
  return map;
}

/** Joins two values of a repeated name. */
function join(name: string, first: string, second: string): string {
  return first + (name === "HTTP_COOKIE" ? "; " : ", ") + second;
}
