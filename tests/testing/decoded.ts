/** What the codecs of `wire/` tell of bytes that are cut in any way. */
import { assertEquals } from "@std/assert";
import { RecordDecoder, RecordType } from "../../wire/fastcgi.ts";
import { SCGIHeaderDecoder } from "../../wire/scgi.ts";
import { concat, text } from "./bytes.ts";
import type { Pairs } from "./fastcgi_records.ts";

/** A record, its content a byte string. */
export type Decoded = [type: number, id: number, content: string];

/** What the decoder tells of chunks; pieces of one stream that follow each other are joined. */
export function decodeRecords(chunks: Uint8Array[]): Decoded[] {
  const decoder = new RecordDecoder();
  const records: Decoded[] = [];
  for (const chunk of chunks) {
    decoder.push(chunk, {
      record: (type, id, content) => records.push([type, id, text(content)]),
    });
  }
  assertEquals(decoder.idle, true, "the chunks end where a record ends");
  return joinPieces(records);
}

/** Joins pieces of one stream that follow each other. */
export function joinPieces(records: Decoded[]): Decoded[] {
  const joined: Decoded[] = [];
  for (const [type, id, content] of records) {
    const last = joined.at(-1);
    const goesOn = last && type >= RecordType.params && type <= RecordType.data &&
      last[0] === type && last[1] === id && last[2] !== "" && content !== "";
    if (goesOn) last[2] += content;
    else joined.push([type, id, content]);
  }
  return joined;
}

/** Feeds chunks; returns the headers and all that followed them. */
export function decodeSCGI(
  chunks: Uint8Array[],
  most?: number,
): { pairs: Pairs; rest: string } | null {
  const decoder = new SCGIHeaderDecoder(most);
  for (const [i, chunk] of chunks.entries()) {
    const done = decoder.push(chunk);
    if (done) {
      return { pairs: done.pairs, rest: text(concat([done.rest, ...chunks.slice(i + 1)])) };
    }
  }
  return null;
}
