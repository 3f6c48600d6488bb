/**
 * The asking side of FastCGI and SCGI, over any connection. Section numbers are the FastCGI specification's.
 *
 * @module
 */

import { ByteBuffer } from "../wire/byte_buffer.ts";
import {
  decodeEndRequest,
  encodeAbortRequest,
  encodeBeginRequest,
  encodePair,
  encodeStream,
  encodeStreamEnd,
  KEEP_CONNECTION,
  ProtocolStatus,
  RecordDecoder,
  type RecordSink,
  RecordType,
  Role,
} from "../wire/fastcgi.ts";
import { ProtocolError } from "../wire/protocol_error.ts";
import { encodeSCGIHeaders } from "../wire/scgi.ts";
import type { Inquiry } from "./inquiry.ts";

/** The way to an application. */
export interface Channel {
  /** Waits to be sent. */
  readonly out: ByteBuffer;
  /** The next bytes, which are the caller's to keep, or null at the end. */
  read(): Promise<Uint8Array<ArrayBuffer> | null>;
  /** Begins to send what waits; returns a promise if there is so much that the caller should wait. */
  flush(): Promise<void> | void;
  /** Whether all has been sent. */
  readonly sent: boolean;
  /** Closes it. */
  close(): void;
}

/** Names and values, byte strings. */
export type Pairs = [name: string, value: string][];

const REQUEST_ID = 1;
/** How long an application has to end a request that is called off, in milliseconds. */
const ABORT_GRACE = 1000;

/** One request to a FastCGI application. */
export class FastCGIInquiry implements RecordSink {
  /** Whether the connection ended before the application had sent anything. */
  lost = false;
  #inquiry: Inquiry;
  #channel: Channel;
  #keep: boolean;
  #log: { push(bytes: Uint8Array): void; end(): void };
  #decoder = new RecordDecoder();
  #stdoutEnded = false;
  #ended = false;
  #grace: ReturnType<typeof setTimeout> | undefined;

  /**
   * @param keep Whether the connection is to stay open.
   * @param log Takes what comes as FCGI_STDERR.
   */
  constructor(
    inquiry: Inquiry,
    channel: Channel,
    keep: boolean,
    log: { push(bytes: Uint8Array): void; end(): void },
  ) {
    this.#inquiry = inquiry;
    this.#channel = channel;
    this.#keep = keep;
    this.#log = log;
    inquiry.onabort = inquiry.onunsent = () => this.#abort();
  }

  /** Asks, and resolves when the connection is done with it: to whether it may serve again. */
  async run(variables: Pairs): Promise<boolean> {
    const inquiry = this.#inquiry;
    const channel = this.#channel;
    let answered = false;
    let sent = false;
    try {
      this.#begin(variables);
      this.#sendBody().then((all) => sent = all);
      while (!this.#ended) {
        const bytes = await channel.read();
        if (bytes === null) throw new Error("it closed the connection");
        answered = true;
        inquiry.watchdog.moved();
        this.#decoder.push(bytes, this);
        await inquiry.room();
      }
    } catch (error) {
      this.lost = !answered && !inquiry.over;
      inquiry.fail(error);
    }
    clearTimeout(this.#grace);
    this.#log.end();
    inquiry.finish();
    return this.#keep && this.#ended && sent && this.#grace === undefined && channel.sent &&
      this.#decoder.idle;
  }

  record(type: number, id: number, content: Uint8Array): void {
    if (id !== REQUEST_ID || this.#ended) return;
    if (type === RecordType.stdout) {
      if (content.length === 0) this.#stdoutEnded = true;
      else this.#inquiry.reader.push(content.slice());
    } else if (type === RecordType.stderr) {
      this.#log.push(content);
    } else if (type === RecordType.endRequest) {
      this.#end(content);
    }
  }

  #begin(variables: Pairs): void {
    const { out } = this.#channel;
    encodeBeginRequest(out, REQUEST_ID, Role.responder, this.#keep ? KEEP_CONNECTION : 0);
    const pairs = new ByteBuffer();
    for (const [name, value] of variables) encodePair(pairs, name, value);
    encodeStream(out, RecordType.params, REQUEST_ID, pairs.bytes.subarray(0, pairs.length));
    encodeStreamEnd(out, RecordType.params, REQUEST_ID);
  }

  /** Sends FCGI_STDIN while the answer is read, and tells whether all of it was. */
  async #sendBody(): Promise<boolean> {
    const channel = this.#channel;
    const { request } = this.#inquiry;
    try {
      if (request.body !== null) {
        channel.flush();
        const sent = await this.#inquiry.send((chunk) => {
          encodeStream(channel.out, RecordType.stdin, REQUEST_ID, chunk);
          return channel.flush();
        });
        if (!sent || this.#ended) return false;
      }
      encodeStreamEnd(channel.out, RecordType.stdin, REQUEST_ID);
      channel.flush();
      return true;
    } catch {
      // What cannot be sent to will not be read from either.
      return false;
    }
  }

  /** FCGI_END_REQUEST (section 5.5): its statuses tell something where there is no answer (SPEC C19). */
  #end(content: Uint8Array): void {
    const { reader } = this.#inquiry;
    const { appStatus, protocolStatus } = decodeEndRequest(content);
    this.#ended = true;
    if (protocolStatus !== ProtocolStatus.requestComplete && !reader.begun) {
      throw new ProtocolError(
        `Cannot take the answer as FCGI_END_REQUEST must have protocol status 0: current value is ${protocolStatus}`,
        protocolStatus === ProtocolStatus.overloaded ? 503 : 502,
      );
    }
    // An answer that went wrong after its head (SPEC B17).
    if (reader.begun && appStatus !== 0 && !this.#stdoutEnded) {
      throw new Error(`it broke off with status ${appStatus}`);
    }
    reader.end();
  }

  /** FCGI_ABORT_REQUEST (section 5.4); applications that do not know it see the connection close. */
  #abort(): void {
    if (this.#ended || this.#grace !== undefined) return;
    this.#grace = setTimeout(() => this.#channel.close(), ABORT_GRACE);
    try {
      encodeAbortRequest(this.#channel.out, REQUEST_ID);
      this.#channel.flush();
    } catch {
      this.#channel.close();
    }
  }
}

/** Asks an SCGI application, and resolves when the connection is done with it. */
export async function runSCGI(
  inquiry: Inquiry,
  channel: Channel,
  variables: Pairs,
): Promise<void> {
  inquiry.onabort = () => channel.close();
  try {
    channel.out.append(encodeSCGIHeaders([
      ["CONTENT_LENGTH", String(inquiry.length)],
      ["SCGI", "1"],
      ...variables.filter(([name]) => name !== "CONTENT_LENGTH" && name !== "SCGI"),
    ]));
    channel.flush();
    inquiry.send((chunk) => {
      channel.out.append(chunk);
      return channel.flush();
    });
    while (!inquiry.reader.ended) {
      const bytes = await channel.read();
      if (bytes === null) inquiry.reader.end();
      else inquiry.reader.push(bytes);
      inquiry.watchdog.moved();
      await inquiry.room();
    }
  } catch (error) {
    inquiry.fail(error);
  }
  inquiry.finish();
}
