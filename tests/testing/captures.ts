/** Reads what web servers sent, as `scripts/capture.ts` recorded it in `tests/testdata/`. */
import { bytes, pattern, text } from "./bytes.ts";

/** A request as the client sent it to the web server. */
export interface SentRequest {
  method: string;
  /** Path and query. */
  target: string;
  headers: [name: string, value: string][];
  /** A byte string, or the length of a {@linkcode pattern}. */
  body?: string | number;
  /** Whether the body was sent with chunked coding. */
  chunked?: boolean;
}

/** What a web server sent over one connection. */
export interface Capture {
  /** The file with the bytes. */
  file: string;
  protocol: "fastcgi" | "scgi";
  /** The module of the web server that sent it. */
  sender: string;
  requests: SentRequest[];
}

/** The index in a web server's directory. */
export interface CaptureIndex {
  server: string;
  version: string;
  captures: Capture[];
}

export const TESTDATA = new URL("../testdata/", import.meta.url);

/** Returns a request's body. */
export function bodyOf({ body = "" }: SentRequest): Uint8Array<ArrayBuffer> {
  return typeof body === "number" ? pattern(body) : bytes(body);
}

/** A capture with its bytes. */
export interface ReadCapture extends Capture {
  /** The file below {@linkcode TESTDATA}. */
  name: string;
  server: string;
  raw: Uint8Array<ArrayBuffer>;
}

/** Reads all captures. */
export function readCaptures(): ReadCapture[] {
  const directories = [...Deno.readDirSync(TESTDATA)].map(({ name }) => name)
    .filter((name) => name !== "fuzz").sort();
  return directories.flatMap((directory) => {
    const read = (file: string) => Deno.readFileSync(new URL(`${directory}/${file}`, TESTDATA));
    const { server, captures }: CaptureIndex = JSON.parse(text(read("index.json")));
    return captures.map((capture) => ({
      ...capture,
      server,
      name: `${directory}/${capture.file}`,
      raw: read(capture.file),
    }));
  });
}
