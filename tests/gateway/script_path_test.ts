import { assert, assertEquals, assertInstanceOf, assertThrows } from "@std/assert";
import fc from "fast-check";
import {
  decodeTarget,
  fileNames,
  hasBadName,
  isUTF8,
  mergeSlashes,
  pathBelow,
  readBasePath,
  splitScript,
} from "../../gateway/script_path.ts";
import { ProtocolError } from "../../wire/protocol_error.ts";
import { bytes, text } from "../testing/bytes.ts";

const byteString = (value: string) => text(new TextEncoder().encode(value));

/** Asserts that a path is rejected with status 400 and a message with the expected rule. */
function assertRejected(decode: () => unknown, expected: string, path: string): void {
  const error = assertThrows(decode, ProtocolError);
  assertEquals(
    error.message,
    `Cannot look up path as it must have ${expected}: current value is ${JSON.stringify(path)}`,
  );
  assertEquals(error.status, 400);
}

Deno.test("decodeTarget() decodes a path once, to a byte string", () => {
  const paths: Record<string, string> = {
    "/": "/",
    "/a%20b": "/a b",
    "/caf%C3%A9": byteString("/café"),
    "/%E9%FF": "/\xe9\xff",
    "/%2e%41": "/.A",
    "/a%2Fb": "/a/b",
    "/%252e%252E/x": "/%2e%2E/x",
    "/a..b/..c/d..": "/a..b/..c/d..",
    "/...": "/...",
    "/.": "/.",
    "/100%": "/100%",
    "/%zz": "/%zz",
  };
  for (const [path, decoded] of Object.entries(paths)) assertEquals(decodeTarget(path), decoded);
});

Deno.test("decodeTarget() rejects a path that leaves its folder, or has a NUL (rule F14)", () => {
  for (
    const path of [
      "/..",
      "/../x",
      "/a/..",
      "/a/%2e%2E/b",
      "/a%2f..%2fb",
      "/..%5Cwindows",
      "/a%5c..",
      "/a\\..\\b",
      "..",
    ]
  ) assertRejected(() => decodeTarget(path), 'no ".." segment', path);
  for (const path of ["/a%00", "/%00.php", "/a.php%00/../x"]) {
    assertRejected(() => decodeTarget(path), "no NUL", path);
  }
});

Deno.test("pathBelow() removes a base path at a segment boundary", () => {
  const cases: [path: string, basePath: string, rest: string | undefined][] = [
    ["/app/x", "/app", "/x"],
    ["/app/", "/app", "/"],
    ["/app", "/app", ""],
    ["/apple", "/app", undefined],
    ["/ap", "/app", undefined],
    ["/x/app", "/app", undefined],
    ["/x", "", "/x"],
    ["/APP/x", "/app", undefined],
    // A slash at its end does not count.
    ["/app/x", "/app/", "/x"],
    ["/app", "/app/", ""],
    ["/x", "/", "/x"],
    ["//x", "/", "//x"],
    ["/a/b/x", "/a/b/", "/x"],
    // The rest is as it was.
    ["/app/%2561/b%20c", "/app", "/%2561/b%20c"],
  ];
  for (const [path, basePath, rest] of cases) {
    assertEquals(
      pathBelow(path, readBasePath({ basePath: basePath as "/" })),
      rest,
      `${path} ${basePath}`,
    );
  }
});

Deno.test("pathBelow() accepts the base path in its canonical encoding only", () => {
  const cases: [basePath: string, path: string, others: string[]][] = [
    ["/cgi-bin", "/cgi-bin", ["/%63gi-bin", "/cgi%2Dbin", "/cgi%2dbin"]],
    ["/a b", "/a%20b", ["/a b", "/a+b"]],
    ["/caf\xe9", "/caf%C3%A9", ["/caf%c3%a9", "/caf%E9"]],
    ["/a[b]|c", "/a[b]|c", ["/a%5Bb%5D%7Cc"]],
    ["/a%20b", "/a%2520b", ["/a%20b", "/a b"]],
    ["/a?b#c", "/a%3Fb%23c", []],
    ["/a\\b", "/a%5Cb", ["/a/b"]],
    ["/a/b", "/a/b", ["/a%2Fb", "/a%2fb", "/a//b"]],
  ];
  for (const [basePath, path, others] of cases) {
    const read = readBasePath({ basePath: basePath as "/" });
    assertEquals(read.name, byteString(basePath));
    assertEquals(new URL(`http://localhost${path}/x`).pathname, `${path}/x`, "the test is wrong");
    assertEquals(pathBelow(`${path}/x`, read), "/x", path);
    for (const other of others) assertEquals(pathBelow(`${other}/x`, read), undefined, other);
  }
});

