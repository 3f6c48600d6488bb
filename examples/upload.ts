#!/usr/bin/env -S deno run --allow-env --allow-net --allow-read=/var/lib/uploads --allow-write=/var/lib/uploads
/**
 * Streams uploads of any size to disk, and reports their progress.
 *
 * Make its folder, `sudo install -d -o $USER /var/lib/uploads`, run `./examples/upload.ts`, then
 * `curl -T big.iso localhost:8000/big.iso`, and meanwhile `curl localhost:8000/big.iso`. Under a web server the folder belongs
 * to the user of the web server, such as www-data. UPLOADS names another; grant it in the first line. It cannot be in /tmp: a
 * service of systemd may have a /tmp of its own.
 *
 * The progress is the size of the file on disk, so that other processes, such as CGI scripts, can read it. While a file is
 * uploaded, another upload of the same name gets 409.
 */
import { type Handler, serve } from "../mod.ts";

const BUFFER_SIZE = 65536;

const app: Handler = async (request, info) => {
  const [, name] = /^\/([\w-][\w.-]{0,99})$/.exec(info.pathInfo) ?? [];
  if (name === undefined) return new Response("PUT a file to /its-name\n", { status: 404 });
  const directory = Deno.env.get("UPLOADS") ?? "/var/lib/uploads";
  const file = { path: `${directory}/${name}`, part: `${directory}/.${name}.part` };
  if (request.method === "GET") return await showProgress(file);
  if (request.method !== "PUT" || request.body === null) {
    return new Response(null, { status: 405, headers: { allow: "GET, PUT" } });
  }
  await Deno.mkdir(directory, { recursive: true });
  const bytes = await receive(request.body, file);
  if (bytes === undefined) {
    return new Response("Another upload of this name is in progress\n", { status: 409 });
  }
  return Response.json({ bytes, complete: true }, { status: 201 });
};

/** A file, and where it is until it is complete. No name begins with a dot. */
interface Upload {
  path: string;
  part: string;
}

/**
 * Writes a body to a file through one buffer: memory use does not depend on the size.
 *
 * @returns The number of bytes, or undefined if another upload is in progress.
 */
async function receive(
  body: ReadableStream<Uint8Array>,
  { path, part }: Upload,
): Promise<number | undefined> {
  using file = await Deno.open(part, { write: true, create: true });
  // The system releases the lock of a process that ends. Another upload may have ended between open and lock.
  if (!await file.tryLock(true) || !await isSame(file, part)) return undefined;
  await file.truncate();
  const reader = body.getReader({ mode: "byob" });
  let buffer = new Uint8Array(BUFFER_SIZE);
  let bytes = 0;
  try {
    while (true) {
      const { done, value } = await reader.read(buffer);
      if (done) break;
      for (let at = 0; at < value.length;) at += await file.write(value.subarray(at));
      bytes += value.length;
      buffer = new Uint8Array(value.buffer);
    }
  } catch (error) {
    await Deno.remove(part);
    throw error;
  }
  await Deno.rename(part, path);
  return bytes;
}

async function isSame(file: Deno.FsFile, path: string): Promise<boolean> {
  const { ino } = await file.stat();
  return (await Deno.stat(path).catch(() => undefined))?.ino === ino;
}

async function showProgress({ path, part }: Upload): Promise<Response> {
  for (const [file, complete] of [[part, false], [path, true]] as const) {
    try {
      return Response.json({ bytes: (await Deno.stat(file)).size, complete });
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound)) throw error;
    }
  }
  return new Response("There is no such upload\n", { status: 404 });
}

export default app;
if (import.meta.main) await serve(app);
