import { assertEquals } from "@std/assert";
import fc from "fast-check";
import { isPrintable, printable, printableLines } from "../../io/printable.ts";
import { shellQuote } from "../../debug/shell_command.ts";
import { testWith } from "../testing/needs.ts";

const CONTROLS: [text: string, escaped: string][] = [
  ["\x1b[31m", "\\x1b[31m"],
  ["a\nb\rc\td\0", "a\\x0ab\\x0dc\\x09d\\x00"],
  ["\x7f\x80\x9b", "\\x7f\\x80\\x9b"],
  ["\u2028\u2029\u202e\u2066", "\\u{2028}\\u{2029}\\u{202e}\\u{2066}"],
];

Deno.test("printable() escapes what controls a terminal, ends a line or reorders text", () => {
  for (const [text, escaped] of CONTROLS) {
    assertEquals([printable(text), isPrintable(text)], [escaped, false]);
  }
  for (const text of ["", "Grüße, 世界 👩‍💻", "C:\\x1b"]) {
    assertEquals([printable(text), isPrintable(text)], [text, true]);
  }
});

Deno.test("printableLines() keeps lines and tabs", () => {
  assertEquals(printableLines("a\tb\r\nc\x1b\n"), "a\tb\nc\\x1b\n");
});

const WORDS = [
  "",
  "a b",
  "it's",
  "$(touch marker)`touch marker`",
  "~",
  "=ls",
  "a;b|c&d<e>f",
  "#!",
  "!!",
  '"\\',
  "*?[a]{b,c}",
  "Grüße 👩‍💻",
  "-n",
];
const UNPRINTABLE_WORDS = [
  "\x1b]0;title\x07",
  "two\nlines\n",
  "\n\n",
  "\x01'\\!\x7f\x9b",
  "\u202e9\u2066'0",
  "\t0",
];

/** Prints words with a shell as it reads them, each with a NUL at its end. */
async function readByShell(shell: string, words: string[]): Promise<string[]> {
  const { stdout, stderr, success } = await new Deno.Command(shell, {
    args: ["-c", `printf '%s\\0' ${words.map(shellQuote).join(" ")}`],
  }).output();
  assertEquals([success, new TextDecoder().decode(stderr)], [true, ""]);
  return new TextDecoder("utf-8", { ignoreBOM: true }).decode(stdout).split("\0").slice(0, -1);
}

Deno.test("shellQuote() makes one word of any printable text in sh", async () => {
  assertEquals(await readByShell("sh", WORDS), WORDS);
  const text = fc.string({ unit: "grapheme", minLength: 1 }).filter(isPrintable);
  const words = fc.sample(text, 200);
  assertEquals(await readByShell("sh", words), words);
});

testWith(
  { bash: "bash" },
  "shellQuote() makes one word of control characters, and prints none",
  async () => {
    const text = fc.string({ unit: "binary", minLength: 1 })
      .map((text) => text.replaceAll("\0", "").toWellFormed());
    const words = [...WORDS, ...UNPRINTABLE_WORDS, ...fc.sample(text, 200)];
    assertEquals(words.map(shellQuote).filter((word) => !isPrintable(word)), []);
    assertEquals(await readByShell("bash", words), words);
  },
);