Deno.test("readBasePath() rejects what is no path", () => {
  const bad = [
    "app",
    "app/",
    "//",
    "/a//",
    "//a",
    "/a//b",
    "/.",
    "/../a",
    "/a/./b",
    "/a/..",
    "/a\0",
  ];
  for (const basePath of [...bad, "/a\n", " /a"]) {
    assertEquals(
      assertThrows(() => readBasePath({ basePath: basePath as "/" }), TypeError).message,
      `Cannot create a gateway as its basePath must be a path such as "/cgi-bin": current value is ${
        JSON.stringify(basePath)
      }`,
    );
  }
  for (const basePath of ["", "/", "/a/", "/...", "/.a", "/a..", "/a b/"]) {
    readBasePath({ basePath: basePath as "/" });
  }
});

Deno.test("mergeSlashes() merges slashes before and in a script's name, and leaves those of PATH_INFO", () => {
  const cases: [path: string, scriptName: string, pathInfo: string, merged: string][] = [
    ["//a.php", "/a.php", "", "/a.php"],
    ["/sub//index.php", "/sub/index.php", "", "/sub/index.php"],
    ["///x////y//a.php", "/x/y/a.php", "", "/x/y/a.php"],
    ["//sub//", "/sub/index.php", "", "/sub/"],
    ["//a.php//b///c", "/a.php", "/b/c", "/a.php//b///c"],
    ["/x//a.php/b//", "/x/a.php", "/b/", "/x/a.php/b//"],
    ["//a%20b.php//c", "/a b.php", "/c", "/a%20b.php//c"],
    ["/a.php//b", "/a.php", "/b", "/a.php//b"],
    // Nothing but a base path.
    ["//app//x", "/app", "/x", "/app//x"],
    ["//x", "", "/x", "//x"],
  ];
  for (const [path, scriptName, pathInfo, merged] of cases) {
    assertEquals(mergeSlashes(path, { scriptName, pathInfo }), merged, path);
  }
});

Deno.test("fileNames() returns the names in a path as texts", () => {
  const paths: Record<string, string[]> = {
    "/": [""],
    "/a": ["a"],
    "/a/b%20c/": ["a", "b c", ""],
    "/caf%C3%A9/x": ["café", "x"],
    "//a": ["", "a"],
    "/%252F": ["%2F"],
    "/..": [".."],
  };
  for (const [path, names] of Object.entries(paths)) assertEquals([...fileNames(path)], names);
});

Deno.test("fileNames() rejects an ambiguous name (rule F14)", () => {
  const bad: Record<string, string> = {
    "%2F": "no encoded slash, backslash or NUL",
    "a%2fb": "no encoded slash, backslash or NUL",
    "..%5C..": "no encoded slash, backslash or NUL",
    "a%00": "no encoded slash, backslash or NUL",
    "%E9": "UTF-8",
    "%C3%A9%FF": "UTF-8",
    "%C0%AF": "UTF-8",
  };
  for (const [name, wanted] of Object.entries(bad)) {
    const path = `/good/${name}/more`;
    const names = fileNames(path);
    assertEquals(names.next().value, "good");
    assertRejected(() => names.next(), wanted, path);
  }
});

Deno.test("isUTF8() accepts the same bytes as TextDecoder", () => {
  const fatal = new TextDecoder("utf-8", { fatal: true });
  const decodes = (value: string) => {
    try {
      fatal.decode(bytes(value));
      return true;
    } catch {
      return false;
    }
  };
  const valid = fc.string({ unit: "grapheme" }).map(byteString);
  const any = fc.uint8Array({ maxLength: 6 }).map(text);
  fc.assert(fc.property(fc.oneof(valid, any), (value) => {
    assertEquals(isUTF8(value), decodes(value));
  }));
  for (const value of ["", "a", byteString("é€😀"), "\xc2\x80", "\xff", "\xc3", "\xed\xa0\x80"]) {
    assertEquals(isUTF8(value), decodes(value), JSON.stringify(value));
  }
});

