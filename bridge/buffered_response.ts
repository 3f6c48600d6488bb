/** What can be told of a response whose body is held in memory. */
export interface BufferedResponse {
  /** Its body, unread. */
  body: string | Uint8Array;
  /**
   * The type, or null for none, of one that has status 200 and no other header; undefined if its status and headers must
   * be asked for.
   */
  contentType: string | null | undefined;
}

interface Inner {
  statusMessage?: unknown;
  bodyDecoded?: unknown;
  body?: { streamOrStatic?: { body?: unknown; consumed?: unknown } } | null;
}

/** The class as Deno has made it: an app or a test may replace the global one. */
const { Response } = globalThis;

/** Where Deno keeps what it has not made a stream or headers of. */
interface Keys {
  /** What is behind a response. */
  inner: symbol;
  /** Its text, as long as it is nothing but that. */
  text: symbol;
  /** Whether it was sent. */
  sent: symbol;
  /** Of one that has at most a type, and whose headers nobody has asked for: 200, else 0. */
  status: symbol;
  /** How its type is told. */
  kind: symbol;
  /** Its type. */
  type: symbol;
}

/** What Deno calls the key of what is behind a response. */
const INNER = "response";

/** How a type is told. */
const NONE = 0;
const PLAIN_TEXT = 1;
const GIVEN = 2;

/** The versions of Deno that the tests have run on. */
export const TRIED: readonly string[] = [
  "Deno/2.9.0",
  "Deno/2.9.1",
  "Deno/2.9.2",
  "Deno/2.9.3",
  "Deno/2.9.4",
  "Deno/2.9.5",
  "Deno/2.9.6",
];

let keys: Keys | null | undefined;

/**
 * What can be told of a response without making a stream of its body, or headers: to make these and read them takes longer
 * than all else that is done to send a small answer. It is found where Deno keeps it for its own server, which no
 * specification says: where it is not found there, or not as it should be, the answer is undefined, and the response has
 * to be asked.
 *
 * @param once Whether it is the only response, for which it does not pay to see that what is found is right: then only
 * versions of Deno that have been tried count.
 */
export function bufferedResponse(response: unknown, once = false): BufferedResponse | undefined {
  if (typeof response !== "object" || response === null) return undefined;
  if (keys === undefined) {
    if (once && !TRIED.includes(navigator.userAgent)) return undefined;
    keys = findKeys();
    if (keys !== null && !once && !areRight(keys)) keys = null;
  }
  return keys === null ? undefined : look(response, keys);
}

/**
 * Marks a held response as sent, as `Deno.serve` does: its body counts as read, and it cannot be sent again.
 *
 * @param response One that {@linkcode bufferedResponse} knows.
 */
export function markSent(response: Response): void {
  (response as unknown as Record<symbol, unknown>)[keys!.sent] = true;
}

/**
 * Reads a property of a response as `Deno.serve` does: what a subclass or a property of the response's own says instead
 * does not count.
 *
 * @throws {TypeError} If Deno has not made the response.
 */
export function readNative<Key extends keyof Response>(
  response: Response,
  key: Key,
): Response[Key] {
  return Reflect.get(Response.prototype, key, response);
}

function look(response: object, keys: Keys): BufferedResponse | undefined {
  const fields = response as Record<symbol, unknown>;
  if (fields[keys.sent] === true) return undefined;
  const inner = fields[keys.inner] as Inner | undefined;
  let body = fields[keys.text];
  if (typeof body !== "string") {
    const found = inner?.body?.streamOrStatic;
    if (found?.consumed !== false) return undefined;
    body = found.body;
    if (typeof body !== "string" && !(body instanceof Uint8Array)) return undefined;
  }
  let contentType: unknown;
  if (fields[keys.status] === 200 && inner?.statusMessage === "") {
    const kind = fields[keys.kind];
    if (kind === PLAIN_TEXT) contentType = "text/plain;charset=UTF-8";
    else if (kind === NONE) contentType = null;
    else if (kind === GIVEN) contentType = fields[keys.type];
  }
  return { body, contentType } as BufferedResponse;
}

/** Finds the keys in a response; a version of Deno that lacks one tells less. */
function findKeys(): Keys | null {
  const found: Record<string, symbol> = {};
  for (const key of Object.getOwnPropertySymbols(new Response("x"))) found[key.description!] = key;
  const inner = found[INNER];
  const sent = found["serve fast consumed"];
  return inner === undefined || sent === undefined ? null : {
    inner,
    sent,
    text: found["lazy static body"] ?? Symbol(),
    status: found["serve fast status"] ?? Symbol(),
    kind: found["serve fast header kind"] ?? Symbol(),
    type: found["serve fast content type"] ?? Symbol(),
  };
}

/** Sees in responses of its own that what the keys tell is right. */
function areRight(keys: Keys): boolean {
  const tells = (response: Response, contentType?: string) => {
    const found = look(response, keys);
    return found?.body === "held" &&
      (found.contentType === undefined || found.contentType === contentType);
  };
  const makers: [make: () => Response, contentType?: string][] = [
    [() => new Response("held"), "text/plain;charset=UTF-8"],
    [() => new Response("held", { headers: { "content-type": "a/b" } }), "a/b"],
    [() => new Response("held", { headers: { "content-type": "a/b", "x-c": "d" } })],
    [() => new Response("held", { status: 201 })],
    [() => new Response("held", { statusText: "Fine" })],
  ];
  return makers.every(([make, contentType]) => {
    const [unread, changed, asked, read, sent] = [make(), make(), make(), make(), make()];
    changed.headers.set("x-a", "b");
    const stream = asked.body;
    read.text();
    (sent as unknown as Record<symbol, unknown>)[keys.sent] = true;
    return tells(unread, contentType) && tells(changed) && stream !== null && sent.bodyUsed &&
      [asked, read, sent].every((response) => look(response, keys) === undefined);
  });
}

/**
 * Whether `fetch` has decoded the body of a response whose headers still tell of the encoding. `Deno.serve` then leaves
 * out `content-encoding` and `content-length`, of which they are no longer true. No public property says so.
 */
export function isBodyDecoded(response: Response): boolean {
  const key = Object.getOwnPropertySymbols(response).find((key) => key.description === INNER);
  return key !== undefined &&
    (response as unknown as Record<symbol, Inner>)[key]?.bodyDecoded === true;
}
