import type { Endpoint } from "../io/address.ts";
import { openDuplex } from "../io/connect.ts";
import { ByteBuffer } from "../wire/byte_buffer.ts";
import { decodePairs, encodeValues, RecordDecoder, RecordType } from "../wire/fastcgi.ts";

/** The names that FastCGI defines (section 4.1). */
const NAMES = ["FCGI_MAX_CONNS", "FCGI_MAX_REQS", "FCGI_MPXS_CONNS"];

/**
 * Gets the limits of a FastCGI application, by FCGI_GET_VALUES.
 *
 * @param timeout How long this may take, in milliseconds.
 * @returns The names that it knows, and their values, as byte strings.
 * @throws {ProtocolError} If its response is not FastCGI.
 */
export async function fetchValues(
  endpoint: Endpoint,
  timeout: number,
): Promise<[name: string, value: string][]> {
  const signal = AbortSignal.timeout(timeout);
  const duplex = await openDuplex(endpoint, signal);
  using _ = { [Symbol.dispose]: () => duplex.close() };
  const late = Promise.withResolvers<never>();
  late.promise.catch(() => {});
  signal.onabort = () => late.reject(new Error(`it did not respond within ${timeout} ms`));
  const out = new ByteBuffer();
  encodeValues(out, RecordType.getValues, NAMES.map((name) => [name, ""]));
  for (let bytes = out.take(); bytes.length > 0;) {
    bytes = bytes.subarray(await Promise.race([late.promise, duplex.write(bytes)]));
  }
  const decoder = new RecordDecoder();
  let values: [string, string][] | undefined;
  const sink = {
    record(type: number, _id: number, content: Uint8Array) {
      if (type === RecordType.getValuesResult) values ??= decodePairs(content);
    },
  };
  const buffer = new Uint8Array(65_536);
  while (values === undefined) {
    const count = await Promise.race([late.promise, duplex.read(buffer)]);
    if (count === null) throw new Error("it closed the connection without FCGI_GET_VALUES_RESULT");
    decoder.push(buffer.subarray(0, count), sink);
  }
  return values;
}
