/** The options of a request that `fetch` and `doctor` share. */

import type { Arguments, Option } from "./arguments.ts";
import { Failure, UsageError } from "./errors.ts";

/** The option for header fields. */
export const HEADER: Option = {
  name: "header",
  short: "H",
  value: "FIELD",
  repeats: true,
  about: 'a header field, such as "Accept: text/html"',
};

/** The option for the body. */
export const DATA: Option = {
  name: "data",
  short: "d",
  value: "BODY",
  about: "the body, or @FILE for the contents of a file",
};

/** Reads the header fields. @throws {UsageError} If one is invalid. */
export function readHeaders(args: Arguments): Headers {
  const headers = new Headers();
  for (const field of args.all("header")) {
    const [name, value] = split(field, ":", "header");
    try {
      headers.append(name, value.trim());
    } catch {
      throw new UsageError(`--header must be a name and a value: current value is "${field}".`);
    }
  }
  return headers;
}

/**
 * Reads the body, and sets its type: that of a form by default.
 *
 * @throws {Failure} If the file cannot be read.
 */
export async function readData(
  args: Arguments,
  headers: Headers,
): Promise<Uint8Array<ArrayBuffer> | undefined> {
  const data = args.text("data");
  if (data === undefined) return undefined;
  if (!headers.has("content-type")) {
    headers.set("content-type", "application/x-www-form-urlencoded");
  }
  if (!data.startsWith("@")) return new TextEncoder().encode(data);
  const file = data.slice(1);
  try {
    return await Deno.readFile(file);
  } catch (error) {
    throw new Failure(`Cannot read the body from ${file}: ${(error as Error).message}`);
  }
}

/** Splits "name=value" or "name: value". @throws {UsageError} If it has no name. */
export function split(
  text: string,
  separator: string,
  option: string,
): [name: string, value: string] {
  const at = text.indexOf(separator);
  if (at < 1) {
    const form = separator === "=" ? "NAME=VALUE" : `a name, "${separator}" and a value`;
    throw new UsageError(`--${option} must be ${form}: current value is "${text}".`);
  }
  return [text.slice(0, at), text.slice(at + 1)];
}
