/** The server side reads the same request that the gateway wrote, over every transport. */
import { assertEquals } from "@std/assert";
import fc from "fast-check";
import { serveFastCGI } from "../../fastcgi.ts";
import { cgiGateway, fastCGIGateway, type Gateway, scgiGateway } from "../../gateway.ts";
import { serveSCGI } from "../../scgi.ts";
import { deadline } from "../testing/deadline.ts";

/** The parts of a request that both sides compare. */
interface Summary {
  method: string;
  url: string;
  headers: Record<string, string>;
  body: string;
}

async function summarize(request: Request): Promise<Summary> {
  return {
    method: request.method,
    url: request.url,
    headers: Object.fromEntries(request.headers),
    body: (await request.bytes()).toHex(),
  };
}

const app = async (request: Request) => Response.json(await summarize(request));

const CHARS = "abcXYZ019-._~!$&'()*+,;=:@";
const hex = (byte: number) => "%" + byte.toString(16).toUpperCase().padStart(2, "0");
/** Any byte but NUL, which the gateway rejects. */
const byte = fc.integer({ min: 1, max: 255 });
const char = fc.oneof(fc.constantFrom(...CHARS), byte.map(hex));
/** Texts encoded as browsers do. */
const text = fc.string({ unit: "grapheme", maxLength: 6 })
  .map((text) => encodeURIComponent(text.replaceAll("\0", "")));

const paths = (segment: fc.Arbitrary<string>) =>
  fc.array(segment, { maxLength: 5 }).map((segments) => "/" + segments.join("/"))
    // The gateway rejects a decoded "..".
    .filter((path) => !/(^|\/|%2F|%5C|\\)(\.|%2E){2}(\/|%2F|%5C|\\|$)/i.test(path));

const query = fc.oneof(
  fc.constant(""),
  fc.webQueryParameters().map((query) => "?" + query),
  fc.array(fc.oneof(char, fc.constantFrom("?", "/", "'", "%00")), { maxLength: 20 })
    .map((parts) => "?" + parts.join("")),
);

const host = fc.constantFrom(
  "localhost",
  "localhost:8000",
  "example.com",
  "127.0.0.1:1",
  "[::1]:8080",
  "xn--bcher-kva.example",
);

const method = fc.constantFrom(
  "GET",
  "HEAD",
  "POST",
  "PUT",
  "DELETE",
  "OPTIONS",
  "PATCH",
  "purge",
  "M-SEARCH",
);

const name = fc.tuple(
  fc.constantFrom("x-", "accept-", "if-", "sec-fetch-"),
  fc.array(fc.constantFrom(..."abcdefghijklmnopqrstuvwxyz0123456789-"), {
    minLength: 1,
    maxLength: 12,
  }),
).map(([prefix, chars]) => prefix + chars.join(""))
  .filter((name) => name !== "x-");

const values = (value: fc.Arbitrary<string>) =>
  fc.dictionary(
    fc.oneof(
      name,
      fc.constantFrom("cookie", "content-type", "authorization", "referer", "user-agent", "range"),
    ),
    value,
    { maxKeys: 6 },
  );

/** A byte string without control characters, valid in header fields. */
const fieldBytes = fc.array(fc.integer({ min: 0x21, max: 0xff }).filter((code) => code !== 0x7f), {
  minLength: 1,
  maxLength: 40,
}).map((codes) => String.fromCharCode(...codes))
  // Headers would trim white space.
  .filter((value) => value.trim() === value);

/** The byte string of a UTF-8 text. */
const fieldText = fc.string({ unit: "grapheme", minLength: 1, maxLength: 20 })
  // deno-lint-ignore no-control-regex
  .map((text) => text.replace(/[\x00-\x1f\x7f\s]/g, "_"))
  .map((text) => String.fromCharCode(...new TextEncoder().encode(text)));

const body = fc.option(fc.record({
  bytes: fc.uint8Array({ maxLength: 70_000 }),
  length: fc.boolean(),
}));

