/**
 * The undocumented parts of the runtime that Gatehouse reads: each with its reason, the version that it was seen on, its
 * check, and its fallback.
 *
 * @module
 */

import type { Server, Socket } from "node:net";
import { denoOnly } from "./runtime.ts";

/** A stream of node:net's binding: a listening socket or a connection. Methods return 0, or a negative error number. */
export interface StreamHandle {
  /** Called for each connection that waits. A connection that is not accepted here goes on waiting. */
  onconnection?: () => void;
  /** Starts to listen, and to call `onconnection`. */
  listen(backlog: number): number;
  /** Moves the first connection that waits into a handle of the same kind. Fails if there is none. */
  accept(connection: StreamHandle): number;
  /** Takes over a connection's descriptor. */
  open(fd: number): number;
  /** Duplicates the descriptor. Returns -1 if the process has no free one. */
  fdForIpc(): number;
  ref(): void;
  unref(): void;
  close(): void;
}

/** The stream of a TCP socket. For reading and writing it can also have the descriptor of a Unix socket. */
export interface TCPHandle extends StreamHandle {
  /** Makes the connection a resource of Deno's, and returns its id. Throws if there is none. */
  takeStream(): number;
  /** Turns off Nagle's algorithm. */
  setNoDelay(on: boolean): number;
  getpeername(address: Partial<SocketAddress>): number;
  getsockname(address: Partial<SocketAddress>): number;
}

/** What `getpeername()` fills in. */
export interface SocketAddress {
  address: string;
  port: number;
}

/** The runtime's functions to accept connections as `Deno.listen` does. */
export interface NativeSockets {
  /** Opens a listening socket. Returns a negative error number if the descriptor is no socket. */
  openListener(fd: number): StreamHandle | number;
  createTCP(): TCPHandle;
  /** Creates a handle of the same kind as a listening socket's, for one of its connections. */
  createConnection(listener: StreamHandle): StreamHandle;
  /** Creates a socket of node:net. */
  createSocket(connection: StreamHandle): Socket;
  /** Returns the name of a negative error number. */
  errorName(code: number): string;
  /** Reads from a resource. Returns 0 at the end. */
  read(rid: number, buffer: Uint8Array): Promise<number>;
  write(rid: number, bytes: Uint8Array): Promise<number>;
  /** Closes the writing side of a resource. */
  shutdown(rid: number): Promise<void>;
  /** Closes a resource, if it is not closed. */
  tryClose(rid: number): void;
}

type Constructor<Handle> = new (kind: number) => Handle;
type CreateServerHandle = (
  address: null,
  port: null,
  type: null,
  fd: number,
) => StreamHandle | number;
type Binding = (name: string) => { TCP?: Constructor<TCPHandle> };
type Core = Pick<NativeSockets, "read" | "write" | "shutdown" | "tryClose">;

/** The kind of a handle that is a connection. */
const CONNECTION = 0;

/**
 * Returns the functions to accept connections as `Deno.listen` does, or null if the runtime lacks one of them.
 *
 * `Deno.listen` cannot use a descriptor. node:net can, but its streams double the CPU that a request costs, and it
 * accepts without a limit. So this reads:
 *
 * - `net._createServerHandle`, which opens a descriptor for node:net and node:cluster, and the handle's methods.
 * - `process.binding("tcp_wrap").TCP`, whose `takeStream()` Deno calls to pass a connection to a WebSocket.
 * - `Deno[Deno.internal].core`, with which `Deno.Conn` reads and writes.
 *
 * Seen on Deno 2.9.6. Checked: that the functions exist. `NodeSocket` takes its place, and the listener logs this.
 */
