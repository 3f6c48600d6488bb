import { toByteString, toText } from "./byte_string.ts";

const NONE: Readonly<Record<string, string>> = {};
const LINE_BREAKS = ["\0", "\n", "\r"];

/**
 * The meta-variables of one request, under their RFC 3875 names. Read-only.
 *
 * A name that comes twice: `HTTP_*` values are joined as the header field's own rule says, of any other name the last
 * value counts (rule A26), and of `HTTP_HOST` too: one in an nginx configuration comes after that of `fastcgi_params`.
 * `HTTP_PROXY` is never among them (httpoxy, rule A27).
 */
export class Variables implements ReadonlyMap<string, string> {
  /** Names and values; null as long as what they are made of will do. */
  #map: Map<string, string> | null = null;
  #text = "";
  #ranges: number[] = [];
  #environment: Readonly<Record<string, string>> | null = null;
  #byteStrings: Readonly<Record<string, string>> = NONE;

  /** @param pairs Names and values as byte strings, in the order that they came. */
  constructor(pairs?: Iterable<readonly [name: string, value: string]>) {
    if (pairs !== undefined) this.#map = collect(pairs);
  }

  /**
   * Variables that are cut out of a text when asked for.
   *
   * @param text A byte string that holds all names and values, each value right after its name.
   * @param ranges Of each variable: where its name begins, where its value begins, and where that ends.
   */
  static cutFrom(text: string, ranges: number[]): Variables {
    const variables = new Variables();
    variables.#text = text;
    variables.#ranges = ranges;
    return variables;
  }

  /**
   * Variables that are looked up in an environment when asked for.
   *
   * @param environment Names and values as texts.
   * @param byteStrings Names and values that are not text, as byte strings.
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

  /** A variable's value byte for byte; one that is empty counts as absent (RFC 3875 section 4.1). */
  byteString(name: string): string | undefined {
    if (this.#map !== null) return this.#map.get(name) || undefined;
    if (this.#environment !== null) {
      if (name === "HTTP_PROXY") return undefined;
      if (Object.hasOwn(this.#byteStrings, name)) return this.#byteStrings[name];
      if (!Object.hasOwn(this.#environment, name)) return undefined;
      return toByteString(this.#environment[name]) || undefined;
    }
    if (joins(name)) return this.#values.get(name) || undefined;
    const text = this.#text;
    const ranges = this.#ranges;
    const length = name.length;
    const lastChar = name.charCodeAt(length - 1);
    // From the end, as the last value counts. Many names are of one length: few also end alike.
    for (let i = ranges.length - 3; i >= 0; i -= 3) {
      const start = ranges[i];
      const value = ranges[i + 1];
      if (
        value - start === length && text.charCodeAt(value - 1) === lastChar &&
        text.startsWith(name, start)
      ) {
        return text.slice(value, ranges[i + 2]) || undefined;
      }
    }
    return undefined;
  }

  /** Whether any of it has NUL, CR or LF, of which no header value may be made. */
  get hasLineBreaks(): boolean {
    if (this.#map === null && this.#environment === null) {
      return LINE_BREAKS.some((char) => this.#holds(char));
    }
    const environment = this.#environment;
    const values = environment === null
      ? [...this.#map!.values()]
      : [...Object.values(environment), ...Object.values(this.#byteStrings)];
    const text = values.join("");
    return LINE_BREAKS.some((char) => text.includes(char));
  }

  /** Whether a name or value, and not just what is between them, has a character. */
  #holds(char: string): boolean {
    const text = this.#text;
    const ranges = this.#ranges;
    let i = 0;
    for (let at = text.indexOf(char); at >= 0; at = text.indexOf(char, at + 1)) {
      while (i < ranges.length && ranges[i + 2] <= at) i += 3;
      if (i < ranges.length && at >= ranges[i]) return true;
    }
    return false;
  }

  /** Names and values, byte for byte, as they came and as often as they came. */
  pairs(): [name: string, value: string][] {
    const pairs: [name: string, value: string][] = [];
    this.forEachPair((name, value) => pairs.push([name, value]));
    return pairs;
  }

  /**
   * Calls back for each name and value, byte for byte, as they came and as often as they came.
   *
   * @param prefix What the names begin with.
   */
  forEachPair(callback: (name: string, value: string) => void, prefix = ""): void {
    if (this.#map !== null) {
      for (const [name, value] of this.#map) if (name.startsWith(prefix)) callback(name, value);
      return;
    }
    for (const [name, value] of Object.entries(this.#environment ?? {})) {
      if (name.startsWith(prefix) && name !== "HTTP_PROXY") callback(name, toByteString(value));
    }
    for (const [name, value] of Object.entries(this.#byteStrings)) {
      if (name.startsWith(prefix)) callback(name, value);
    }
    const text = this.#text;
    const ranges = this.#ranges;
    for (let i = 0; i < ranges.length; i += 3) {
      const start = ranges[i];
      const value = ranges[i + 1];
      // Not of what follows the name.
      if (value - start < prefix.length || !text.startsWith(prefix, start)) continue;
      callback(text.slice(start, value), text.slice(value, ranges[i + 2]));
    }
  }

  get #values(): Map<string, string> {
    return this.#map ??= collect(this.pairs());
  }

  /** A variable's value as text: read as UTF-8 where it is that, else byte for byte. */
  get(name: string): string | undefined {
    const value = this.#values.get(name);
    return value === undefined ? undefined : toText(value);
  }

  /** Whether a variable was sent, be it empty. */
  has(name: string): boolean {
    return this.#values.has(name);
  }

  /** How many variables there are. */
  get size(): number {
    return this.#values.size;
  }

  /** All names. */
  keys(): MapIterator<string> {
    return this.#values.keys();
  }

  /** All values as text. */
  *values(): MapIterator<string> {
    for (const value of this.#values.values()) yield toText(value);
  }

  /** All names with their values as text. */
  *entries(): MapIterator<[string, string]> {
    for (const [name, value] of this.#values) yield [name, toText(value)];
  }

  /** All names with their values as text. */
  [Symbol.iterator](): MapIterator<[string, string]> {
    return this.entries();
  }

  /** Calls back for each variable. */
  forEach(
    callback: (value: string, name: string, map: ReadonlyMap<string, string>) => void,
    thisArg?: unknown,
  ): void {
    for (const [name, value] of this) callback.call(thisArg, value, name, this);
  }
}

/** Whether values of a name that comes twice are joined. */
function joins(name: string): boolean {
  return name.startsWith("HTTP_") && name !== "HTTP_HOST";
}

function collect(pairs: Iterable<readonly [name: string, value: string]>): Map<string, string> {
  const map = new Map<string, string>();
  for (const [name, value] of pairs) {
    if (name === "HTTP_PROXY") continue;
    const before = joins(name) ? map.get(name) : undefined;
    const joint = name === "HTTP_COOKIE" ? "; " : ", ";
    map.set(name, before === undefined ? value : before + joint + value);
  }
  return map;
}