const PHP = { split: [".php"], index: "index.php" };

Deno.test("splitScript() splits after the first name with a script's extension", () => {
  const cases: [path: string, scriptName: string | undefined, pathInfo?: string][] = [
    ["/a.php", "/a.php", ""],
    ["/a.php/b/c", "/a.php", "/b/c"],
    ["/a.php/", "/a.php", "/"],
    ["/a.php//b", "/a.php", "//b"],
    ["/a.php/b.php", "/a.php", "/b.php"],
    ["/d/a.php/b", "/d/a.php", "/b"],
    ["/a.phpx/b.php", "/a.phpx/b.php", ""],
    ["/a.php.txt", undefined],
    ["/a.PHP", undefined],
    ["/.php", "/.php", ""],
    ["/", "/index.php", ""],
    ["/d/", "/d/index.php", ""],
    ["/d", undefined],
    ["", undefined],
  ];
  for (const [path, scriptName, pathInfo] of cases) {
    const expected = scriptName === undefined ? undefined : { scriptName, pathInfo };
    assertEquals(splitScript(path, PHP), expected as ReturnType<typeof splitScript>, path);
  }
});

Deno.test("splitScript() accepts several extensions, and no index", () => {
  const options = { split: [".php", ".phtml"], index: "" };
  assertEquals(splitScript("/a.phtml/b.php", options), {
    scriptName: "/a.phtml",
    pathInfo: "/b.php",
  });
  assertEquals(splitScript("/", options), undefined);
  assertEquals(splitScript("/a.php", { split: [], index: "" }), undefined);
});

Deno.test("splitScript() keeps the whole path, and splits it at a segment boundary", () => {
  const segment = fc.constantFrom("a", "a.php", ".php", "b.php.txt", "");
  const path = fc.array(segment, { minLength: 1, maxLength: 6 }).map((all) => "/" + all.join("/"));
  fc.assert(fc.property(path, (path) => {
    const found = splitScript(path, { split: [".php"], index: "" });
    if (found === undefined) return assert(!/\.php(?:\/|$)/.test(path));
    const { scriptName, pathInfo } = found;
    assertEquals(scriptName + pathInfo, path);
    assert(scriptName.endsWith(".php"));
    assert(pathInfo === "" || pathInfo.startsWith("/"));
    assert(!/\.php\//.test(scriptName), "the first script must be found");
  }));
});

Deno.test("hasBadName() finds a segment that is empty or begins with a dot", () => {
  for (
    const path of ["/.git", "/a/.env/b", ".x", "/..", "/.", "/a/..b", "//a.php", "/a//", "/a//b"]
  ) assert(hasBadName(path), path);
  for (const path of ["/", "/a.b", "/a./b.", "/a..", ""]) assert(!hasBadName(path), path);
});

Deno.test("the path functions throw only ProtocolError for any input", () => {
  const part = fc.constantFrom("/", "..", ".", "%2e", "%2F", "%5C", "%00", "%", "%C3", "a", "\\");
  const path = fc.oneof(
    fc.array(part, { maxLength: 12 }).map((parts) => "/" + parts.join("")),
    fc.webPath(),
  );
  fc.assert(fc.property(path, (path) => {
    for (const decode of [() => decodeTarget(path), () => [...fileNames(path)]]) {
      try {
        const names = [decode()].flat();
        for (const name of names) assert(!name.includes("\0"));
      } catch (error) {
        assertInstanceOf(error, ProtocolError);
      }
    }
  }));
});

Deno.test("readBasePath() takes the former name prefix, and not both", () => {
  assertEquals(readBasePath({ prefix: "/a/" }), readBasePath({ basePath: "/a" }));
  assertEquals(readBasePath({ prefix: undefined, basePath: "/a" }).path, "/a");
  assertEquals(readBasePath({ prefix: "/a", basePath: undefined }).path, "/a");
  assertThrows(
    () => readBasePath({ prefix: "/a", basePath: "/a" }),
    TypeError,
    "Cannot create a gateway as prefix is the former name of basePath: both are set",
  );
});
