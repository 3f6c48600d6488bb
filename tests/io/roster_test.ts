import { assertEquals } from "@std/assert";
import fc from "fast-check";
import { type Member, Roster } from "../../io/roster.ts";

interface Named extends Member {
  name: number;
}

const named = (name: number): Named => ({ name, place: -1 });
const names = (roster: Roster<Named>) => [...roster].map(({ name }) => name).sort((a, b) => a - b);

Deno.test("Roster has the same members as a Set, in any order of additions and removals", () => {
  fc.assert(fc.property(fc.array(fc.nat(20)), (toggled) => {
    const members = Array.from({ length: 21 }, (_, name) => named(name));
    const roster = new Roster<Named>();
    const set = new Set<number>();
    for (const name of toggled) {
      if (set.delete(name)) {
        roster.delete(members[name]);
        // A second time does nothing.
        roster.delete(members[name]);
      } else {
        set.add(name);
        roster.add(members[name]);
      }
      assertEquals(roster.size, set.size);
      assertEquals(names(roster), [...set].sort((a, b) => a - b));
    }
  }));
});

Deno.test("Roster iterates over all members though they leave and join meanwhile", () => {
  const roster = new Roster<Named>();
  for (const name of [1, 2, 3]) roster.add(named(name));
  const seen: number[] = [];
  for (const member of roster) {
    seen.push(member.name);
    roster.delete(member);
    roster.add(named(10));
  }
  assertEquals(seen, [1, 2, 3]);
  assertEquals(names(roster), [10, 10, 10]);
});

Deno.test("Roster.delete() ignores a member of another roster", () => {
  const [one, other] = [new Roster<Named>(), new Roster<Named>()];
  const member = named(1);
  one.add(named(2));
  other.add(member);
  one.delete(member);
  assertEquals([one.size, other.size], [1, 1]);
});
