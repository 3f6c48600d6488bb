import type { Duplex, Listener } from "../../io/duplex.ts";

/** One direction of a connection. Its buffer is limited as a socket's is: a write waits while it is full. */
class Pipe {
  #buffered: Uint8Array[] = [];
  #length = 0;
  #ended = false;
  #broken = false;
  #change = Promise.withResolvers<void>();
  #capacity: number;

  constructor(capacity: number) {
    this.#capacity = capacity;
  }

  async read(buffer: Uint8Array): Promise<number | null> {
    while (true) {
      if (this.#broken) throw new Deno.errors.BadResource("closed");
      const first = this.#buffered[0];
      if (first) {
        const part = first.subarray(0, buffer.length);
        buffer.set(part);
        if (part.length === first.length) this.#buffered.shift();
        else this.#buffered[0] = first.subarray(part.length);
        this.#length -= part.length;
        this.#changed();
        return part.length;
      }
      if (this.#ended) return null;
      await this.#change.promise;
    }
  }

  async write(bytes: Uint8Array): Promise<number> {
    while (true) {
      if (this.#broken || this.#ended) throw new Deno.errors.BrokenPipe("closed");
      const room = this.#capacity - this.#length;
      if (room > 0) {
        const part = bytes.slice(0, room);
        this.#buffered.push(part);
        this.#length += part.length;
        this.#changed();
        return part.length;
      }
      await this.#change.promise;
    }
  }

  end(): void {
    this.#ended = true;
    this.#changed();
  }

  break(): void {
    this.#broken = true;
    this.#changed();
  }

  #changed(): void {
    this.#change.resolve();
    this.#change = Promise.withResolvers();
  }
}

/** One end of an in-memory connection. */
export class FakeConn implements Duplex {
  remoteAddr: Deno.Addr = { transport: "tcp", hostname: "127.0.0.1", port: 1 };
  /** The bytes that each write accepted. */
  readonly written: Uint8Array[] = [];
  #in: Pipe;
  #out: Pipe;

  constructor(incoming: Pipe, outgoing: Pipe) {
    this.#in = incoming;
    this.#out = outgoing;
  }

  read(buffer: Uint8Array): Promise<number | null> {
    return this.#in.read(buffer);
  }

  async write(bytes: Uint8Array): Promise<number> {
    const count = await this.#out.write(bytes);
    this.written.push(bytes.slice(0, count));
    return count;
  }

  closeWrite(): Promise<void> {
    this.#out.end();
    return Promise.resolve();
  }

  close(): void {
    this.#out.end();
    this.#in.break();
  }
}

/** Creates both ends of an in-memory connection. */
export function connected(capacity = 65536): [ours: FakeConn, theirs: FakeConn] {
  const up = new Pipe(capacity);
  const down = new Pipe(capacity);
  return [new FakeConn(down, up), new FakeConn(up, down)];
}

/** A listener that accepts the connections that {@linkcode connect} creates. */
export class FakeListener implements Listener {
  addr: Deno.Addr = { transport: "tcp", hostname: "127.0.0.1", port: 9000 };
  closed = false;
  #waiting: FakeConn[] = [];
  #change = Promise.withResolvers<void>();

  connect(capacity?: number): [ours: FakeConn, theirs: FakeConn] {
    const pair = connected(capacity);
    this.#waiting.push(pair[1]);
    this.#change.resolve();
    return pair;
  }

  close(): void {
    this.closed = true;
    this.#change.resolve();
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<Duplex> {
    while (!this.closed) {
      const conn = this.#waiting.shift();
      if (conn) yield conn;
      else {
        await this.#change.promise;
        this.#change = Promise.withResolvers();
      }
    }
  }
}
