/**
 * A file that the application names in place of a body -> `Response` (rule B24).
 *
 * @module
 */

import { runtime } from "../io/runtime.ts";
import { isProtocolError, ProtocolError } from "../wire/protocol_error.ts";
import type { SendFileOptions } from "./options.ts";
import { emptyBody, type NamedFile } from "./response.ts";
import { absolutePath } from "./script_file.ts";
import { fileNames } from "./script_path.ts";

/** Sends files below one folder. */
export class FileSender {
  #root: string;
  #location: string;
  #serve: SendFileOptions["serve"];

  /** @throws {TypeError} If the location is no path, or there is no function that serves a file. */
  constructor({ root, location = "/", serve }: SendFileOptions) {
    if (!/^(?:\/(?!\.\.?(?:\/|$))[^/]*)+$/.test(location)) {
      throw new TypeError(
        `Cannot create a gateway as the location of sendFile must be a path such as "/files": current value is ${
          JSON.stringify(location)
        }`,
      );
    }
    if (typeof serve !== "function") {
      throw new TypeError(
        `Cannot create a gateway as sendFile.serve must be a function: current value is ${serve}`,
      );
    }
    this.#root = absolutePath(root);
    this.#location = location.replace(/\/*$/, "/");
    this.#serve = serve;
  }

  /**
   * Responds with a file.
   *
   * @throws {ProtocolError} If there is no such file in the folder (status 404).
   */
  async send(request: Request, named: NamedFile): Promise<Response> {
    const path = this.#find(named);
    const { method, url, headers, signal } = request;
    const reads = method === "GET" || method === "HEAD"
      ? request
      : new Request(url, { method: "GET", headers, signal });
    let served = await this.#serve(reads, path);
    if (served.status === 206 && isOther(served, headers.get("if-range"))) {
      // serveFile of @std/http 1.1.3 ignores If-Range: the client would join parts of two versions.
      await served.body?.cancel();
      const whole = new Request(reads);
      whole.headers.delete("range");
      served = await this.#serve(whole, path);
    }
    const { status, statusText } = served;
    const kept = new Headers(served.headers);
    const replaced = new Set<string>();
    for (const [name, value] of named.fields) {
      // An error of the server has a body of its own, and 304 has none. An empty type leaves the file's.
      if (name === "content-type" && (value === "" || status !== 200 && status !== 206)) continue;
      // A response for several ranges has its boundary in the type.
      if (name === "content-type" && kept.get(name)?.startsWith("multipart/byteranges")) continue;
      if (name !== "set-cookie" && !replaced.has(name)) kept.delete(name);
      replaced.add(name);
      kept.append(name, value);
    }
    if (method === "HEAD") await served.body?.cancel();
    // With a null body Deno.serve would add a length of 0.
    const none = kept.has("content-length") ? null : emptyBody();
    return new Response(method === "HEAD" ? none : served.body, {
      status,
      statusText,
      headers: kept,
    });
  }

  #find({ field, value }: NamedFile): string {
    const refuse = (reason: string) =>
      new ProtocolError(
        `Cannot send the file of ${field} ${JSON.stringify(value)}: ${reason}`,
        404,
      );
    let names: string[];
    try {
      names = [...fileNames(field === "x-sendfile" ? value : value.replace(/\?.*$/s, ""))];
    } catch (error) {
      if (!isProtocolError(error)) throw error;
      throw refuse(error.message);
    }
    if (!value.startsWith("/")) throw refuse("it is no path that begins with a slash");
    if (names.includes("..")) throw refuse('it has a ".." segment');
    let path = `/${names.join("/")}`;
    if (field === "x-accel-redirect") {
      if (!path.startsWith(this.#location)) throw refuse(`it is not below ${this.#location}`);
      path = `${this.#root}/${path.slice(this.#location.length)}`;
    }
    const root = realPath(this.#root)?.replace(/\/*$/, "/");
    if (root === undefined) throw refuse(`the folder ${this.#root} does not exist`);
    const file = realPath(path);
    // Each is a 404, so that an application cannot find out which files exist elsewhere.
    if (file === undefined) throw refuse(`${path} does not exist`);
    if (!file.startsWith(root)) throw refuse(`${file} is not in ${root}`);
    if (!runtime.statSync(file).isFile) throw refuse(`${file} is not a regular file`);
    return file;
  }
}

/** Returns whether If-Range names another version of a file than a response has (RFC 9110 section 13.1.5). */
function isOther({ headers }: Response, ifRange: string | null): boolean {
  return ifRange !== null && ifRange !== headers.get("etag") &&
    ifRange !== headers.get("last-modified");
}

/** Returns a path without links, or undefined if nothing is there. */
function realPath(path: string): string | undefined {
  try {
    return runtime.realPathSync(path);
  } catch (error) {
    if (error instanceof runtime.errors.NotCapable) throw error;
    return undefined;
  }
}
