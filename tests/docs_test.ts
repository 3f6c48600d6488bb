/** The documentation refers to what exists: links, rules and files. */
import { assert, assertEquals } from "@std/assert";
import { existsSync, globSync } from "node:fs";
import config from "../deno.json" with { type: "json" };
import { ROOT } from "./testing/daemon.ts";

const read = (path: string) => Deno.readTextFileSync(ROOT + path);
const find = (...patterns: string[]): string[] =>
  globSync(patterns, {
    cwd: ROOT,
    exclude: (name) => /(^|\/)(\.[^/]+|node_modules|testdata)$/.test(name),
  }).sort();
const PAGES = find("**/*.md");

/** Returns a page without its code blocks. */
const prose = (page: string) => page.replaceAll(/^```.*?^```$/gms, "");

/** Returns the names that a page's links may have after `#`: of its headings, as GitHub forms them, and of its anchors. */
function anchors(page: string): Set<string> {
  const names = new Set<string>();
  for (const [, heading] of prose(page).matchAll(/^#+ (.+)$/gm)) {
    const text = heading.replaceAll(/\[([^\]]*)\]\([^)]*\)/g, "$1").toLowerCase();
    const name = text.replaceAll(/[^\p{L}\p{N} _-]/gu, "").replaceAll(" ", "-");
    let count = 0;
    while (names.has(count === 0 ? name : `${name}-${count}`)) count++;
    names.add(count === 0 ? name : `${name}-${count}`);
  }
  for (const [, id] of page.matchAll(/<a id="([^"]+)">/g)) names.add(id);
  return names;
}

Deno.test("anchors() names headings as GitHub does", () => {
  assertEquals(
    [...anchors('# A `b.ts`, and C?\n\n## Same\n## Same\n\n<a id="x1"></a>\n```sh\n# no\n```\n')],
    ["a-bts-and-c", "same", "same-1", "x1"],
  );
});

for (const path of PAGES) {
  Deno.test(`the relative links of ${path} lead somewhere`, () => {
    const broken: string[] = [];
    for (const [, link] of prose(read(path)).matchAll(/\]\(<?([^)\s>]+)>?[^)]*\)/g)) {
      if (/^[a-z]+:/.test(link)) continue;
      const [file, anchor] = link.split("#");
      const target = file === ""
        ? path
        : new URL(file, new URL(path, "file:///")).pathname.slice(1);
      const exists = existsSync(ROOT + target) &&
        (anchor === undefined || anchors(read(target)).has(decodeURIComponent(anchor)));
      if (!exists) broken.push(link);
    }
    assertEquals(broken, []);
  });
}

Deno.test("each specifier of the package names this minor version", () => {
  const [major, minor] = config.version.split(".");
  const pinned = `jsr:${config.name}@${major}.${minor}`;
  const wrong = find("**/*.md", "**/*.ts").filter((path) => !/^tests\/|^CHANGELOG/.test(path))
    .flatMap((path) => {
      const specifiers = read(path).match(/jsr:@gatehouse\/cgi(?:@[\d.]*\d)?(?=[/\s"'`])/g) ?? [];
      return specifiers.filter((specifier) => specifier !== pinned)
        .map((specifier) => `${path}: ${specifier}`);
    });
  assertEquals(wrong, []);
});

/** Returns the numbers of the rules that a text cites, such as "rules C8 and C16" or "(rules A1 to A3)". */
function citedRules(text: string): string[] {
  const flat = text.replaceAll(/\s*\n\s*(?:\*|\/\/)?\s*/g, " ");
  return [...flat.matchAll(/\brules? ([A-F]\d+(?:(?:,|,? and|,? or|,? to) [A-F]\d+)*)/g)]
    .flatMap(([, list]) => list.match(/[A-F]\d+/g)!);
}

Deno.test("citedRules() reads lists across lines", () => {
  const comment = "(rule A1), by rules B2, B3 and\n   * C4 and (rules D5 to\n// D7)";
  assertEquals(citedRules(comment), ["A1", "B2", "B3", "C4", "D5", "D7"]);
});

Deno.test("each rule that the repository cites is in docs/protocols.md", () => {
  const defined = new Set(
    [...read("docs/protocols.md").matchAll(/<a id="([a-f]\d+)"><\/a>\*\*([A-F]\d+)\b/g)]
      .map(([, id, number]) => {
        assertEquals(id, number.toLowerCase());
        return number;
      }),
  );
  const sources = find("**/*.ts").filter((path) => path !== "tests/docs_test.ts");
  let cited = 0;
  const unknown: string[] = [];
  for (const path of [...sources, ...PAGES]) {
    const text = read(path);
    const short = text.includes("Rules are those of docs/protocols.md")
      ? [...text.matchAll(/\(([A-F]\d+(?:, [A-F]\d+)*)/g)].flatMap(([, list]) => list.split(", "))
      : [];
    for (const rule of [...citedRules(text), ...short]) {
      cited++;
      if (!defined.has(rule)) unknown.push(`${path}: ${rule}`);
    }
  }
  assert(cited > 100, `${cited} citations`);
  assertEquals(unknown, []);
});

/** Returns the files and folders that a page names: in code spans, and in its code blocks that draw the source tree. */
function namedFiles(page: string): string[] {
  const FILE = /(?<![\w./:*-])(?:[\w-]+\/)*(?:[\w-]+\.(?:ts|md|json|c)|[\w-]+\/)(?![\w*])/g;
  const spans = [...prose(page).matchAll(/`([^`\n]+)`/g)]
    .flatMap(([, span]) => span.match(FILE) ?? []);
  const trees = [...page.matchAll(/^```text\n(.*?)^```$/gms)].filter(([, tree]) =>
    !/[+|]/.test(tree)
  );
  const drawn = trees.flatMap(([, tree]) => {
    let folder = "";
    return tree.split("\n").flatMap((line) => {
      if (!line.startsWith(" ")) folder = /^[\w-]+\//.exec(line)?.[0] ?? "";
      const names = line.match(FILE) ?? [];
      return names.map((name) => line.startsWith(" ") ? folder + name : name);
    });
  });
  return [...spans, ...drawn];
}

for (const path of ["docs/architecture.md", "CONTRIBUTING.md"]) {
  Deno.test(`the files that ${path} names exist`, () => {
    const files = find("**/*.{ts,md,json,c}");
    const names = namedFiles(read(path));
    assert(names.length > 5, `${names.length} names`);
    // A name without its folder stands for a file that the text has named before.
    const missing = names.filter((name) =>
      !existsSync(ROOT + name) && !files.some((file) => file.endsWith(`/${name}`))
    );
    assertEquals(missing, []);
  });
}