export async function nativeSockets(): Promise<NativeSockets | null> {
  const core = denoCore<Core>();
  if (core === undefined) return null;
  // Imported here, as a script that is bundled into one file would otherwise load them for CGI, too.
  const net = await import("node:net");
  const { getSystemErrorName: errorName } = await import("node:util");
  const { _createServerHandle: openHandle } = net as {
    _createServerHandle?: CreateServerHandle;
  };
  const { default: { binding } } = await import("node:process") as {
    default: { binding?: Binding };
  };
  let TCP: Constructor<TCPHandle> | undefined;
  try {
    TCP = binding?.("tcp_wrap").TCP;
  } catch {
    // There is no such binding.
  }
  if (
    openHandle === undefined || TCP === undefined ||
    !has(TCP.prototype, ["listen", "accept", "open", "fdForIpc"]) ||
    !has(TCP.prototype, ["takeStream", "setNoDelay", "getpeername", "getsockname"]) ||
    !has(core, ["read", "write", "shutdown", "tryClose"])
  ) return null;
  return {
    openListener: (fd) => openHandle(null, null, null, fd),
    createTCP: () => new TCP(CONNECTION),
    createConnection: ({ constructor }) =>
      new (constructor as Constructor<StreamHandle>)(CONNECTION),
    createSocket: (handle) =>
      new net.Socket({ handle, allowHalfOpen: true, pauseOnCreate: true } as never),
    errorName,
    read: core.read,
    write: core.write,
    shutdown: core.shutdown,
    tryClose: core.tryClose,
  };
}

/** Returns the core that Deno's own modules use, or undefined if there is none. */
function denoCore<T>(): T | undefined {
  const { Deno } = globalThis as { Deno?: Record<symbol, { core?: T } | undefined> };
  const { internal } = (Deno ?? {}) as { internal?: symbol };
  return internal === undefined ? undefined : Deno?.[internal]?.core;
}

function has<T extends object>(object: T | undefined, methods: (keyof T)[]): object is T {
  return object !== undefined && methods.every((name) => typeof object[name] === "function");
}

/** A frame of an error's stack, as V8 has it. */
export interface RuntimeFrame {
  typeName: string | null;
  functionName: string | null;
  fileName: string | null;
  lineNumber: number | null;
  columnNumber: number | null;
  isToplevel: boolean;
  isConstructor: boolean;
  isAsync: boolean;
}

interface Destructured {
  frames: RuntimeFrame[];
  /** Whether the app has replaced the stack. */
  stackIsCustom: boolean;
}

/**
 * Returns the frames of an error's stack, or undefined if the runtime does not have them or the app has replaced the
 * stack. In the text of a stack, a line of the error's message could be a frame.
 *
 * Reads `Deno[Deno.internal].core.destructureError`, with which Deno prints errors. Seen on Deno 2.9.6. Checked: that an
 * error of this function has a frame in this file.
 */
export function runtimeFrames(error: unknown): RuntimeFrame[] | undefined {
  const destructure = denoCore<{ destructureError?(error: unknown): Destructured }>()
    ?.destructureError;
  try {
    const [own] = destructure?.(new Error("own")).frames ?? [];
    if (own?.fileName !== import.meta.url || typeof own.lineNumber !== "number") return undefined;
    const { frames, stackIsCustom } = destructure!(error);
    return stackIsCustom ? undefined : frames;
  } catch {
    return undefined;
  }
}

/**
 * Duplicates the descriptor of a listening server, by a method of its handle. Returns -1 if the process has no free
 * descriptor, and undefined if there is no such method: an inherited socket then has no limit on what it accepts,
 * and accepts nothing once descriptors have run out; and a socket cannot be shared by several processes.
 *
 * Seen on Deno 2.9.6.
 */
export function duplicateDescriptor(server: Server): number | undefined {
  const { _handle: handle } = server as { _handle?: Partial<StreamHandle> | null };
  return handle?.fdForIpc?.();
}

/**
 * The length of the first part of a body that is in memory, where its stream has two parts: on Bun. Its type and length are
 * found all the same if these are joined. Seen on Bun 1.4.5.
 */
export const FIRST_PART: number = denoOnly === undefined && navigator.userAgent.startsWith("Bun/")
  ? 16_384
  : NaN;

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

