/**
 * Request smuggling: requests whose end is ambiguous, and a second request that may be taken for part of the first or
 * for one of its own. Whatever a web server makes of them, the app must see the requests that got responses, and no others.
 */
import { assert, assertEquals } from "@std/assert";
import type { App } from "../../bridge/app.ts";
import { bytes, text } from "./bytes.ts";

/** How long a web server that waits for more of a request is given, in milliseconds. */
const PATIENCE = 2500;

/** A request that is ambiguous. */
interface Case {
  /** The bytes to send. The first request is to `/a-N`, the second to `/b-N`. */
  raw(number: number): string;
  /** The bodies that the first request may have, if it is not rejected. */
  bodies(number: number): string[];
  /** Whether a second request may be seen: its bytes are not the body of the first. */
  second: boolean;
}

/** The request that may be smuggled. */
const other = (number: number) =>
  `GET /b-${number} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n`;
const post = (number: number, fields: string[], body: string, version = "1.1") =>
  [`POST /a-${number} HTTP/${version}`, "Host: localhost", ...fields, "", body].join("\r\n");
const chunked = (content: string) => `${content.length.toString(16)}\r\n${content}\r\n0\r\n\r\n`;
const END = "0\r\n\r\n";
const CLOSE = "Connection: close";

/** A request with these fields, a body of its own, and behind it the other request. */
const followed = (fields: string[], body: string, ...bodies: string[]): Case => ({
  raw: (number) => post(number, fields, body + other(number)),
  bodies: () => bodies,
  second: true,
});
/** A request that has no valid end: both requests are rejected, or the second is part of the first. */
const invalid = (fields: string[], body = ""): Case => ({
  raw: (number) => post(number, fields, body + other(number)),
  bodies: () => [],
  second: false,
});
/** A request whose length covers the other request. */
const covering = (...fields: string[]): Case => ({
  raw: (number) => {
    const body = END + other(number);
    return post(number, [`Content-Length: ${body.length}`, ...fields], body);
  },
  // With chunked coding the body is empty, and the other request one of its own.
  bodies: (number) => ["", END + other(number)],
  second: true,
});

export const CASES: Record<string, Case> = {
  "two plain requests": followed(["Content-Length: 5"], "hello", "hello"),
  "Content-Length, then chunked": covering("Transfer-Encoding: chunked"),
  "chunked, then a short Content-Length": {
    raw: (number) =>
      post(
        number,
        ["Transfer-Encoding: chunked", "Content-Length: 4", CLOSE],
        chunked(other(number)),
      ),
    bodies: (number) => [other(number)],
    second: false,
  },
  "two lengths": invalid(["Content-Length: 0", "Content-Length: 63"]),
  "two lengths, the longer first": invalid(["Content-Length: 63", "Content-Length: 0"]),
  "the same length twice": followed(
    ["Content-Length: 5", "Content-Length: 5"],
    "hello",
    "hello",
  ),
  "a list of lengths": followed(["Content-Length: 5, 5"], "hello", "hello"),
  "a list of two lengths": invalid(["Content-Length: 5, 6"], "hello"),
  "a length with a plus": followed(["Content-Length: +5"], "hello", "hello"),
  "a negative length": invalid(["Content-Length: -1"]),
  "a length in hexadecimal": invalid(["Content-Length: 0x5"], "hello"),
  "a length with a fraction": invalid(["Content-Length: 5.0"], "hello"),
  "a length of two numbers": invalid(["Content-Length: 5 5"], "hello"),
  "a length beyond 64 bits": invalid(["Content-Length: 18446744073709551621"], "hello"),
  "no length": invalid(["Content-Length:"]),
  "a length with blanks before the colon": invalid(["Content-Length : 5"], "hello"),
  "a length after a blank": followed(["Content-Length: \t 5 \t"], "hello", "hello"),
  "an unknown coding": followed(
    ["Transfer-Encoding: xchunked", "Content-Length: 5"],
    "hello",
    "hello",
  ),
  "chunked with a blank before the colon": covering("Transfer-Encoding : chunked"),
  "chunked after a tab": covering("Transfer-Encoding:\tchunked"),
  "chunked after a vertical tab": covering("Transfer-Encoding: \x0bchunked"),
  "chunked in quotes": covering('Transfer-Encoding: "chunked"'),
  "chunked in capitals": covering("TRANSFER-ENCODING: CHUNKED"),
  "chunked, then identity": covering("Transfer-Encoding: chunked", "Transfer-Encoding: identity"),
  "identity, then chunked": covering("Transfer-Encoding: identity", "Transfer-Encoding: chunked"),
  "chunked twice": covering("Transfer-Encoding: chunked, chunked"),
  "chunked in a folded line": covering("Transfer-Encoding:\r\n chunked"),
  "chunked in the fold of another field": covering("X-Other: a\r\n Transfer-Encoding: chunked"),
  "chunked after a bare CR": covering("X-Other: a\rTransfer-Encoding: chunked"),
  "chunked after a bare LF": covering("X-Other: a\nTransfer-Encoding: chunked"),
  "chunked after a NUL": covering("X-Other: a\0", "Transfer-Encoding: chunked"),
  "chunked with an underscore": covering("Transfer_Encoding: chunked"),
  "chunked under HTTP/1.0": {
    raw: (number) =>
      post(number, ["Transfer-Encoding: chunked"], chunked("hello") + other(number), "1.0"),
    bodies: () => ["", "hello"],
    second: true,
  },
  "a chunk size with 0x": invalid(["Transfer-Encoding: chunked"], "0x5\r\nhello\r\n" + END),
  "a negative chunk size": invalid(["Transfer-Encoding: chunked"], "-5\r\nhello\r\n" + END),
  "a chunk size beyond 64 bits": invalid(
    ["Transfer-Encoding: chunked"],
    "10000000000000005\r\nhello\r\n" + END,
  ),
  "a chunk longer than its size": invalid(
    ["Transfer-Encoding: chunked"],
    "3\r\nhello\r\n" + END,
  ),
  "a chunk size that ends in LF": followed(
    ["Transfer-Encoding: chunked"],
    "5\nhello\r\n" + END,
    "hello",
  ),
  "a chunk extension with a bare LF": followed(
    ["Transfer-Encoding: chunked"],
    "5;a\nhello\r\n" + END,
    "hello",
  ),
  "a trailer with a length": followed(
    ["Transfer-Encoding: chunked"],
    "5\r\nhello\r\n0\r\nContent-Length: 63\r\n\r\n",
    "hello",
  ),
  "a GET with a body": {
    raw: (number) => {
      const length = other(number).length;
      const fields = ["Host: localhost", `Content-Length: ${length}`, CLOSE];
      return [`GET /a-${number} HTTP/1.1`, ...fields, "", other(number)].join("\r\n");
    },
    bodies: (number) => ["", other(number)],
    second: false,
  },
  "lines that end in LF": {
    raw: (number) =>
      post(number, ["Content-Length: 5"], "hello" + other(number)).replaceAll("\r\n", "\n"),
    bodies: () => ["hello"],
    second: true,
  },
  "two hosts": followed(["Host: example.org", "Content-Length: 5"], "hello", "hello"),
};

