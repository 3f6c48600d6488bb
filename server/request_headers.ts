import { fieldList } from "../io/private_fields.ts";
import { ProtocolError } from "../wire/protocol_error.ts";

/**
 * Creates headers. Returns the same as `append()` of each field, faster.
 *
 * @param fields Names, which are tokens in lower case, and values, as byte strings.
 * @param hasLineBreaks Whether a value may have NUL, CR or LF.
 * @throws {ProtocolError} If a value has NUL, CR or LF.
 */
export function createHeaders(
  fields: [name: string, value: string][],
  hasLineBreaks: boolean,
): Headers {
  const headers = new Headers();
  const list = hasLineBreaks ? undefined : fieldList(headers);
  for (const field of fields) {
    const [name, value] = field;
    if (list !== undefined && !isPadded(value)) list.push(field);
    else appendHeader(headers, name, value);
  }
  return headers;
}

/** Returns whether a value begins or ends with a blank, which `append()` removes. */
function isPadded(value: string): boolean {
  return value.charCodeAt(0) <= 0x20 || value.charCodeAt(value.length - 1) <= 0x20;
}

function appendHeader(headers: Headers, name: string, value: string): void {
  try {
    headers.append(name, value);
  } catch {
    throw new ProtocolError(
      `Cannot create request: the value of header "${name}" has NUL, CR or LF`,
    );
  }
}