interface SentRequest {
  method: string;
  url: string;
  headers: Record<string, string>;
  body: { bytes: Uint8Array; length: boolean } | null;
}

const requests = (
  path: fc.Arbitrary<string>,
  value: fc.Arbitrary<string>,
): fc.Arbitrary<SentRequest> =>
  fc.record({
    method,
    url: fc.tuple(host, path, query).map(([host, path, query]) => `http://${host}${path}${query}`),
    headers: values(value),
    body,
  });

/**
 * Sends a request through a gateway and compares it with the one that the application received.
 *
 * @param sendsLength When the transport sends the body's length.
 */
async function assertRoundTrip(
  gateway: Gateway,
  sent: SentRequest,
  sendsLength: "as sent" | "with a body" | "always",
): Promise<void> {
  const { method, url, headers } = sent;
  const body = method === "GET" || method === "HEAD" ? null : sent.body;
  const length = { "content-length": String(body?.bytes.length ?? 0) };
  const request = new Request(url, {
    method,
    headers: { ...headers, ...(body?.length ? length : {}) },
    body: body && new Blob([body.bytes as BlobPart]).stream(),
  });
  const response = await deadline(gateway(request), "a response");
  assertEquals(response.status, 200);
  if (method === "HEAD") return;
  const { url: href } = new Request(url);
  const seen: Summary = await response.json();
  // Some transports send a length even without a body.
  if (sendsLength === "always" && body === null && seen.headers["content-length"] === "0") {
    delete seen.headers["content-length"];
  }
  assertEquals(seen, {
    method,
    url: href,
    headers: {
      host: new URL(href).host,
      ...headers,
      ...(body?.length || (body && sendsLength !== "as sent") ? length : {}),
    },
    body: body === null ? "" : body.bytes.toHex(),
  });
}

const anyPath = paths(
  fc.oneof(text, fc.array(char, { maxLength: 12 }).map((chars) => chars.join(""))),
);

Deno.test("a request arrives unchanged over FastCGI", async () => {
  await using server = serveFastCGI(app, Deno.listen({ hostname: "127.0.0.1", port: 0 }));
  using gateway = fastCGIGateway(`127.0.0.1:${(server.addr as Deno.NetAddr).port}`, {
    needsLength: false,
  });
  await fc.assert(
    fc.asyncProperty(
      requests(anyPath, fieldBytes),
      (sent) => assertRoundTrip(gateway, sent, "as sent"),
    ),
    { numRuns: 150 },
  );
});

Deno.test("a request arrives unchanged over SCGI", async () => {
  await using server = serveSCGI(app, Deno.listen({ hostname: "127.0.0.1", port: 0 }));
  using gateway = scgiGateway(`127.0.0.1:${(server.addr as Deno.NetAddr).port}`);
  await fc.assert(
    fc.asyncProperty(
      requests(anyPath, fieldBytes),
      (sent) => assertRoundTrip(gateway, sent, "always"),
    ),
    { numRuns: 150 },
  );
});

/** Environment variables are texts: bytes that are not UTF-8 are rejected in a path and read as Latin-1 in a field. */
Deno.test("a request arrives unchanged over CGI", async () => {
  const root = Deno.makeTempDirSync({ prefix: "gatehouse" });
  try {
    Deno.chmodSync(root, 0o755);
    const cgi = new URL("../../cgi.ts", import.meta.url);
    Deno.writeTextFileSync(
      `${root}/app.ts`,
      `import { serveCGI } from "${cgi}";
const summarize = ${summarize.toString()};
await serveCGI(async (request) => Response.json(await summarize(request)));`,
    );
    using gateway = cgiGateway({
      script: `${root}/app.ts`,
      permissions: { "/": ["--allow-env"] },
      env: { DENO_DIR: `${root}/cache` },
    });
    await fc.assert(
      fc.asyncProperty(
        requests(paths(text), fieldText),
        (sent) => assertRoundTrip(gateway, sent, "with a body"),
      ),
      { numRuns: 25 },
    );
  } finally {
    await Deno.remove(root, { recursive: true });
  }
});
