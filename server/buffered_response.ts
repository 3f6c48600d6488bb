/** A response whose body is in memory. */
export interface BufferedResponse {
  /** The unread body. */
  body: string | Uint8Array;
  /**
   * The type, or null for none, if the response has status 200 and no other header. Undefined if its status and
   * headers must be read.
   */
  contentType: string | null | undefined;
}

interface Inner {
  statusMessage?: unknown;
  bodyDecoded?: unknown;
  body?: { streamOrStatic?: { body?: unknown; consumed?: unknown } } | null;
}

/** Deno's own class: an app or a test may replace the global one. */
const { Response } = globalThis;

/** The symbols of the private fields in which Deno keeps a response before it creates its stream or Headers. */
interface Keys {
  /** The inner response. */
  inner: symbol;
  /** The body, if it is a text that nothing has read. */
  text: symbol;
  /** Whether the response was sent. */
  sent: symbol;
  /** 200 if that is the status, there is no header but a type, and the headers were not read. Else 0. */
  status: symbol;
  /** The kind of the type, one of the constants below. */
  kind: symbol;
  /** The type, if it is explicit. */
  type: symbol;
}

/** Deno's description of the key of the inner response. */
const INNER = "response";

/** Kinds of type: none, that of a text, an explicit one. */
const NONE = 0;
const PLAIN_TEXT = 1;
const EXPLICIT = 2;

/** The versions of Deno that the tests have passed on. */
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
 * Returns a response's body and type without creating its stream or Headers, which cost more than the rest of a small
 * response. Reads private fields that `Deno.serve` itself uses. Returns undefined if the body is not in memory, or if
 * the fields are missing or fail the self-check.
 *
 * @param once Whether it is the process's only response, for which the self-check costs too much: the fields are then
 * read on the versions of Deno in {@linkcode TRIED} only.
 */
export function bufferedResponse(response: unknown, once = false): BufferedResponse | undefined {
  if (typeof response !== "object" || response === null) return undefined;
  if (keys === undefined) {
    if (once && !TRIED.includes(navigator.userAgent)) return undefined;
    keys = findKeys();
    if (keys !== null && !once && !passSelfCheck(keys)) keys = null;
  }
  return keys === null ? undefined : readFields(response, keys);
}

/** Returns the length of a response's body in bytes, or undefined if it is not known before the body is sent. */
export function bodyLength(response: Response): number | undefined {
  const body = bufferedResponse(response)?.body;
  if (typeof body === "string") return new TextEncoder().encode(body).length;
  if (body !== undefined) return body.length;
  if (response.body === null) return 0;
  if (isBodyDecoded(response)) return undefined;
  const length = response.headers.get("content-length");
  return length === null ? undefined : Number(length);
}

/**
 * Marks a response as sent, as `Deno.serve` does: its body counts as read, and it cannot be sent again.
 *
 * @param response A response that {@linkcode bufferedResponse} accepted.
 */
export function markSent(response: Response): void {
  (response as unknown as Record<symbol, unknown>)[keys!.sent] = true;
}

/**
 * Reads a property of a response as `Deno.serve` does: ignores what a subclass or the app has put in its place.
 *
 * @throws {TypeError} If the object is not Deno's own `Response`.
 */
export function readNative<Key extends keyof Response>(
  response: Response,
  key: Key,
): Response[Key] {
  return Reflect.get(Response.prototype, key, response);
}

function readFields(response: object, keys: Keys): BufferedResponse | undefined {
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
    else if (kind === EXPLICIT) contentType = fields[keys.type];
  }
  return { body, contentType } as BufferedResponse;
}

/** Finds the keys in a response. Returns null if a required one is missing; without another the fields show less. */
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

/** Returns whether the fields of sample responses have the expected values, before and after each kind of use. */
function passSelfCheck(keys: Keys): boolean {
  const matches = (response: Response, contentType?: string) => {
    const found = readFields(response, keys);
    return found?.body === "text" &&
      (found.contentType === undefined || found.contentType === contentType);
  };
  const samples: [make: () => Response, contentType?: string][] = [
    [() => new Response("text"), "text/plain;charset=UTF-8"],
    [() => new Response("text", { headers: { "content-type": "a/b" } }), "a/b"],
    [() => new Response("text", { headers: { "content-type": "a/b", "x-c": "d" } })],
    [() => new Response("text", { status: 201 })],
    [() => new Response("text", { statusText: "Fine" })],
  ];
  return samples.every(([make, contentType]) => {
    const [unread, changed, streamed, read, sent] = [make(), make(), make(), make(), make()];
    changed.headers.set("x-a", "b");
    const stream = streamed.body;
    read.text();
    (sent as unknown as Record<symbol, unknown>)[keys.sent] = true;
    return matches(unread, contentType) && matches(changed) && stream !== null && sent.bodyUsed &&
      [streamed, read, sent].every((response) => readFields(response, keys) === undefined);
  });
}

/**
 * Returns whether `fetch` has decoded the body of a response, so that its `content-encoding` and `content-length` are
 * no longer true and `Deno.serve` drops them. Reads a private field, as no public property shows this.
 */
export function isBodyDecoded(response: Response): boolean {
  const key = Object.getOwnPropertySymbols(response).find((key) => key.description === INNER);
  return key !== undefined &&
    (response as unknown as Record<symbol, Inner>)[key]?.bodyDecoded === true;
}
