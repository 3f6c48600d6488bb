import { assert, assertEquals, assertThrows } from "@std/assert";
import { Arguments, formatUsage, type Usage } from "../../cli/arguments.ts";
import { UsageError } from "../../cli/errors.ts";

const USAGE: Usage = {
  name: "bake",
  operands: "CAKE",
  about: "Bakes a cake.",
  options: [
    { name: "layer", short: "l", value: "KIND", repeats: true, about: "a layer;\nsecond line" },
    { name: "sugar", value: "SIZE", about: "how much" },
    { name: "icing", value: "COLOR", bare: "white", about: "its color" },
    { name: "dry", short: "d", about: "bake nothing" },
  ],
  example: "bake apple",
};

const parse = (...args: string[]) => Arguments.parse(USAGE, args);

Deno.test("Arguments.parse() separates options and operands", () => {
  const args = parse("-l", "jam", "apple", "--layer=cream", "--sugar", "10k", "-d", "--", "-x");
  assertEquals(args.operands, ["apple", "-x"]);
  assertEquals(args.all("layer"), ["jam", "cream"]);
  assertEquals(args.bytes("sugar"), 10_240);
  assert(args.has("dry"));
  assert(!args.has("icing"));
  assertEquals(args.text("icing"), undefined);
});

Deno.test("Arguments.parse() keeps operands that look like numbers", () => {
  assertEquals(parse("010", "1e3").operands, ["010", "1e3"]);
});

Deno.test("Arguments.parse() accepts an option without its value if the value is optional", () => {
  const args = parse("--icing", "apple");
  assertEquals([args.text("icing"), args.operands], ["white", ["apple"]]);
  assertEquals(parse("--icing=pink").text("icing"), "pink");
});

Deno.test("Arguments.parse() rejects options that are unknown, repeated or lack their value", () => {
  assertThrows(
    () => parse("--sugr", "1"),
    UsageError,
    "There is no option --sugr. Did you mean --sugar?",
  );
  assertThrows(() => parse("--frobnicate=1"), UsageError, "There is no option --frobnicate.");
  assertThrows(() => parse("-z"), UsageError, "There is no option -z.");
  assertThrows(() => parse("--sugar", "1", "--sugar", "2"), UsageError, "--sugar is given twice.");
  for (const args of [["--sugar"], ["--sugar="], ["--sugar", "--dry"]]) {
    assertEquals(assertThrows(() => parse(...args), UsageError).message, "--sugar needs a value.");
  }
  assertThrows(() => parse("--dry=yes"), UsageError, "--dry takes no value.");
  assertThrows(() => parse("-d=yes"), UsageError, "--dry takes no value.");
});

Deno.test("Arguments.parse() explains how to pass a value that begins with a dash", () => {
  assertThrows(() => parse("--sugar", "-5"), UsageError, "needs =, as in: --sugar=-5");
  assertEquals(parse("--sugar=-5").text("sugar"), "-5");
  assertThrows(() => parse("-l", "-5"), UsageError, "needs =, as in: --layer=-5");
});

Deno.test("Arguments.parse() takes apart a group of letters, and a letter with its value", () => {
  const args = parse("-dljam", "-lcream", "-l=plum", "apple");
  assertEquals(args.all("layer"), ["jam", "cream", "plum"]);
  assertEquals([args.has("dry"), args.operands], [true, ["apple"]]);
  assertThrows(() => parse("-dz"), UsageError, "There is no option -z.");
});

Deno.test("Arguments checks choices and numbers", () => {
  assertEquals(parse("--sugar", "3").number("sugar", 1), 3);
  assertThrows(() => parse("--sugar", "0").number("sugar", 1), UsageError, "a number from 1");
  assertThrows(() => parse("--sugar", "1x").bytes("sugar"), UsageError, "such as 64k");
  assertEquals(parse("--icing=a").choice("icing", ["a", "b"]), "a");
  assertThrows(() => parse("--icing").choice("icing", ["a", "b"]), UsageError, "must be a, b");
});

Deno.test("Arguments.optionsExcept() returns the other options as arguments", () => {
  const args = parse("x", "-l", "a b", "-l=c", "-d", "--sugar", "1");
  assertEquals(args.optionsExcept(["sugar"]), ["--layer=a b", "--layer=c", "--dry"]);
});

Deno.test("formatUsage() lists operands, options and an example", () => {
  assertEquals(
    formatUsage(USAGE),
    `gatehouse bake CAKE [options]

Bakes a cake.

  -l, --layer KIND     a layer;
                       second line
      --sugar SIZE     how much
      --icing[=COLOR]  its color
  -d, --dry            bake nothing
  -h, --help           print this

Example:

  bake apple`,
  );
});
