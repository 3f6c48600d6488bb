import { assertEquals } from "@std/assert";
import { expand, toRegExp } from "../../cli/doctor/glob.ts";

for (
  const [pattern, matching, others] of [
    ["*.conf", ["a.conf", "[.conf"], [".conf", ".a.conf", "a.conf~", "aconf"]],
    ["?.conf", ["a.conf"], ["ab.conf", "..conf"]],
    ["[ab]?", ["ax", "bx"], ["cx", "a"]],
    ["[!ab]", ["c", "^"], ["a", "b", "."]],
    ["[^ab]", ["c"], ["a"]],
    ["[a-c]1", ["b1"], ["d1", "-1"]],
    ["[]a]", ["]", "a"], ["b"]],
    ["[a-]", ["a", "-"], ["b"]],
    ["[z-a]", [], ["a", "m", "z", "-"]],
    ["app[0-9", ["app[0-9"], ["app1"]],
    ["[", ["["], ["a"]],
    ["a[]", ["a[]"], ["a"]],
    ["a(+).{1}|$", ["a(+).{1}|$"], ["a"]],
    ["[\\]", ["\\"], ["a"]],
    ["\\*", ["*"], ["a"]],
  ] as [string, string[], string[]][]
) {
  Deno.test(`toRegExp() matches names as glob(3) does: ${pattern}`, () => {
    assertEquals([...matching, ...others].filter((name) => toRegExp(pattern).test(name)), matching);
  });
}

Deno.test("expand() returns what the wildcards of each folder match", async () => {
  const folder = await Deno.makeTempDir();
  try {
    for (const name of ["b/1.conf", "a/2.conf", "a/1.conf", "a/.3.conf", ".c/1.conf"]) {
      await Deno.mkdir(`${folder}/${name.slice(0, name.indexOf("/"))}`, { recursive: true });
      await Deno.writeTextFile(`${folder}/${name}`, "");
    }
    assertEquals(
      expand(`${folder}/*/*.conf`),
      ["a/1.conf", "a/2.conf", "b/1.conf"].map((name) => `${folder}/${name}`),
    );
    assertEquals(expand(`${folder}/*/1.conf`), [`${folder}/a/1.conf`, `${folder}/b/1.conf`]);
    assertEquals(expand(`${folder}/[/*.conf`), []);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});
