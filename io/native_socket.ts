import type { Duplex } from "./duplex.ts";
import { inheritedBacklog, type ListeningSocket } from "./listening_socket.ts";
import { NodeConnection } from "./node_socket.ts";
import type { NativeSockets, SocketAddress, StreamHandle, TCPHandle } from "./private_fields.ts";
import type { Addr } from "./addr.ts";

/**
 * A listening socket whose connections cost what those of `Deno.listen` do. The runtime accepts up to 128 connections at
 * a time, then waits until the last of them is taken.
 */
export class NativeSocket implements ListeningSocket {
  readonly addr: Addr;
  #native: NativeSockets;
  /** Has the descriptor, and never listens: a handle cannot listen again, but one of a duplicate can. */
  #source: StreamHandle;
  #handle: StreamHandle;
  #arrived: () => void;
  #keepsAlive = true;

  /**
   * @param arrived Called for each connection that has arrived, until it is accepted.
   * @throws {Error} If the descriptor is not a listening socket.
   */
  constructor(native: NativeSockets, fd: number, arrived: () => void) {
    this.#native = native;
    this.#arrived = arrived;
    this.#source = open(native, fd);
    this.addr = isTCP(this.#source)
      ? toAddr(this.#source, "getsockname")
      : { transport: "unix", path: "" };
    this.#handle = this.#listen(this.#source.fdForIpc());
  }

  #listen(fd: number): StreamHandle {
    const handle = open(this.#native, fd);
    handle.onconnection = this.#arrived;
    const code = handle.listen(inheritedBacklog());
    if (code !== 0) handle.close();
    check(this.#native, code);
    if (!this.#keepsAlive) handle.unref();
    return handle;
  }

  accept(): Duplex | null {
    const connection = this.#native.createConnection(this.#handle);
    if (this.#handle.accept(connection) !== 0) {
      connection.close();
      return null;
    }
    let remoteAddr = this.addr;
    if (isTCP(connection)) {
      remoteAddr = toAddr(connection, "getpeername");
      connection.setNoDelay(true);
    }
    const rid = takeStream(this.#native, connection);
    return rid === null
      ? new NodeConnection(
        this.#native.createSocket(connection),
      )
      : new NativeConnection(this.#native, rid, remoteAddr);
  }

  /** The runtime accepts no more until the last connection that has arrived is taken. */
  pause(): void {}

  resume(): boolean {
    const fd = this.#source.fdForIpc();
    if (fd === -1) return false;
    const handle = this.#listen(fd);
    this.#handle.close();
    this.#handle = handle;
    return true;
  }

  ref(): void {
    this.#keepsAlive = true;
    this.#handle.ref();
  }

  unref(): void {
    this.#keepsAlive = false;
    this.#handle.unref();
  }

  close(): void {
    this.#handle.close();
    this.#source.close();
  }
}

function open(native: NativeSockets, fd: number): StreamHandle {
  const handle = native.openListener(fd);
  if (typeof handle === "number") check(native, handle);
  return handle as StreamHandle;
}

function check(native: NativeSockets, code: number): void {
  if (code !== 0) throw new Error(`listen ${native.errorName(code)}`);
}

function isTCP(handle: StreamHandle): handle is TCPHandle {
  return "takeStream" in handle;
}

function toAddr(handle: TCPHandle, end: "getpeername" | "getsockname"): Addr {
  const found: Partial<SocketAddress> = {};
  // A peer that has left has no address.
  handle[end](found);
  return { transport: "tcp", hostname: found.address ?? "", port: found.port ?? 0 };
}

/**
 * Makes a connection a resource, and closes its handle: otherwise the runtime would refuse to open a later descriptor of
 * the same number. Returns null, and leaves the handle as it was, if a descriptor that this needs is not free.
 */
function takeStream(native: NativeSockets, connection: StreamHandle): number | null {
  const handle = isTCP(connection) ? connection : moveToTCP(native, connection);
  if (handle === null) return null;
  const rid = handle.takeStream();
  handle.close();
  return rid;
}

function moveToTCP(native: NativeSockets, connection: StreamHandle): TCPHandle | null {
  const fd = connection.fdForIpc();
  if (fd === -1) return null;
  const handle = native.createTCP();
  if (handle.open(fd) !== 0) return null;
  connection.close();
  return handle;
}

/** A connection that is a resource of Deno's, as `Deno.Conn` is. It never waits to send small writes. */
class NativeConnection implements Duplex {
  readonly remoteAddr: Addr;
  #native: NativeSockets;
  #rid: number;

  constructor(native: NativeSockets, rid: number, remoteAddr: Addr) {
    this.#native = native;
    this.#rid = rid;
    this.remoteAddr = remoteAddr;
  }

  async read(buffer: Uint8Array): Promise<number | null> {
    if (buffer.length === 0) return 0;
    const count = await this.#native.read(this.#rid, buffer);
    return count === 0 ? null : count;
  }

  write(bytes: Uint8Array): Promise<number> {
    return this.#native.write(this.#rid, bytes);
  }

  closeWrite(): Promise<void> {
    return this.#native.shutdown(this.#rid);
  }

  close(): void {
    this.#native.tryClose(this.#rid);
  }
}
