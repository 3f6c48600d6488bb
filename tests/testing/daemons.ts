/** FastCGI and SCGI behind one interface, for tests that hold over both. */
import type { App } from "../../bridge/app.ts";
import { type Listener, serveFastCGI } from "../../fastcgi.ts";
import type { Duplex } from "../../io/duplex.ts";
import { serveSCGI } from "../../scgi.ts";
import type { LimitOptions } from "../../server/limits.ts";
import type { Server, ServerOptions } from "../../server/server.ts";
import { bytes, concat } from "./bytes.ts";
import type { ClientEnd } from "./client_end.ts";
import { FastCGIClient, request as fastCGIRequest, variables } from "./fastcgi_client.ts";
import {
  beginRequest,
  type EndRequest,
  nameValuePairs,
  params,
  stdin,
  stdinEnd,
  stream,
  Type,
} from "./fastcgi_records.ts";
import type { ParsedResponse } from "./response.ts";
import { SCGIClient } from "./scgi_client.ts";
import { head } from "./scgi_serving.ts";
import { MEDIA, type Medium, type Served, serving as servingBy } from "./serving.ts";

/** The web server's end of a connection of either protocol. */
export interface Peer extends ClientEnd {
  /** Whether nothing has been received, apart from what {@linkcode response} has returned. */
  readonly silent: boolean;
  /** Reads some of a response. */
  begun(): Promise<unknown>;
  /** Reads a response; with FastCGI also whether it is complete, and its FCGI_STDERR. */
  response(): Promise<
    ParsedResponse & { stderr?: string; complete?: boolean; end?: EndRequest | null }
  >;
  /** Reads to the end of the connection. */
  end(): Promise<void>;
}

type Variables = Record<string, string>;
export type Options = LimitOptions & ServerOptions;

/** A server of one protocol, and how a web server speaks to it. */
export interface Daemon {
  name: string;
  /** Whether a connection can be kept for the next request. */
  keeps: boolean;
  /** The kinds of connection over which the server detects a disconnect that no read or write shows. */
  detects: Medium[];
  /** The number of variables of a request without others. */
  variables: number;
  /** The message for variables of more bytes than `limit`. */
  overBytes(limit: number, length: number): string;
  /** The message for more variables than `limit`. */
  overCount(limit: number): string;
  /** Bytes of variables that are not complete. */
  cutVariables: Uint8Array;
  serve(app: App, listener: Listener, options?: Options): Server;
  open(conn: Duplex): Peer;
  /** Returns the number of bytes that the variables of a request count as. */
  variableBytes(others: Variables): number;
  /** Returns a request without its body, whose length is announced unless it is undefined. */
  head(length?: number, others?: Variables): Uint8Array;
  /** Returns a part of a body. */
  part(content: Uint8Array): Uint8Array;
  /** What follows the last part. */
  bodyEnd: Uint8Array;
  /** Returns a whole request. */
  request(body?: string, others?: Variables, keep?: boolean): Uint8Array;
}

const post = (others: Variables) => variables({ REQUEST_METHOD: "POST", ...others });

const FASTCGI: Daemon = {
  name: "FastCGI",
  keeps: true,
  detects: MEDIA,
  variables: 3,
  overBytes: (limit, length) =>
    `its variables must have at most ${limit} bytes: they have ${length}`,
  overCount: (limit) => `there are more than ${limit}`,
  cutVariables: concat([beginRequest(1), stream(Type.params, 1, bytes("\x05"))]),
  serve: serveFastCGI,
  open: (conn) => new FastCGIClient(conn),
  variableBytes: (others) => nameValuePairs(variables(others)).length,
  head: (length, others = {}) =>
    concat([
      beginRequest(1),
      params(1, post(length === undefined ? others : { CONTENT_LENGTH: `${length}`, ...others })),
    ]),
  part: (content) => stdin(1, content),
  bodyEnd: stdinEnd(1),
  request: (body = "", others = {}, keep = false) =>
    fastCGIRequest({
      keep,
      variables: body === "" ? others : post(others),
      body: bytes(body),
    }),
};

const SCGI: Daemon = {
  name: "SCGI",
  keeps: false,
  detects: ["Unix"],
  variables: 5,
  overBytes: (limit, length) => `its length must be at most ${limit}: current value is ${length}`,
  overCount: (limit) => `it must have at most ${limit} variables: it has ${limit + 1}`,
  cutVariables: bytes("70:CONTENT_LENGTH"),
  serve: serveSCGI,
  open: (conn) => new SCGIClient(conn),
  variableBytes: (others) => Number(new TextDecoder().decode(head(0, others)).split(":")[0]),
  head: (length = 0, others = {}) => head(length, { REQUEST_METHOD: "POST", ...others }),
  part: (content) => content,
  bodyEnd: new Uint8Array(),
  request: (body = "", others = {}) => concat([head(body.length, others), bytes(body)]),
};

export const DAEMONS: Daemon[] = [FASTCGI, SCGI];

/** Serves an app for a test, and shuts the server down even if the test fails. */
export const serving = (
  { serve, open }: Daemon,
  app: App,
  options: Options,
  use: (served: Served<Peer>) => Promise<void>,
  over: Medium = "memory",
): Promise<void> =>
  servingBy(over, (listener, own) => serve(app, listener, { ...own, ...options }), open, use);
