import { toText } from "./byte_string.ts";

/**
 * The meta-variables of one request, under their RFC 3875 names. Read-only.
 *
 * A name that comes twice: `HTTP_*` values are joined as the header field's own rule says, of any other name the last
 * value counts (SPEC A26), and of `HTTP_HOST` too: one in an nginx configuration comes after that of `fastcgi_params`.
 * `HTTP_PROXY` is never among them (httpoxy, SPEC A27).
 */
export class Variables implements ReadonlyMap<string, string> {
  #values = new Map<string, string>();

  /** @param pairs Names and values as byte strings, in the order that they came. */
  constructor(pairs: Iterable<readonly [name: string, value: string]>) {
    for (const [name, value] of pairs) {
      if (name === "HTTP_PROXY") continue;
      const joins = name.startsWith("HTTP_") && name !== "HTTP_HOST";
      const before = joins ? this.#values.get(name) : undefined;
      const joint = name === "HTTP_COOKIE" ? "; " : ", ";
      this.#values.set(name, before === undefined ? value : before + joint + value);
    }
  }

  /** A variable's value byte for byte; one that is empty counts as absent (RFC 3875 section 4.1). */
  byteString(name: string): string | undefined {
    return this.#values.get(name) || undefined;
  }

  /** All names and values, byte for byte. */
  byteStrings(): IterableIterator<[string, string]> {
    return this.#values.entries();
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
