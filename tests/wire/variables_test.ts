import { assertEquals, assertStrictEquals } from "@std/assert";
import fc from "fast-check";
import { ByteBuffer } from "../../wire/byte_buffer.ts";
import { decodeByteString, toByteString } from "../../wire/byte_string.ts";
import { decodeVariables, encodePair } from "../../wire/fastcgi.ts";
import { Variables } from "../../wire/variables.ts";

Deno.test("Variables joins repeated headers, and returns the last value of other names (rule A26)", () => {
  const variables = new Variables([
    ["SCRIPT_NAME", "/index.php"],
    ["HTTP_X_A", "1"],
    ["HTTP_COOKIE", "a=1"],
    ["HTTP_X_A", "2"],
    ["SCRIPT_NAME", ""],
    ["HTTP_COOKIE", "b=2"],
    ["HTTP_X_A", "3"],
    ["HTTP_HOST", "example.org"],
    ["HTTP_HOST", "example.org:8080"],
  ]);
  assertEquals(variables.get("HTTP_X_A"), "1, 2, 3");
  assertEquals(variables.get("HTTP_COOKIE"), "a=1; b=2");
  assertEquals(variables.get("SCRIPT_NAME"), "");
  // In nginx, one from the stock file and one from the configuration.
  assertEquals(variables.get("HTTP_HOST"), "example.org:8080");
  assertEquals(variables.size, 4);
});

Deno.test("Variables drops HTTP_PROXY (rule A27)", () => {
  const variables = new Variables([["HTTP_PROXY", "http://evil"], ["HTTP_PROXY", "http://evil"]]);
  assertEquals(variables.has("HTTP_PROXY"), false);
  assertEquals(variables.get("HTTP_PROXY"), undefined);
  assertEquals([...variables], []);
});

Deno.test("Variables drops AUTH_PASSWORD, however they are stored (rule A29)", () => {
  const pairs: [string, string][] = [["AUTH_PASSWORD", "secret"], ["AUTH_USER", "ann"]];
  const encoded = new ByteBuffer();
  for (const [name, value] of pairs) encodePair(encoded, name, value);
  const all = [
    new Variables(pairs),
    Variables.lookUpIn(Object.fromEntries(pairs)),
    decodeVariables(decodeByteString(encoded.bytes.subarray(0, encoded.length)), 10),
  ];
  for (const variables of all) {
    assertEquals(variables.byteString("AUTH_PASSWORD"), undefined);
    assertEquals(variables.get("AUTH_PASSWORD"), undefined);
    assertEquals([...variables], [["AUTH_USER", "ann"]]);
  }
});

Deno.test("Variables distinguishes empty from absent, except in byteString() (rule A4)", () => {
  const variables = new Variables([["CONTENT_LENGTH", ""]]);
  assertEquals(variables.has("CONTENT_LENGTH"), true);
  assertEquals(variables.get("CONTENT_LENGTH"), "");
  assertEquals(variables.byteString("CONTENT_LENGTH"), undefined);
  assertEquals(variables.has("QUERY_STRING"), false);
  assertEquals(variables.get("QUERY_STRING"), undefined);
});

Deno.test("Variables reads UTF-8 as text, and the rest byte for byte (rule A18)", () => {
  const variables = new Variables([["PATH_INFO", "/caf\xc3\xa9"], ["OTHER", "/caf\xe9"]]);
  assertStrictEquals(variables.get("PATH_INFO"), "/café");
  assertStrictEquals(variables.byteString("PATH_INFO"), "/caf\xc3\xa9");
  assertStrictEquals(variables.get("OTHER"), "/caf\xe9");
});

Deno.test("Variables is a readonly map of any names (rule F10)", () => {
  const pairs: [string, string][] = [
    ["__proto__", "polluted"],
    ["constructor", "c\xc3\xa9"],
    ["toString", "t"],
  ];
  const variables: ReadonlyMap<string, string> = new Variables(pairs);
  const expected: [string, string][] = [
    ["__proto__", "polluted"],
    ["constructor", "cé"],
    ["toString", "t"],
  ];
  assertEquals([...variables], expected);
  assertEquals([...variables.entries()], expected);
  assertEquals([...variables.keys()], expected.map(([name]) => name));
  assertEquals([...variables.values()], expected.map(([, value]) => value));
  const seen: unknown[] = [];
  const self = {};
  variables.forEach(function (this: unknown, value, name, map) {
    seen.push([name, value]);
    assertStrictEquals(this, self);
    assertStrictEquals(map, variables);
  }, self);
  assertEquals(seen, expected);
  assertStrictEquals(variables.get("__proto__"), "polluted");
  assertStrictEquals(variables.get("hasOwnProperty"), undefined);
  assertStrictEquals(({} as Record<string, unknown>).polluted, undefined);
});

