import { resolve } from "node:path";
import { fileNames } from "../../gateway/script_path.ts";
import { FileKinds } from "../../gateway/script_file.ts";

/** Media types of the files that are served, by extension. Others, such as sources and data, are not served. */
const TYPES: Record<string, string> = {
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
  pdf: "application/pdf",
  png: "image/png",
  svg: "image/svg+xml",
  txt: "text/plain",
  webp: "image/webp",
  woff2: "font/woff2",
};

/** Returns a response with the file that a request names, or undefined if it is not served. */
export async function staticFile(request: Request, root: string): Promise<Response | undefined> {
  const { pathname } = new URL(request.url);
  const type = TYPES[/\.([a-z0-9]+)$/.exec(pathname)?.[1] ?? ""];
  if (type === undefined || !/^(?:GET|HEAD)$/.test(request.method)) return undefined;
  const names = namesOf(pathname);
  if (names === undefined || names.some((name) => name === "" || name.startsWith("."))) {
    return undefined;
  }
  const files = new FileKinds(resolve(root));
  const path = `/${names.join("/")}`;
  if (files.kind(path) !== "file") return undefined;
  // A link must not expose a file outside of the folder, even of the same owner.
  const real = await Deno.realPath(files.root + path);
  if (!real.startsWith(await Deno.realPath(files.root) + "/")) return undefined;
  const file = await Deno.open(files.root + path);
  const { size } = await file.stat();
  return new Response(file.readable, {
    headers: { "content-type": type, "content-length": String(size), "cache-control": "no-cache" },
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
