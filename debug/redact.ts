import { decodePercent } from "../bridge/request.ts";

/** Names of secret values. */
const SECRET_NAME =
  /token|secret|passw|passphrase|pass|pwd|auth|key|sess|credential|cookie|private|jwt|csrf|xsrf|dsn|signature|^sig$|^sid$|^AWS_|_sid$/i;
/** Variables of these names are not secret, whatever they contain. */
const HARMLESS = /^(?:PWD|OLDPWD|AUTH_TYPE|SERVER_SIGNATURE|XDG_.*)$/;
/** Names whose value extends to the end of the line. */
const WHOLE_LINE = /cookie|authorization/i;
const REDACTED = "(redacted)";
/**
 * A name and its separator from the value: `a=b`, `"a": "b"`, `a?: string = b`, `a ?? b`, `Header: b`, and `"a", b` as in a
 * list or call.
 */
const NAME =
  /(?<![\w.%~+-])(?:([\w.%~+-]+)[\]"'`)\\]*\s*(?:=>|[?!]?[:=]|\?\?=?|\|\|=?)|(["'`])([\w.%~+-]+)\2\s*,)\s*/g;
const LINE_VALUE = /[^\r\n]*/y;
/** A value without quotes. A comma ends it if a name follows. */
const PLAIN_VALUE =
  /[^\s&;,"'`<>()[\]{}][^\s&;,"'`<>)}\]]*(?:,(?![\w.%~+-]+[=:])[^\s&;,"'`<>)}\]]+)*/y;
/** A string literal. In JSON that is itself a string, its quotes are escaped. */
const LITERAL =
  /"(?:[^"\\\n]|\\[^])*"?|'(?:[^'\\\n]|\\[^])*'?|`(?:[^`\\]|\\[^])*`?|\\+["'`][^"'`\n]*["'`]?/y;
/** The name of an environment variable, which is not secret. */
const VARIABLE = /^(["'`])[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+\1$/;
/** The user in a URL, with or without a password. */
const USERINFO = /(?<![a-z0-9+.-])([a-z][a-z0-9+.-]*:\/\/)[^\s/?#@"'`<>]*(?:@[^\s/?#@"'`<>]*)*@/gi;
/** Credentials without a name, by their form. */
const BARE = new RegExp(
  [
    String.raw`\b(?:Bearer|Basic|Digest|bearer|basic|digest|BEARER|BASIC|DIGEST)\s+[\w.~+/=-]{4,}`,
    String.raw`\b(?:Token|token|ApiKey)\s+(?:(?=[a-zA-Z_-]*\d)[\w.~+/=-]{8,}|[\w.~+/=-]{16,})`,
    // JSON Web Tokens
    String.raw`(?<![\w-])eyJ[\w-]{8,}\.[\w-]+\.?[\w-]*`,
    // GitHub, GitLab, Slack, npm, Google, SendGrid, Hugging Face, DigitalOcean
    String
      .raw`(?<![\w-])(?:gh[a-z]_|github_pat_|glpat-|xox[a-z]-|npm_|AIza|ya29\.|SG\.|hf_|dop_v1_)[\w.-]{16,}`,
    // OpenAI, Anthropic, Stripe
    String.raw`(?<![\w-])(?:sk|rk|pk|whsec)[-_][\w-]{16,}`,
    // AWS
    String.raw`(?<![\w-])A(?:KIA|SIA)[A-Z0-9]{12,}`,
    String.raw`-----BEGIN [A-Z ]*PRIVATE KEY-----(?:(?!-----END)[^])*(?:-----END [A-Z ]*-----)?`,
  ].join("|"),
  "g",
);
/** Shorter values and these words are redacted only where they follow their name. */
const SHORTEST = 4;
const WORDS = /^(?:true|false|null|none|undefined|basic|bearer|digest)$/i;

/** Removes values that look secret from texts. */
export class Redactor {
  /** The known secrets by their first characters. */
  readonly #known = new Map<string, KnownSecrets>();

  /** Stores the secrets of a named value, to remove them from other texts too. */
  learn(name: string, value: string): void {
    if (isSecret(name)) {
      this.#remember(value);
      // A cookie's value, a password after its user.
      for (const part of value.split(/[;,\s]+/)) this.#remember(part.slice(part.indexOf("=") + 1));
    }
    redactNamed(value, false, (secret) => {
      this.#remember(secret);
      for (const literal of secret.match(/[^"'`[\]{},\s]+/g) ?? []) this.#remember(literal);
    });
  }

  /** Redacts a named value. */
  value(name: string, value: string): string {
    return isSecret(name) && value !== "" ? REDACTED : this.text(value);
  }

  /** Redacts the secrets in a text. */
  text(text: string): string {
    return this.#removeKnown(redactNamed(text, false));
  }

  /** Redacts the secrets in source code: only literals, since names are not secret. Keeps the number of lines. */
  source(lines: string): string {
    return this.#removeKnown(redactNamed(lines, true));
  }

  #remember(value: string): void {
    for (const text of [value, decodePercent(value)]) {
      if (text.length < SHORTEST || WORDS.test(text)) continue;
      const start = text.slice(0, SHORTEST);
      let known = this.#known.get(start);
      if (known === undefined) this.#known.set(start, known = new KnownSecrets());
      known.add(text);
    }
  }

  #removeKnown(text: string): string {
    let redacted = "";
    let at = 0;
    for (let i = 0; i + SHORTEST <= text.length; i++) {
      const length = this.#known.get(text.slice(i, i + SHORTEST))?.lengthAt(text, i) ?? 0;
      if (length === 0) continue;
      redacted += text.slice(at, i) + hide(text.slice(i, i + length));
      at = i + length;
      i = at - 1;
    }
    return redacted + text.slice(at);
  }
}

/** Secrets with the same first characters. */
class KnownSecrets {
  #secrets = new Set<string>();
  /** Their lengths, the longest first. */
  #lengths: number[] = [];

  add(secret: string): void {
    this.#secrets.add(secret);
    if (this.#lengths.includes(secret.length)) return;
    this.#lengths.push(secret.length);
    this.#lengths.sort((a, b) => b - a);
  }

  /** Returns the length of the longest secret at a place in a text, or undefined. */
  lengthAt(text: string, at: number): number | undefined {
    return this.#lengths.find((length) => this.#secrets.has(text.slice(at, at + length)));
  }
}

/**
 * Redacts the values of secret names, and credentials that their form shows.
 *
 * @param isSource Whether only literals are values.
 * @param found Called with each value.
 */
function redactNamed(
  text: string,
  isSource: boolean,
  found: (secret: string) => void = () => {},
): string {
  let redacted = "";
  let at = 0;
  // Text up to here has no secret; the value after a name may contain more names.
  let searched = 0;
  NAME.lastIndex = 0;
  for (let match; (match = NAME.exec(text)) !== null;) {
    const name = decodePercent(match[1] ?? match[3]);
    const start = NAME.lastIndex;
    const secretName = isSecret(name);
    if (!secretName && (isSource || start < searched)) continue;
    if (secretName && isSource) {
      const { literals, end } = readExpression(text, start);
      for (const [from, to] of literals) {
        redacted += text.slice(at, from) + hide(text.slice(from, to));
        at = to;
      }
      NAME.lastIndex = Math.max(end, start);
      continue;
    }
    const end = endOfValue(text, start, name);
    if (end === start) continue;
    const secret = text.slice(start, end);
    if (!secretName && !hidesSecret(secret)) {
      searched = end;
      continue;
    }
    found(secret.replace(/^["'`](.*?)["'`]?$/s, "$1"));
    redacted += text.slice(at, start) + REDACTED;
    at = NAME.lastIndex = end;
  }
  return (redacted + text.slice(at)).replace(USERINFO, `$1${REDACTED}@`).replace(BARE, hide);
}

/** Returns where the value after a name ends. */
function endOfValue(text: string, start: number, name: string): number {
  const first = text[start];
  if (WHOLE_LINE.test(name)) return endOf(LINE_VALUE, text, start);
  if (first === "[" || first === "{") return Math.max(readExpression(text, start).end, start + 1);
  return endOf(/["'`\\]/.test(first) ? LITERAL : PLAIN_VALUE, text, start);
}

function endOf(pattern: RegExp, text: string, start: number): number {
  pattern.lastIndex = start;
  return pattern.test(text) ? pattern.lastIndex : start;
}

/** Reads the expression that follows a name: its literals, and where it ends. A function's body is not part of it. */
function readExpression(
  text: string,
  start: number,
): { literals: [from: number, to: number][]; end: number } {
  const literals: [number, number][] = [];
  let depth = 0;
  let angles = 0;
  // The last two characters other than blanks.
  let last = " =";
  let i = start;
  while (i < text.length) {
    const char = text[i];
    const end = endOf(LITERAL, text, i);
    if (end > i) {
      if (!VARIABLE.test(text.slice(i, end))) literals.push([i, end]);
      i = end;
      last = last[1] + '"';
      continue;
    }
    if (char === "/" && /[/*]/.test(text[i + 1] ?? "")) {
      i = endOfComment(text, i);
      continue;
    }
    if (char === "{" && (last === "=>" || last[1] === ")")) break;
    if ("([{".includes(char)) depth++;
    else if (")]}".includes(char) && depth-- === 0) break;
    else if (char === "<" && /\w/.test(text[i - 1]) && /[\w{[]/.test(text[i + 1] ?? "")) angles++;
    else if (char === ">" && angles > 0 && last[1] !== "=") angles--;
    else if (depth === 0 && (char === ";" || char === "," && angles === 0)) break;
    else if (depth === 0 && char === "\n" && !continues(text, i, last[1])) break;
    if (!/\s/.test(char)) last = last[1] + char;
    i++;
  }
  return { literals, end: i };
}

/** Returns whether an expression goes on after a line. */
function continues(text: string, lineEnd: number, last: string): boolean {
  if (/[=?:|&+,<]/.test(last)) return true;
  return /^\s*[?:|&+.=]/.test(text.slice(lineEnd, lineEnd + 200));
}

function endOfComment(text: string, start: number): number {
  const [mark, length] = text[start + 1] === "/" ? ["\n", 0] : ["*/", 2];
  const end = text.indexOf(mark as string, start + 2);
  return end < 0 ? text.length : end + (length as number);
}

/** Returns the replacement of a secret, which has as many lines. */
function hide(secret: string): string {
  return REDACTED + "\n".repeat(secret.split("\n").length - 1);
}

function isSecret(name: string): boolean {
  return SECRET_NAME.test(name) && !HARMLESS.test(name);
}

/** Returns whether an encoded value has a secret parameter of its own, as in `next=%2Flogin%3Ftoken%3Dx`. */
function hidesSecret(value: string): boolean {
  const decoded = decodePercent(decodePercent(value));
  if (decoded === value) return false;
  return [...decoded.matchAll(NAME)].some(([, name, , quoted]) =>
    isSecret(decodePercent(name ?? quoted))
  );
}
