import { resolve } from "node:path";
import { fileNames } from "../../gateway/script_path.ts";
import { type FileKind, FileKinds } from "../../gateway/script_file.ts";

/** Media types of the files that are served, by extension. Others, such as sources and data, are not served. */
const TYPES: Record<string, string> = {
  avif: "image/avif",
  css: "text/css",
  gif: "image/gif",
  html: "text/html",
  ico: "image/x-icon",
  jpeg: "image/jpeg",
  jpg: "image/jpeg",
  js: "text/javascript",
  json: "application/json",
  map: "application/json",
  mjs: "text/javascript",
  mp3: "audio/mpeg",
  mp4: "video/mp4",
  otf: "font/otf",
  pdf: "application/pdf",
  png: "image/png",
  svg: "image/svg+xml",
  ttf: "font/ttf",
  txt: "text/plain",
  wasm: "application/wasm",
  webm: "video/webm",
  webmanifest: "application/manifest+json",
  webp: "image/webp",
  woff: "font/woff",
  woff2: "font/woff2",
};
/** The folder of files whose names a standard sets, often without an extension (RFC 8615). */
const WELL_KNOWN = ".well-known";

/** Returns the media type of a file that is served. */
export function mediaType(path: string): string | undefined {
  const name = path.slice(path.lastIndexOf("/") + 1);
  const extension = /\.([a-z0-9]+)$/.exec(name)?.[1];
  if (extension === undefined && path.startsWith(`/${WELL_KNOWN}/`)) return "text/plain";
  return TYPES[extension ?? ""];
}

/**
 * Returns a response with the file that a request names, or with a part of it, or 304 if the client has it; undefined if it
 * is not served.
 */
export async function staticFile(request: Request, root: string): Promise<Response | undefined> {
  if (!/^(?:GET|HEAD)$/.test(request.method)) return undefined;
  const found = await findBelow(root, new URL(request.url).pathname);
  const type = found?.kind === "file" ? mediaType(found.path) : undefined;
  if (found === undefined || type === undefined) return undefined;
  return await sendFile(request, found.file, type);
}

/** Returns the file or folder that the path of a URL names, without a slash at its end; undefined if it may not be seen. */
export async function findBelow(
  root: string,
  pathname: string,
): Promise<{ kind: FileKind; path: string; file: string } | undefined> {
  const names = namesOf(pathname.replace(/(?<=.)\/$/, ""));
  const isHidden = (name: string, i: number) =>
    name.startsWith(".") && (i > 0 || name !== WELL_KNOWN);
  if (names === undefined || names.some(isHidden) || names.slice(0, -1).includes("")) {
    return undefined;
  }
  const files = new FileKinds(resolve(root));
  const path = `/${names.join("/")}`;
  const kind = files.kind(path);
  if (kind !== "folder" && (kind !== "file" || pathname.endsWith("/"))) return undefined;
  // A link must not expose a file outside of the folder, even of the same owner.
  const [real, realRoot] = await Promise.all([files.root + path, files.root].map(Deno.realPath));
  const isBelow = real === realRoot || real.startsWith(realRoot + "/");
  return isBelow ? { kind, path, file: files.root + path } : undefined;
}

/** Sends a file, with conditional requests and one range of bytes (RFC 9110 sections 13 and 14). */
async function sendFile(request: Request, path: string, type: string): Promise<Response> {
  const file = await Deno.open(path);
  const { size, mtime } = await file.stat();
  const etag = `"${size.toString(36)}-${(mtime?.getTime() ?? 0).toString(36)}"`;
  const headers = new Headers({
    "content-type": type,
    "cache-control": "no-cache",
    "accept-ranges": "bytes",
    etag,
  });
  const conditions = request.headers;
  const tags = conditions.get("if-none-match")?.split(",").map((tag) =>
    tag.trim().replace("W/", "")
  );
  if (tags?.some((tag) => tag === etag || tag === "*")) {
    file.close();
    return new Response(null, { status: 304, headers });
  }
  const hasRange = request.method === "GET" && [null, etag].includes(conditions.get("if-range"));
  const range = hasRange ? rangeOf(conditions.get("range"), size) : undefined;
  if (range === "unsatisfiable") {
    file.close();
    headers.set("content-range", `bytes */${size}`);
    return new Response(null, { status: 416, headers });
  }
  const { start = 0, end = size } = range ?? {};
  headers.set("content-length", String(end - start));
  if (range !== undefined) headers.set("content-range", `bytes ${start}-${end - 1}/${size}`);
  await file.seek(start, Deno.SeekMode.Start);
  const body = end === size ? file.readable : file.readable.pipeThrough(firstBytes(end - start));
  return new Response(body, { status: range === undefined ? 200 : 206, headers });
}

/** Reads a Range field; undefined if it is absent, or not one range of bytes: then the whole file is sent. */
function rangeOf(
  field: string | null,
  size: number,
): { start: number; end: number } | "unsatisfiable" | undefined {
  const [, first = "", last = ""] = /^bytes=(\d*)-(\d*)$/.exec(field ?? "") ?? [];
  if (first === "" && last === "") return undefined;
  const start = first === "" ? Math.max(size - Number(last), 0) : Number(first);
  const end = first === "" || last === "" ? size : Math.min(Number(last) + 1, size);
  if (first !== "" && last !== "" && Number(last) < start) return undefined;
  return start < end ? { start, end } : "unsatisfiable";
}

function firstBytes(
  count: number,
): TransformStream<Uint8Array<ArrayBuffer>, Uint8Array<ArrayBuffer>> {
  let left = count;
  return new TransformStream({
    transform(chunk, controller) {
      controller.enqueue(chunk.subarray(0, left));
      left -= Math.min(chunk.length, left);
      if (left === 0) controller.terminate();
    },
  });
}

/** Returns the segments of a path, or undefined if one cannot be the name of a file. */
function namesOf(pathname: string): string[] | undefined {
  try {
    return [...fileNames(pathname)];
  } catch {
    return undefined;
  }
}