Deno.test("Variables has the value sent last, for any names", () => {
  const name = fc.oneof(
    fc.constantFrom("__proto__", "A", "B", "valueOf"),
    fc.string({ maxLength: 3 }),
  ).filter((name) => !name.startsWith("HTTP_"));
  const pairs = fc.array(fc.tuple(name, fc.string({ unit: "grapheme-ascii" })));
  fc.assert(fc.property(pairs, (pairs) => {
    assertEquals([...new Variables(pairs)], [...new Map(pairs)]);
  }));
});

Deno.test("Variables of an environment have its names and values", () => {
  const name = fc.oneof(
    fc.constantFrom("__proto__", "HTTP_PROXY", "HTTP_HOST", "HTTP_A", "valueOf"),
    fc.string({ maxLength: 3 }),
  );
  const value = fc.oneof(
    fc.string({ unit: "grapheme", maxLength: 9 }),
    fc.constantFrom("", "a\nb", "\r", "caf\u00e9"),
  );
  fc.assert(fc.property(fc.dictionary(name, value), name, (environment, other) => {
    const pairs = Object.entries(environment)
      .map(([name, value]): [string, string] => [name, toByteString(value)]);
    const make = () => Variables.lookUpIn(environment);
    const expected = new Variables(pairs);
    for (const name of [...Object.keys(environment), other]) {
      assertStrictEquals(make().byteString(name), expected.byteString(name));
      assertStrictEquals(make().get(name), expected.get(name));
      assertStrictEquals(make().has(name), expected.has(name));
    }
    // Pairs that are dropped may count or not.
    if (!("HTTP_PROXY" in environment)) {
      assertEquals(make().hasLineBreaks, expected.hasLineBreaks);
    }
    assertEquals(make().pairs(), expected.pairs());
    assertEquals([...make()], [...expected]);
    assertEquals(make().size, expected.size);
  }));
});

Deno.test("Variables.forEachPair() visits names with a prefix, however they are stored", () => {
  const pairs: [string, string][] = [
    ["HTTP_A", "1"],
    ["A", "HTTP_B"],
    ["HTTP", "_C"],
    ["HTTP_", ""],
    ["", "HTTP_"],
    ["HTTP_D", "2"],
  ];
  const out = new ByteBuffer();
  for (const [name, value] of pairs) encodePair(out, name, value);
  const kept = {
    "as they came": decodeVariables(decodeByteString(out.take()), 100),
    "in a map": new Variables(pairs),
    "in the environment": Variables.lookUpIn(Object.fromEntries(pairs)),
  };
  for (const [how, variables] of Object.entries(kept)) {
    const seen: [string, string][] = [];
    variables.forEachPair((name, value) => seen.push([name, value]), "HTTP_");
    assertEquals(seen, [["HTTP_A", "1"], ["HTTP_", ""], ["HTTP_D", "2"]], how);
  }
});

Deno.test("Variables.createdBy() creates all variables only when it must", () => {
  let created = 0;
  const variables = () =>
    Variables.createdBy({
      find: (name) => name === "A" ? "b" : name === "NONE" ? undefined : null,
      create() {
        created++;
        return [["A", "b"], ["HTTP_C", "\xc3\xa9"], ["HTTP_PROXY", "x"]];
      },
    });
  const some = variables();
  assertEquals([some.get("A"), some.byteString("A"), some.has("A")], ["b", "b", true]);
  assertEquals([some.get("NONE"), some.has("NONE")], [undefined, false]);
  assertEquals(created, 0);
  assertEquals([some.get("HTTP_C"), some.get("D"), some.has("HTTP_PROXY")], [
    "é",
    undefined,
    false,
  ]);
  assertEquals([...some], [["A", "b"], ["HTTP_C", "é"]]);
  assertEquals(created, 1);
  assertEquals(variables().pairs(), [["A", "b"], ["HTTP_C", "\xc3\xa9"]]);
  assertEquals([variables().size, variables().hasLineBreaks], [2, false]);
});

Deno.test("Variables that are cut from a text find what they have when all are collected", () => {
  const pairs = [["A", "1"], ["HTTP_B", "2"], ["A", ""], ["HTTP_B", ""], ["HTTP_B", "3"]];
  const more = [["HTTP_COOKIE", "a"], ["HTTP_COOKIE", "b"], ["HTTP_HOST", "c"], ["HTTP_HOST", "d"]];
  const all = [...pairs, ...more, ["HTTP_PROXY", "x"], ["", "e"]] as [string, string][];
  let text = "";
  const ranges = all.flatMap(([name, value]) => {
    const start = text.length;
    text += name + value;
    return [start, start + name.length, text.length];
  });
  const collected = new Variables(all);
  for (const name of [...new Set(all.map(([name]) => name)), "C", "HTTP_", "HTTP_BC"]) {
    const cut = Variables.cutFrom(text, ranges);
    assertEquals(
      [cut.get(name), cut.has(name), cut.byteString(name)],
      [collected.get(name), collected.has(name), collected.byteString(name)],
      name,
    );
  }
});
