/** Characters that control a terminal, end a line, or change the order in which others are shown. */
const UNPRINTABLE = /[\p{Cc}\p{Zl}\p{Zp}\p{Bidi_Control}]/gu;

const PLAIN = /^[ -~]*$/;

/**
 * Escapes what would control a terminal or forge a line.
 *
 * @param escape Escapes a character. Default: as in `\x1b` and `\u{202e}`.
 */
export function printable(text: string, escape: (char: string) => string = toHex): string {
  // Most texts are of this kind, for which a simple pattern is faster.
  return PLAIN.test(text) ? text : text.replace(UNPRINTABLE, escape);
}

/** Formats a value as JSON, in ASCII or at least without such characters: JSON.stringify() escapes the first 32 only. */
export function printableJSON(value: unknown): string {
  return printable(
    JSON.stringify(value),
    (char) => `\\u${char.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
}

/** Does the same as {@linkcode printable} for text of several lines, with tabs. */
export function printableLines(text: string): string {
  return text.split(/\r?\n/).map((line) =>
    line.split("\t").map((part) => printable(part)).join("\t")
  )
    .join("\n");
}

/** Returns whether a text has nothing to escape. */
export function isPrintable(text: string): boolean {
  return text.search(UNPRINTABLE) < 0;
}

function toHex(char: string): string {
  const digits = char.codePointAt(0)!.toString(16);
  return digits.length > 2 ? `\\u{${digits}}` : `\\x${digits.padStart(2, "0")}`;
}
