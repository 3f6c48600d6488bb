/** What of a response's body is held in memory. */
export type HeldBody = string | Uint8Array;

interface Inner {
  body?: { streamOrStatic?: { body?: unknown; consumed?: unknown } } | null;
}

/** Where Deno keeps bodies that nobody has asked for as streams. */
interface Keys {
  /** Of a response: its text, as long as it is nothing but that. */
  text: symbol;
  /** Of a response: what is behind it. */
  inner: symbol;
}

let keys: Keys | null | undefined;

/**
 * The body of a response that is held in memory and unread, if that can be told without making a stream of it: to make
 * one and read it takes longer than all else that is done to send a small answer. It is found where Deno keeps it, which
 * no specification says: where it is not found there, or not as it should be, the answer is undefined, and the stream
 * has to be read.
 */
export function heldBody(response: Response): HeldBody | undefined {
  if (keys === undefined) keys = findKeys();
  return keys === null ? undefined : look(response, keys);
}

function look(response: Response, { text, inner }: Keys): HeldBody | undefined {
  const fields = response as unknown as Record<symbol, unknown>;
  const lazy = fields[text];
  if (typeof lazy === "string") return lazy;
  const held = (fields[inner] as Inner | undefined)?.body?.streamOrStatic;
  if (held?.consumed !== false) return undefined;
  const { body } = held;
  return typeof body === "string" || body instanceof Uint8Array ? body : undefined;
}

/** Finds the keys in responses made for it, and sees that they tell what they should. */
function findKeys(): Keys | null {
  const find = (description: string) =>
    Object.getOwnPropertySymbols(new Response("x")).find((key) => key.description === description);
  const text = find("lazy static body");
  const inner = find("response");
  if (text === undefined || inner === undefined) return null;
  const found = { text, inner };
  const makers = [() => new Response("held"), () => new Response("held", { status: 201 })];
  const right = makers.every((make) => {
    const [unread, asked, read] = [make(), make(), make()];
    const stream = asked.body;
    read.text();
    return look(unread, found) === "held" && stream !== null &&
      look(asked, found) === undefined && look(read, found) === undefined;
  });
  return right ? found : null;
}
