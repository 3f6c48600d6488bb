import { HeadDecoder } from "../../wire/cgi.ts";
import { text } from "./bytes.ts";

/** A parsed CGI response. */
export interface ParsedResponse {
  status: number | undefined;
  reason: string;
  /** The header lines in order, not joined by name. */
  fields: [name: string, value: string][];
  headers: Headers;
  body: Uint8Array<ArrayBuffer>;
  /** The status line and header lines as they were sent. */
  head: string;
}

/** Parses a CGI or HTTP response. */
export function parseResponse(raw: Uint8Array): ParsedResponse {
  const decoder = new HeadDecoder(1 << 20);
  const done = decoder.push(raw) ?? decoder.end();
  const { status, reason, fields } = done.head;
  return {
    status,
    reason,
    fields,
    headers: new Headers(fields),
    body: done.rest.slice() as Uint8Array<ArrayBuffer>,
    head: text(raw.subarray(0, raw.length - done.rest.length)),
  };
}

/** What a client has that got no byte of a response. */
const NO_RESPONSE: ParsedResponse = {
  status: undefined,
  reason: "",
  fields: [],
  headers: new Headers(),
  body: new Uint8Array(),
  head: "",
};

/** Parses a CGI response, which may be absent. */
export function parseOutput(output: Uint8Array): ParsedResponse {
  return output.length > 0 ? parseResponse(output) : NO_RESPONSE;
}
