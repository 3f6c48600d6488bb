/** Names of secret values. */
const SECRET_NAME =
  /token|secret|passw|passphrase|pass|pwd|auth|key|sess|credential|cookie|private|jwt|csrf|xsrf|dsn|signature|^sig$|^sid$|^AWS_|_sid$/i;
/** Variables of these names are not secret, whatever they contain. */
const HARMLESS = /^(?:PWD|OLDPWD|AUTH_TYPE|SERVER_SIGNATURE|XDG_.*)$/;
/** Names whose value extends to the end of the line. */
const WHOLE_LINE = /cookie|authorization/i;
const REDACTED = "(redacted)";
/** A name and its separator from the value, as in `a=b`, `"a": "b"` and `Header: b`. */
const NAME = /(?<![\w.%~+-])([\w.%~+-]+)[\]"'`]*\s*(?:=>|[:=])\s*/g;
const LINE_VALUE = /[^\r\n]*/y;
const VALUE = /"(?:[^"\\]|\\.)*"?|'(?:[^'\\]|\\.)*'?|`(?:[^`\\]|\\.)*`?|[^\s&;,"'`<>)}\]]+/y;
const QUOTED = /"(?:[^"\\]|\\.)*"?|'(?:[^'\\]|\\.)*'?|`(?:[^`\\]|\\.)*`?/y;
/** The user in a URL, with or without a password. */
const USERINFO = /(?<![a-z0-9+.-])([a-z][a-z0-9+.-]*:\/\/)[^\s/?#@"'`<>]*(?:@[^\s/?#@"'`<>]*)*@/gi;
/** Credentials without a name: `Bearer …`, and JSON Web Tokens. */
const BARE = /\b(Bearer|Basic|Digest)\s+[\w.~+/=-]{4,}|(?<![\w-])eyJ[\w-]{8,}\.[\w-]+\.?[\w-]*/gi;
/** Shorter values and these words are redacted only where they follow their name. */
const SHORTEST = 4;
const WORDS = /^(?:true|false|null|none|undefined|basic|bearer|digest)$/i;

/** Removes values that look secret from texts. */
export class Redactor {
  readonly #known = new Set<string>();

  /** Stores the secrets of a named value, to remove them from other texts too. */
  learn(name: string, value: string): void {
    if (isSecret(name)) {
      this.#remember(value);
      // A cookie's value, a password after its user.
      for (const part of value.split(/[;,\s]+/)) this.#remember(part.slice(part.indexOf("=") + 1));
    }
    this.#redact(value, VALUE, (secret) => this.#remember(secret.replace(/^["'`]|["'`]$/g, "")));
  }

  /** Redacts a named value. */
  value(name: string, value: string): string {
    return isSecret(name) && value !== "" ? REDACTED : this.text(value);
  }

  /** Redacts the secrets in a text. */
  text(text: string): string {
    return this.#removeKnown(this.#redact(text, VALUE));
  }

  /** Redacts the secrets in a line of source: only literals, since variable names are not secret. */
  source(line: string): string {
    return this.#removeKnown(this.#redact(line, QUOTED));
  }

  #remember(value: string): void {
    const decoded = decode(value);
    for (const text of [value, decoded]) {
      if (text.length >= SHORTEST && !WORDS.test(text)) this.#known.add(text);
    }
  }

  #removeKnown(text: string): string {
    const known = [...this.#known].sort((a, b) => b.length - a.length);
    for (const secret of known) text = text.replaceAll(secret, REDACTED);
    return text;
  }

  #redact(text: string, pattern: RegExp, found?: (secret: string) => void): string {
    let redacted = "";
    let at = 0;
    // Text up to here has no secret; the value after a name may contain more names.
    let searched = 0;
    NAME.lastIndex = 0;
    for (let match; (match = NAME.exec(text)) !== null;) {
      const name = decode(match[1]);
      const start = NAME.lastIndex;
      const secretName = isSecret(name);
      if (!secretName && start < searched) continue;
      const value = WHOLE_LINE.test(name) && pattern !== QUOTED ? LINE_VALUE : pattern;
      value.lastIndex = start;
      const [secret] = value.exec(text) ?? [];
      if (!secret) continue;
      if (!secretName && !hidesSecret(secret)) {
        searched = start + secret.length;
        continue;
      }
      found?.(secret);
      redacted += text.slice(at, start) + REDACTED;
      at = NAME.lastIndex = start + secret.length;
    }
    return (redacted + text.slice(at))
      .replace(USERINFO, `$1${REDACTED}@`)
      .replace(BARE, REDACTED);
  }
}

function isSecret(name: string): boolean {
  return SECRET_NAME.test(name) && !HARMLESS.test(name);
}

/** Returns whether an encoded value has a secret parameter of its own, as in `next=%2Flogin%3Ftoken%3Dx`. */
function hidesSecret(value: string): boolean {
  const decoded = decode(decode(value));
  if (decoded === value) return false;
  return [...decoded.matchAll(NAME)].some(([, name]) => isSecret(decode(name)));
}

function decode(text: string): string {
  return text.replace(
    /%([0-9a-f]{2})/gi,
    (_, digits) => String.fromCharCode(parseInt(digits, 16)),
  );
}
