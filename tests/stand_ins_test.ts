import {
  assert,
  assertEquals,
  assertExists,
  assertFalse,
  assertGreater,
  assertGreaterOrEqual,
  assertInstanceOf,
  AssertionError,
  assertLess,
  assertLessOrEqual,
  assertMatch,
  assertNotEquals,
  assertRejects,
  assertStrictEquals,
  assertStringIncludes,
  assertThrows,
  fail,
  unreachable,
} from "@std/assert";
import { parseArgs } from "@std/cli/parse-args";
import { Buffer } from "@std/io/buffer";

// These tests pass with the packages and with their stand-ins.

function assertFails(fn: () => unknown): void {
  assertThrows(fn, AssertionError);
}

Deno.test("assertEquals() compares deeply", () => {
  assertEquals({ a: [1, { b: new Uint8Array([1, 2]) }] }, {
    a: [1, { b: new Uint8Array([1, 2]) }],
  });
  assertEquals(new Map([["a", new Set([1])]]), new Map([["a", new Set([1])]]));
  assertEquals(-0, 0);
  assertEquals(NaN, NaN);
  assertEquals<unknown>(Object.assign(Object.create(null), { a: 1 }), { a: 1 });
  assertEquals(new URL("http://localhost/a"), new URL("http://localhost/a"));
  assertFails(() => assertEquals<unknown>({ a: 1 }, { a: 1, b: undefined }));
  assertFails(() => assertEquals<unknown>([1], { 0: 1 }));
  assertFails(() => assertEquals<unknown>("1", 1));
  assertFails(() => assertEquals(new Uint8Array([1]), new Uint8Array([2])));
  assertFails(() => assertEquals(new URL("http://localhost/a"), new URL("http://localhost/b")));
  assertFails(() => assertEquals(new Headers({ a: "1" }), new Headers({ a: "2" })));
  assertFails(() => assertEquals(new Date(1), new Date(2)));
  assertNotEquals({ a: 1 }, { a: 2 });
  assertFails(() => assertNotEquals([1], [1]));
});

Deno.test("assertEquals() reports the difference", () => {
  const error = assertThrows(() => assertEquals("left", "right", "sides"), AssertionError, "sides");
  assertStringIncludes(error.message, "left");
  assertStringIncludes(error.message, "right");
});

Deno.test("assertions of one value fail when they should", () => {
  assert(1);
  assertFails(() => assert(""));
  assertFalse(0);
  assertFails(() => assertFalse("0"));
  assertExists(0);
  assertFails(() => assertExists(null));
  assertStrictEquals(NaN, NaN);
  assertFails(() => assertStrictEquals({}, {}));
  assertInstanceOf(new TypeError(), Error);
  assertFails(() => assertInstanceOf(new Error(), TypeError));
  assertStringIncludes("abc", "b");
  assertFails(() => assertStringIncludes("abc", "d"));
  assertMatch("abc", /^a/);
  assertFails(() => assertMatch("abc", /^b/));
  assertGreater(2, 1);
  assertFails(() => assertGreater(1, 1));
  assertGreaterOrEqual(1, 1);
  assertFails(() => assertGreaterOrEqual(0, 1));
  assertLess(0, 1);
  assertFails(() => assertLess(1, 1));
  assertLessOrEqual(1, 1);
  assertFails(() => assertLessOrEqual(2, 1));
  assertFails(() => fail());
  assertFails(() => unreachable());
});

Deno.test("assertThrows() checks the class and the message of an error", () => {
  function throwRange() {
    throw new RangeError("Cannot count to 3");
  }
  assertStrictEquals(assertThrows(throwRange, RangeError, "count").message, "Cannot count to 3");
  assertInstanceOf(assertThrows(throwRange, Error), RangeError);
  assertInstanceOf(assertThrows(throwRange), RangeError);
  assertFails(() => assertThrows(throwRange, TypeError));
  assertFails(() => assertThrows(throwRange, RangeError, "other"));
  assertFails(() => assertThrows(() => {}));
});

Deno.test("assertRejects() checks the class and the message of an error", async () => {
  const rejects = () => Promise.reject(new RangeError("Cannot count to 3"));
  const error = await assertRejects(rejects, RangeError, "count");
  assertStrictEquals(error.message, "Cannot count to 3");
  await assertRejects(() => assertRejects(rejects, TypeError), AssertionError);
  await assertRejects(() => assertRejects(rejects, RangeError, "other"), AssertionError);
  await assertRejects(() => assertRejects(() => Promise.resolve()), AssertionError);
});

