/** Runs the decoders of `wire/` over bytes in any chunks. */
import { assertEquals } from "@std/assert";
import { RecordDecoder, RecordType } from "../../wire/fastcgi.ts";
import { SCGIHeaderDecoder } from "../../wire/scgi.ts";
import { concat, text } from "./bytes.ts";
import type { Pairs } from "./fastcgi_records.ts";

/** A record with its content as a byte string. */
export type Decoded = [type: number, id: number, content: string];

/** Decodes chunks to records. Joins successive pieces of the same stream. */
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

/** Joins successive pieces of the same stream. */
export function joinPieces(records: Decoded[]): Decoded[] {
  const joined: Decoded[] = [];
  for (const [type, id, content] of records) {
    const last = joined.at(-1);
    const continues = last && type >= RecordType.params && type <= RecordType.data &&
      last[0] === type && last[1] === id && last[2] !== "" && content !== "";
    if (continues) last[2] += content;
    else joined.push([type, id, content]);
  }
  return joined;
}

/** Decodes chunks. Returns the headers and the bytes that follow, or null if the headers are incomplete. */
export function decodeSCGI(
  chunks: Uint8Array[],
  most = 262_144,
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
