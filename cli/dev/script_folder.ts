import type { Handler } from "../../bridge/app.ts";
import { escapeHTML } from "../../debug/debug_page.ts";
import { cgiGateway, type Gateway } from "../../gateway.ts";
import { FailurePages } from "./failure_pages.ts";
import { findBelow, mediaType, staticFile } from "./static_file.ts";

/** Names of a folder's index script. */
const INDEX = ["ts", "js", "cgi", "pl", "py", "php", "sh"].map((end) => `index.${end}`);
const EXECUTABLE = 0o111;

/** A folder of CGI scripts and other files. */
export class ScriptFolder implements Disposable {
  #root: string;
  #gateway: Gateway;
  #failures = new FailurePages();

  /** @param env The environment of the scripts. */
  constructor(root: string, env: Record<string, string>) {
    this.#root = root;
    const { log } = this.#failures;
    this.#gateway = cgiGateway({ root, index: INDEX, mergeSlashes: true, env, log });
  }

  /** Responds with a file, the result of a script, or what is in a folder. */
  readonly respond: Handler = async (request, info) => {
    const found = /^(?:GET|HEAD)$/.test(request.method)
      ? await findBelow(this.#root, new URL(request.url).pathname)
      : undefined;
    const response = found?.kind === "folder"
      ? await this.#openFolder(request, found)
      : found !== undefined && !runs(found.file)
      ? await staticFile(request, this.#root)
      : undefined;
    return response ?? await this.#failures.respond(this.#gateway, request, info, true);
  };

  async #openFolder(
    request: Request,
    { file, path }: { file: string; path: string },
  ): Promise<Response | undefined> {
    const entries = [...Deno.readDirSync(file)].filter(({ name }) => !name.startsWith("."));
    if (entries.some(({ name }) => INDEX.includes(name))) return undefined;
    const url = new URL(request.url);
    if (!url.pathname.endsWith("/")) {
      return new Response(null, {
        status: 308,
        headers: { location: `${url.pathname}/${url.search}` },
      });
    }
    const page = new Request(new URL("index.html", url), request);
    return await staticFile(page, this.#root) ?? listing(path, file, entries);
  }

  /** Ends the scripts that run. */
  [Symbol.dispose](): void {
    this.#gateway[Symbol.dispose]();
  }
}

const STYLE =
  `:root{color-scheme:light dark}body{font:15px/1.6 system-ui,sans-serif;margin:0 auto;max-width:48rem;padding:1.5rem}
h1{font-size:1.2rem;overflow-wrap:anywhere}ul{list-style:none;padding:0}small{opacity:.7}`;

/** Returns a page with the folders, scripts and files of a folder that are served. */
function listing(path: string, folder: string, entries: Deno.DirEntry[]): Response {
  const rows: [order: number, name: string, kind: string][] = path === "/" ? [] : [[0, "../", ""]];
  for (const { name } of entries) {
    const kind = kindOf(`${folder}/${name}`);
    if (kind === "folder") rows.push([1, `${name}/`, ""]);
    else if (kind === "script") rows.push([2, name, "script"]);
    else if (kind === "file" && mediaType(name)) rows.push([3, name, ""]);
  }
  rows.sort(([a, first], [b, second]) => a - b || (first < second ? -1 : 1));
  const items = rows.map(([, name, kind]) => {
    const link = name === "../" ? name : `./${encodeURIComponent(name).replace("%2F", "/")}`;
    return `<li><a href="${escapeHTML(link)}">${escapeHTML(name)}</a> <small>${kind}</small>`;
  });
  const hint = rows.some(([order]) => order === 2)
    ? ""
    : "<p>No scripts are here. A script is a file that is executable: chmod +x FILE";
  const title = escapeHTML(path);
  const html = `<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>${title}</title>
<style>${STYLE}</style>
<h1>${title}</h1>
<ul>
${items.join("\n")}
</ul>
${hint}
`;
  return new Response(html, {
    headers: {
      "content-type": "text/html;charset=UTF-8",
      "cache-control": "no-store",
      "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'",
    },
  });
}

/** Returns whether a file is run rather than sent. On some file systems all files are executable. */
function runs(path: string): boolean {
  const { mode } = Deno.statSync(path);
  if (!(mode! & EXECUTABLE)) return false;
  if (mediaType(path) === undefined) return true;
  using file = Deno.openSync(path);
  const start = new Uint8Array(2);
  file.readSync(start);
  return new TextDecoder().decode(start) === "#!";
}

function kindOf(path: string): "folder" | "script" | "file" | undefined {
  try {
    const { isDirectory, isFile } = Deno.statSync(path);
    if (isDirectory) return "folder";
    if (!isFile) return undefined;
    return runs(path) ? "script" : "file";
  } catch {
    // A link that leads nowhere.
    return undefined;
  }
}
