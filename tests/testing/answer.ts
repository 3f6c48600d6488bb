import { HeadDecoder } from "../../wire/cgi.ts";
import { text } from "./bytes.ts";

/** A CGI response taken apart. */
export interface Answer {
  status: number | undefined;
  reason: string;
  /** In order, each line for itself. */
  fields: [name: string, value: string][];
  headers: Headers;
  body: Uint8Array<ArrayBuffer>;
  /** The head as it stood there. */
  head: string;
}

/** Takes a CGI response apart. */
export function parseAnswer(raw: Uint8Array): Answer {
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