Deno.test("parseArgs() distinguishes strings, booleans and the rest", () => {
  const args = parseArgs([
    "serve",
    "--listen",
    "9000",
    "app.ts",
    "--watch",
    "-v",
    "--n=1",
    "--",
    "-x",
  ], {
    string: ["listen", "mode"],
    boolean: ["watch", "verbose", "help"],
    alias: { v: "verbose" },
  });
  const listen: string | undefined = args.listen;
  const watch: boolean = args.watch;
  assertEquals(listen, "9000");
  assertEquals(watch, true);
  assertEquals(args.mode, undefined);
  assertEquals(args.verbose, true);
  assertEquals(args.help, false);
  assertEquals(args.n, 1);
  assertEquals(args._, ["serve", "app.ts", "-x"]);
});

Deno.test("parseArgs() returns defaults, and an empty string for a missing value", () => {
  const args = parseArgs(["--protocol", "--mode", "-"], {
    string: ["protocol", "mode", "listen"],
    default: { listen: "127.0.0.1:9000" },
  });
  const listen: string = args.listen;
  assertEquals(listen, "127.0.0.1:9000");
  assertEquals(args.protocol, "");
  assertEquals(args.mode, "");
  assertEquals(args._, ["-"]);
});

Deno.test("parseArgs() collects", () => {
  const options = { string: ["env", "header"], collect: ["env", "header"] } as const;
  const args = parseArgs(["--env", "A=1", "--env=B=2"], options);
  const env: string[] = args.env;
  assertEquals(env, ["A=1", "B=2"]);
  assertEquals(args.header, []);
});

Deno.test("parseArgs() stops early, and keeps what follows a double dash", () => {
  const args = parseArgs(["-q", "run", "--watch", "--", "--no", "1"], {
    boolean: ["q", "watch"],
    stopEarly: true,
    "--": true,
  });
  assertEquals(args.q, true);
  assertEquals(args.watch, false);
  assertEquals(args._, ["run", "--watch"]);
  assertEquals(args["--"], ["--no", "1"]);
});

Deno.test("parseArgs() reports unknown options, and drops them on false", () => {
  const unknown: unknown[] = [];
  const args = parseArgs(["--nope", "1", "app.ts", "-z", "--known", "x"], {
    string: ["known"],
    unknown: (arg, key, value) => {
      unknown.push([arg, key, value]);
      return key === undefined;
    },
  });
  assertEquals(unknown, [["--nope", "nope", "1"], ["app.ts", undefined, undefined], [
    "-z",
    "z",
    true,
  ]]);
  assertEquals(args, { _: ["app.ts"], known: "x" });
});

Deno.test("parseArgs() parses short options in groups and with values", () => {
  const args = parseArgs(["-ab", "-l9000", "-p=x", "-c", "-3"], {
    boolean: ["a", "b"],
    string: ["l", "p"],
  });
  assertEquals(args, { _: [], a: true, b: true, l: "9000", p: "x", c: true, 3: true });
});

Deno.test("Buffer returns the bytes written to it", async () => {
  const buffer = new Buffer();
  assertEquals(await buffer.write(new Uint8Array([1, 2, 3])), 3);
  assertEquals(buffer.writeSync(new Uint8Array([4])), 1);
  assertEquals(buffer.length, 4);
  assertEquals(buffer.bytes(), new Uint8Array([1, 2, 3, 4]));

  const p = new Uint8Array(3);
  assertEquals(await buffer.read(p), 3);
  assertEquals(p, new Uint8Array([1, 2, 3]));
  assertEquals(buffer.readSync(p), 1);
  assertEquals(p, new Uint8Array([4, 2, 3]));
  assertEquals(await buffer.read(p), null);
  assertEquals(buffer.readSync(new Uint8Array()), 0);
  assert(buffer.empty());
});

Deno.test("Buffer starts with its initial bytes", () => {
  const buffer = new Buffer([1, 2]);
  assertEquals(buffer.bytes(), new Uint8Array([1, 2]));
  buffer.reset();
  assertEquals(buffer.length, 0);
});
