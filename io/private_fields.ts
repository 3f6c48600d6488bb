/**
 * What Gatehouse reads of the runtime's own objects, all of it undocumented: each with its reason, the version that it
 * was seen on, its check, and what takes its place.
 *
 * @module
 */

import type { Server } from "node:net";

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

/** What it takes to accept connections as `Deno.listen` does. */
export interface NativeSockets {
  /** Opens a listening socket. Returns a negative error number if the descriptor is no socket. */
  openListener(fd: number): StreamHandle | number;
  createTCP(): TCPHandle;
  /** Creates a handle of the same kind as a listening socket's, for one of its connections. */
  createConnection(listener: StreamHandle): StreamHandle;
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
 * Returns what it takes to accept connections as `Deno.listen` does, or null if the runtime lacks some of it.
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
  const { _createServerHandle: openHandle } = await import("node:net") as {
    _createServerHandle?: CreateServerHandle;
  };
  const { default: { binding } } = await import("node:process") as {
    default: { binding?: Binding };
  };
  const core = denoCore<Core>();
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
    read: core.read,
    write: core.write,
    shutdown: core.shutdown,
    tryClose: core.tryClose,
  };
}

/** Returns what Deno's own modules are made of, if it is there. */
function denoCore<T>(): T | undefined {
  const { internal } = Deno as { internal?: symbol };
  if (internal === undefined) return undefined;
  return (Deno as unknown as Record<symbol, { core?: T } | undefined>)[internal]?.core;
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
 * descriptor, and undefined if there is no such method: the server then accepts without a limit, and once descriptors
 * have run out it stays deaf.
 *
 * Seen on Deno 2.9.6.
 */
export function duplicateDescriptor(server: Server): number | undefined {
  const { _handle: handle } = server as { _handle?: Partial<StreamHandle> | null };
  return handle?.fdForIpc?.();
}