/** Deno's own classes: an app or a test may replace the global ones. */
const { Response, Request } = globalThis;

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
export const TESTED_VERSIONS: readonly string[] = [
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
 * the fields are missing or fail the self-check. Seen on Deno 2.9.0 to 2.9.6.
 *
 * @param once Whether it is the process's only response, for which the self-check costs too much: the fields are then
 * read on the versions of Deno in {@linkcode TESTED_VERSIONS} only.
 */
export function bufferedResponse(response: unknown, once = false): BufferedResponse | undefined {
  if (typeof response !== "object" || response === null) return undefined;
  if (keys === undefined) {
    if (once && !TESTED_VERSIONS.includes(navigator.userAgent)) return undefined;
    keys = findKeys();
    if (keys !== null && !once && !passSelfCheck(keys)) keys = null;
  }
  return keys === null ? undefined : readFields(response, keys);
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
 * no longer true and `Deno.serve` drops them. Reads a private field, as no public property shows this; returns false if
 * it is missing. Seen on Deno 2.9.6.
 */
export function isBodyDecoded(response: Response): boolean {
  const key = keyOf(response, INNER);
  return key !== undefined &&
    (response as unknown as Record<symbol, Inner>)[key]?.bodyDecoded === true;
}

/** Returns the runtime's getter of a property of requests. A library may have put a subclass in the place of `Request`. */
export function requestGetter(key: keyof Request): () => unknown {
  let prototype = Request.prototype;
  while (!Object.hasOwn(prototype, key)) prototype = Object.getPrototypeOf(prototype);
  return Reflect.getOwnPropertyDescriptor(prototype, key)!.get!;
}

/** The runtime's getter: an app may put another signal in its place. */
const getSignal = requestGetter("signal") as () => AbortSignal;

/** The field in which Deno keeps the signal of a request once it was read; null if there is no such field. */
let signalKey: symbol | null | undefined;

/** Returns the signal that a request was created with, whatever an app has put in its place. */
export function nativeSignal(request: Request): AbortSignal {
  return getSignal.call(request);
}

/**
 * Returns whether the client of a request from `Deno.serve` has left, as far as Deno knows: it looks once the signal was
 * read. Does not read a signal that nothing else has read, as each response then aborts it, which costs more than the
 * rest of a small request. Reads a private field for that; reads the signal if the field is missing or, in a sample, does
 * not have it. Seen on Deno 2.9.6.
 */
export function hasLeft(request: Request): boolean {
  if (signalKey === undefined) signalKey = findSignalKey();
  if (signalKey !== null && Reflect.get(request, signalKey) === undefined) return false;
  return nativeSignal(request).aborted;
}

function findSignalKey(): symbol | null {
  const sample = new Request("http://localhost/");
  const found = keyOf(sample, "signalCache");
  if (found === undefined || Reflect.get(sample, found) !== undefined) return null;
  const signal = nativeSignal(sample);
  return Reflect.get(sample, found) === signal ? found : null;
}

/**
 * Returns whether Deno accepts a proxy as a Request: it keeps the fields under symbols, not `#names`. Tests this without
 * creating a Request, which a CGI script may never need. Seen on Deno 2.9.6.
 */
export function acceptsProxy(): boolean {
  // The getter of `url` reads two fields, the brand and the URL: each is a symbol, and this proxy returns the symbol.
  const proxy = new Proxy(Object.create(Request.prototype), { get: (_target, key) => key });
  try {
    return typeof Reflect.get(Request.prototype, "url", proxy) === "symbol";
  } catch {
    return false;
  }
}

/** `Deno.inspect`. */
export type Inspect = (value: unknown, options?: object) => string;

/**
 * Formats a request by the method that `console.log()` calls on Deno's own. Returns undefined if there is none. Seen on
 * Deno 2.9.6.
 */
export function inspectNatively(
  request: Request,
  inspect: Inspect,
  options: object,
): unknown {
  const show = Reflect.get(Request.prototype, Symbol.for("Deno.privateCustomInspect"));
  return typeof show === "function" ? show.call(request, inspect, options) : undefined;
}

/** The private field of a stream that says whether it was read from. Undefined if Deno has no such field. */
let disturbedKey: symbol | undefined;

/**
 * Returns whether a stream was read from or cancelled. Reads a private field, as a stream calls its `pull` only in
 * the turn after its creation, and no public function reports a read before that. Returns false if the field is
 * missing. Seen on Deno 2.9.6.
 */
export function isDisturbed(stream: ReadableStream): boolean {
  disturbedKey ??= keyOf(stream, "[[disturbed]]");
  return disturbedKey !== undefined && Reflect.get(stream, disturbedKey) === true;
}

/** The private field of `Headers` that says who may change them. Undefined if Deno has no such field. */
let guardKey: symbol | undefined;

/**
 * Sets who may change headers: nobody, as with those of a request from `Deno.serve`, or everybody. Sets a private
 * field, as no public function does this. Seen on Deno 2.9.6.
 *
 * @returns Whether the guard is set. It is not if this version of Deno lacks the field.
 */
export function setGuard(headers: Headers, guard: "immutable" | "request"): boolean {
  guardKey ??= keyOf(headers, "guard");
  return guardKey !== undefined && Reflect.set(headers, guardKey, guard);
}

/** The private field of `Headers` that has the names and values. Null if Deno has no such field, or another one. */
let fieldsKey: symbol | null | undefined;

/**
 * Returns the names and values of headers, neither sorted nor joined, and with names as they were given. A pair that is
 * added to the list is added to the headers, unchecked. Reads a private field, as `append()` and `forEach()` cost more than the rest of
 * a request with many fields. Returns undefined if the field is missing or, in a sample, does not do this; and for
 * headers that do not have all of their fields yet. Seen on Deno 2.9.6.
 */
export function fieldList(headers: Headers): [name: string, value: string][] | undefined {
  if (fieldsKey === undefined) fieldsKey = findFieldsKey();
  if (fieldsKey === null) return undefined;
  return (headers as unknown as Record<symbol, [string, string][] | null>)[fieldsKey] ?? undefined;
}

function findFieldsKey(): symbol | null {
  const sample = new Headers([["X-A", "1"]]);
  const key = keyOf(sample, "header list");
  if (key === undefined) return null;
  const list: unknown = Reflect.get(sample, key);
  if (!Array.isArray(list)) return null;
  const found = JSON.stringify(list);
  list.push(["x-b", "2"], ["x-a", "3"]);
  sample.append("x-B", "4");
  const seen = JSON.stringify([...sample, sample.get("X-b"), sample.has("x-a")]);
  return found === '[["X-A","1"]]' && seen === '[["x-a","1, 3"],["x-b","2, 4"],"2, 4",true]'
    ? key
    : null;
}

/** The private fields of a request: what Deno keeps of it, and its headers once they were read. Null without them. */
let requestKeys: { inner: symbol; headers: symbol } | null | undefined;

/**
 * Returns a header field of a request from `Deno.serve`, without `request.headers`: once these were read, Deno lists all
 * fields of the request and makes a promise of its response, which costs half of a small request. Reads private fields,
 * and does what `headers.get()` does if there is none of them, or no function in it. Seen on Deno 2.9.6.
 *
 * @param name The field's name, in lower case.
 */
export function requestField(request: Request, name: string): string | null {
  if (requestKeys === undefined) requestKeys = findRequestKeys();
  if (requestKeys !== null) {
    const fields = request as unknown as Record<symbol, unknown>;
    if (fields[requestKeys.headers] === undefined) {
      const inner = fields[requestKeys.inner] as { header?(name: string): unknown } | undefined;
      const value = typeof inner?.header === "function" ? inner.header(name) : undefined;
      if (typeof value === "string" || value === null) return value;
    }
  }
  return request.headers.get(name);
}

function findRequestKeys(): { inner: symbol; headers: symbol } | null {
  const sample = new Request("http://localhost/");
  const { headers } = sample;
  const inner = keyOf(sample, "request");
  const cache = keyOf(sample, "headers cache");
  if (inner === undefined || cache === undefined) return null;
  return Reflect.get(sample, cache) === headers ? { inner, headers: cache } : null;
}

/** Returns the key of a private field, by the description that Deno gives it. */
function keyOf(object: object, description: string): symbol | undefined {
  return Object.getOwnPropertySymbols(object).find((key) => key.description === description);
}

/**
 * Whether an API of OpenTelemetry is registered, as Deno does when it starts with OTEL_DENO=true. The public variable
 * needs a permission. Seen on Deno 2.9.6.
 */
export const TRACED: boolean = denoOnly !== undefined &&
  Symbol.for("opentelemetry.js.api.1") in globalThis;
