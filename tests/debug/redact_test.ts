import { assertEquals } from "@std/assert";
import { Redactor } from "../../debug/redact.ts";

/** Source lines, and what becomes of them. */
const SOURCES: [source: string, redacted: string][] = [
  ['const password: string = "s3";', "const password: string = (redacted);"],
  ['let token?: Map<string, string> = "s3";', "let token?: Map<string, string> = (redacted);"],
  ['readonly apiKey!: string = "s3"', "readonly apiKey!: string = (redacted)"],
  [
    'const a = { key: ["s3", "s4"], b: "c" };',
    'const a = { key: [(redacted), (redacted)], b: "c" };',
  ],
  [
    'const secret = Deno.env.get("APP_SECRET") ?? "s3", b = "c";',
    'const secret = Deno.env.get("APP_SECRET") ?? (redacted), b = "c";',
  ],
  [
    'start(Deno.env.get("APP_SECRET") ?? "s3", "b");',
    'start(Deno.env.get("APP_SECRET") ?? (redacted), "b");',
  ],
  ['start(process.env.TOKEN || "s3", "b");', 'start(process.env.TOKEN || (redacted), "b");'],
  ['options.password ||= "s3";', "options.password ||= (redacted);"],
  [
    'new Map([["a", "b"], ["password", "s3"], ["c", "d"]])',
    'new Map([["a", "b"], ["password", (redacted)], ["c", "d"]])',
  ],
  [
    'headers.set("x-api-key", "s3"); set("a", "b");',
    'headers.set("x-api-key", (redacted)); set("a", "b");',
  ],
  ['const token = test ? "s3" : `s4`;', "const token = test ? (redacted) : (redacted);"],
  ['const token =\n  "s3";\nconst b = "c";', 'const token =\n  (redacted);\nconst b = "c";'],
  [
    'const token = read()\n  ?? "s3"\nconst b = "c"',
    'const token = read()\n  ?? (redacted)\nconst b = "c"',
  ],
  ["const key = `a\nb\nc`;\nd();", "const key = (redacted)\n\n;\nd();"],
  [
    "const keys = [\n  's3', // it's one\n  's4',\n];",
    "const keys = [\n  (redacted), // it's one\n  (redacted),\n];",
  ],
  ['const key = decode("s3");', "const key = decode((redacted));"],
  [
    'const authorize = (request) => {\n  return "a";\n};',
    'const authorize = (request) => {\n  return "a";\n};',
  ],
  ['async authorize() { return "a"; }', 'async authorize() { return "a"; }'],
  ['if (token === "s3") fail("b");', 'if (token === (redacted)) fail("b");'],
  ['const a = "b", password = "s3", c = "d";', 'const a = "b", password = (redacted), c = "d";'],
  ["const password = read(), key = readKey();", "const password = read(), key = readKey();"],
  ['interface A { password: string; b: "c" }', 'interface A { password: string; b: "c" }'],
];
for (const [source, redacted] of SOURCES) {
  Deno.test(`Redactor.source() redacts literals only: ${source}`, () => {
    assertEquals(new Redactor().source(source), redacted);
  });
}

/** Texts, and what becomes of them. */
const TEXTS: [text: string, redacted: string][] = [
  ["password=a,b,c d=e", "password=(redacted) d=e"],
  ["password=a,user=ann", "password=(redacted),user=ann"],
  ["password=a, user=ann", "password=(redacted), user=ann"],
  ['{"keys":["a","b"],"c":"d"}', '{"keys":(redacted),"c":"d"}'],
  ['{"auth":{"user":"a"},"c":"d"}', '{"auth":(redacted),"c":"d"}'],
  ['[["password","a"],["c","d"]]', '[["password",(redacted)],["c","d"]]'],
  [
    String.raw`"{\"password\":\"a b\",\"c\":\"d\"}"`,
    String.raw`"{\"password\":(redacted),\"c\":\"d\"}"`,
  ],
];
for (const [text, redacted] of TEXTS) {
  Deno.test(`Redactor.text() redacts values of secret names: ${text}`, () => {
    assertEquals(new Redactor().text(text), redacted);
  });
}

// In parts, so that nothing takes them for secrets.
const TOKENS = [
  ["Bearer ", "abcd.efgh"],
  ["Token ", "0123456789abcdef"],
  ["Token ", "abcdefghijklmnopqrst"],
  ["ghp_", "0123456789abcdefghij0123456789abcdef"],
  ["github_pat_", "0123456789abcdefghij_0123456789"],
  ["glpat-", "0123456789abcdefghij"],
  ["xoxb-", "0123456789-0123456789-abcdefghij"],
  ["sk-", "proj-0123456789abcdefghij"],
  ["sk_live_", "0123456789abcdefghij"],
  ["AKIA", "ABCDEFGHIJKLMNOP"],
  ["AIza", "0123456789abcdefghij0123456789abcde"],
  ["npm_", "0123456789abcdefghij0123456789abcdef"],
  ["eyJ", "hbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl"],
].map((parts) => parts.join(""));
for (const token of TOKENS) {
  Deno.test(`Redactor redacts a credential by its form: ${token.slice(0, 8)}`, () => {
    for (const text of [`a ${token} b`, `"${token}"`, `x(${token})`]) {
      const redacted = text.replace(token, "(redacted)");
      assertEquals(new Redactor().text(text), redacted);
      assertEquals(new Redactor().source(text), redacted);
    }
  });
}

Deno.test("Redactor redacts a private key, and keeps the lines of a source", () => {
  const kind = "RSA PRIVATE KEY";
  const pem = `-----BEGIN ${kind}-----\nMIIE\nabcd\n-----END ${kind}-----`;
  assertEquals(new Redactor().source(`f(\`${pem}\`);\ng();`), "f(`(redacted)\n\n\n`);\ng();");
  const start = pem.slice(0, pem.indexOf("abcd"));
  assertEquals(new Redactor().text(`cannot read ${start}`), "cannot read (redacted)\n\n");
  const certificate = "-----BEGIN CERTIFICATE-----\nMIIE\n-----END CERTIFICATE-----";
  assertEquals(new Redactor().text(certificate), certificate);
});

Deno.test("Redactor leaves what is no secret", () => {
  const texts = [
    `Unexpected token '<', "<!DOCTYPE "... is not valid JSON`,
    "Unexpected token at position 12345678",
    "the task-runner sk-8 skips AKIA",
    "GET /monitor?page=2&sort=name",
    "a ? b : c",
  ];
  for (const text of texts) assertEquals(new Redactor().text(text), text);
});

Deno.test("Redactor removes what it has learned, the longest first", () => {
  const redactor = new Redactor();
  redactor.learn("API_TOKEN", "abcdef");
  redactor.learn("OTHER_TOKEN", "abcdefghi");
  redactor.learn("CONFIG", '{"keys":["first secret","second"]}');
  assertEquals(redactor.text("abcdefghij abcdefg abcde"), "(redacted)j (redacted)g abcde");
  assertEquals(redactor.text("second abcdefabcdef"), "(redacted) (redacted)(redacted)");
});
