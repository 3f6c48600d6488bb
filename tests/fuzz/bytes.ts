/** Random bytes that a seed determines: mutations of captured bytes, and ways to cut them into chunks. */
import { concat, cut, split } from "../testing/bytes.ts";

/** Numbers that a seed determines. */
export class Random {
  #state: number;

  constructor(seed: number) {
    this.#state = seed >>> 0;
  }

  /** Returns a whole number from 0 to `limit - 1` (mulberry32). */
  below(limit: number): number {
    this.#state = this.#state + 0x6d2b79f5 >>> 0;
    let mixed = this.#state;
    mixed = Math.imul(mixed ^ mixed >>> 15, mixed | 1);
    mixed ^= mixed + Math.imul(mixed ^ mixed >>> 7, mixed | 61);
    return Math.floor(((mixed ^ mixed >>> 14) >>> 0) / 2 ** 32 * limit);
  }

  /** Returns one of the items. */
  pick<T>(items: ArrayLike<T>): T {
    return items[this.below(items.length)];
  }
}

/** Bytes that mean something in one of the formats. */
const TELLING = [..."\0\x01\x03\x04\x05\x06\x07\x7f\x80\xff\r\n\t :;,=/%019aA"]
  .map((char) => char.charCodeAt(0));
/** Long inputs cost time, and find nothing that short ones do not. */
const MAX_LENGTH = 3000;

/** Returns a mutation of one of the inputs. */
export function mutate(corpus: Uint8Array[], random: Random): Uint8Array<ArrayBuffer> {
  let bytes = random.pick(corpus).slice(0, MAX_LENGTH);
  for (let left = random.below(5); left > 0; left--) {
    const at = random.below(bytes.length + 1);
    const end = Math.min(bytes.length, at + 1 + random.below(random.pick([2, 9, 200])));
    const [before, part, after] = [bytes.slice(0, at), bytes.slice(at, end), bytes.slice(end)];
    switch (random.below(8)) {
      case 0:
        if (part.length > 0) part[0] ^= 1 << random.below(8);
        bytes = concat([before, part, after]);
        break;
      case 1:
        bytes = concat([before, part.fill(random.pick(TELLING)), after]);
        break;
      case 2:
        bytes = concat([before, new Uint8Array([random.pick(TELLING)]), part, after]);
        break;
      case 3:
        bytes = concat([before, after]);
        break;
      case 4:
        bytes = concat([before, part, part, after]);
        break;
      case 5:
        bytes = before;
        break;
      case 6: {
        const other = random.pick(corpus);
        const from = random.below(other.length + 1);
        bytes = concat([before, other.slice(from, from + MAX_LENGTH)]);
        break;
      }
      default:
        bytes = concat([before, part.map(() => random.below(256)), after]);
    }
  }
  return bytes.slice(0, MAX_LENGTH);
}

/** Cuts bytes in the four ways that must make no difference. */
export function cuttings(
  whole: Uint8Array,
  borders: number[],
  random: Random,
): Record<string, Uint8Array[]> {
  const places = Array.from({ length: 1 + random.below(9) }, () => random.below(whole.length + 1));
  return {
    "whole": [whole.slice()],
    "byte by byte": split(whole),
    "at random places": cut(whole, places),
    "at borders": cut(whole, borders),
  };
}

/** The number of runs that minimising may take. */
const MAX_RUNS = 2000;

/** Removes all bytes that a failure does not need. */
export async function minimise(
  bytes: Uint8Array<ArrayBuffer>,
  fails: (bytes: Uint8Array<ArrayBuffer>) => Promise<boolean>,
): Promise<Uint8Array<ArrayBuffer>> {
  let runs = 0;
  for (let size = bytes.length >> 1; size >= 1; size >>= 1) {
    for (let at = 0; at < bytes.length && runs < MAX_RUNS;) {
      const shorter = concat([bytes.slice(0, at), bytes.slice(at + size)]);
      runs++;
      if (await fails(shorter)) bytes = shorter;
      else at += size;
    }
  }
  return bytes;
}