/** A request as the app has seen it. */
interface Seen {
  path: string;
  /** Undefined if it did not arrive whole. */
  body: string | undefined;
}

/** An app that remembers the requests that it has seen, and responds with them. */
export class Observer {
  readonly seen: Seen[] = [];

  readonly app: App = async (request) => {
    const { pathname } = new URL(request.url);
    const one: Seen = { path: pathname, body: undefined };
    this.seen.push(one);
    one.body = text(await request.bytes());
    return new Response(`<${pathname} ${one.body.length}>`);
  };
}

/** Reads to the end of a connection, or until a web server has waited long enough for more of a request. */
async function exchange(port: number, raw: string): Promise<string> {
  const conn = await Deno.connect({ hostname: "127.0.0.1", port });
  const timer = setTimeout(() => conn.close(), PATIENCE);
  let received = "";
  try {
    const all = bytes(raw);
    for (let at = 0; at < all.length;) at += await conn.write(all.subarray(at));
    const buffer = new Uint8Array(65_536);
    for (let count; (count = await conn.read(buffer)) !== null;) {
      received += text(buffer.subarray(0, count));
    }
    conn.close();
  } catch {
    // The web server or the timer has closed it.
  }
  clearTimeout(timer);
  return received;
}

/**
 * Sends all cases to a web server.
 *
 * @param port Where it listens.
 * @param observer The app behind it.
 * @param allowed What the web server does by itself, by the name of the case: bodies that it passes on all the same.
 * @returns The faults, by the name of the case.
 */
export async function smuggle(
  port: number,
  observer: Observer,
  allowed: Record<string, (number: number) => string[]> = {},
): Promise<string[]> {
  const wrong: string[] = [];
  await Promise.all(
    Object.entries(CASES).map(async ([name, { raw, bodies, second }], number) => {
      const received = await exchange(port, raw(number));
      const of = (letter: string) =>
        observer.seen.filter(({ path }) => path === `/${letter}-${number}`);
      const [first, others] = [of("a"), of("b")];
      try {
        assert(first.length <= 1 && others.length <= 1, "each is seen once");
        const mayBe = [...bodies(number), ...allowed[name]?.(number) ?? []];
        for (const { body } of first) {
          // One that did not arrive whole was not responded to.
          if (body === undefined) continue;
          assert(mayBe.includes(body), `the body is ${JSON.stringify(body)}`);
        }
        if (others.length > 0) {
          assert(second || name in allowed, "the other request is part of the first");
          assertEquals(others[0].body, "");
          // It is seen once: as a body or as a request.
          assert(!first[0]?.body?.includes(`/b-${number} `), "the other request is seen twice");
        }
        const whole = [...first, ...others].filter(({ body }) => body !== undefined);
        // A web server may close the connection instead, but never responds with what is of another request.
        const responses = [...received.matchAll(/<(\/[ab]-\d+) (\d+)>/g)];
        assert(responses.length <= whole.length, "a response to no request");
        for (const [i, [, path, length]] of responses.entries()) {
          assertEquals([path, Number(length)], [whole[i].path, whole[i].body!.length]);
        }
      } catch (error) {
        wrong.push(`${name}: ${(error as Error).message}`);
      }
    }),
  );
  const paths = Object.keys(CASES).flatMap((_, number) => [`/a-${number}`, `/b-${number}`]);
  for (const { path } of observer.seen) {
    if (!paths.includes(path)) wrong.push(`a request to ${path} was seen`);
  }
  return wrong;
}
