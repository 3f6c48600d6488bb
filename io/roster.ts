/** A member of a {@linkcode Roster}: of one roster at a time. */
export interface Member {
  /** Its place, which the roster keeps. -1 at first. */
  place: number;
}

/**
 * A set of objects that come and go with each request or connection.
 *
 * When V8 renews the table of a `Set`, the old table refers to the new one. Once an old table has survived two
 * scavenges, all later ones and their members, with their requests, live until a full collection.
 */
export class Roster<T extends Member> {
  #members: T[] = [];

  /** The number of members. */
  get size(): number {
    return this.#members.length;
  }

  /** Adds a member that is in no roster. */
  add(member: T): void {
    member.place = this.#members.push(member) - 1;
  }

  /** Removes a member; does nothing if it is not in the roster. */
  delete(member: T): void {
    const { place } = member;
    if (this.#members[place] !== member) return;
    const last = this.#members.pop()!;
    if (last !== member) this.#members[place] = last;
    last.place = place;
    member.place = -1;
  }

  /** Iterates over the members at this moment: they may be removed meanwhile. */
  [Symbol.iterator](): Iterator<T> {
    return this.#members.slice().values();
  }
}
