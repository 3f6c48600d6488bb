#!/usr/bin/env -S deno run --allow-env --allow-net --allow-read=/tmp --allow-write=/tmp
/**
 * A guestbook: a form and an SQLite file, which all processes share.
 *
 * Run `./examples/guestbook.ts` and open http://localhost:8000. GUESTBOOK names another file; grant it in the first line.
 */
import { DatabaseSync } from "node:sqlite";
import { type Handler, serve } from "../mod.ts";

const MAX_NAME = 60;
const MAX_MESSAGE = 1000;
/** How long a form may be, in bytes: the app stores it in memory. */
const MAX_FORM = 16_384;

function openDatabase(): DatabaseSync {
  const database = new DatabaseSync(Deno.env.get("GUESTBOOK") ?? "/tmp/guestbook.db");
  // If two scripts write at the same time, one waits.
  database.exec(`PRAGMA busy_timeout = 5000;
    CREATE TABLE IF NOT EXISTS entry (name TEXT, message TEXT, time TEXT DEFAULT CURRENT_TIMESTAMP)`);
  return database;
}

const app: Handler = async (request, info) => {
  using database = openDatabase();
  if (request.method !== "POST") return html(page(info.scriptName, readEntries(database)));
  if (!isOwnForm(request)) return html("<p>Please sign on our own page.\n", 403);
  const form = await readForm(request);
  if (form === undefined) return html("<p>Please write less.\n", 413);
  const name = String(form.get("name") ?? "").trim().slice(0, MAX_NAME);
  const message = String(form.get("message") ?? "").trim().slice(0, MAX_MESSAGE);
  if (!name || !message) return html("<p>Please give a name and a message.\n", 400);
  database.prepare("INSERT INTO entry (name, message) VALUES (?, ?)").run(name, message);
  // The browser loads the page by GET, so that a reload does not submit the form again.
  return new Response(null, { status: 303, headers: { location: info.scriptName || "/" } });
};

/** Returns whether a form comes from this site: a browser says so. Others could sign in a visitor's name. */
function isOwnForm({ headers, url }: Request): boolean {
  const site = headers.get("sec-fetch-site");
  if (site !== null) return site === "same-origin";
  const origin = headers.get("origin");
  return origin === null || URL.parse(origin)?.host === new URL(url).host;
}

/** Reads a form, or returns undefined if it is too long. */
async function readForm({ body, headers }: Request): Promise<FormData | undefined> {
  const chunks: Uint8Array<ArrayBuffer>[] = [];
  let length = 0;
  for await (const chunk of body ?? []) {
    length += chunk.length;
    if (length > MAX_FORM) return undefined;
    chunks.push(chunk);
  }
  const type = headers.get("content-type") ?? "";
  return await new Response(new Blob(chunks), { headers: { "content-type": type } }).formData();
}

function readEntries(database: DatabaseSync): string[] {
  const rows = database.prepare("SELECT * FROM entry ORDER BY rowid DESC LIMIT 50").all();
  return rows.map(({ name, message, time }) =>
    `<dt>${escape(name)}, ${escape(time)}</dt><dd>${escape(message)}</dd>`
  );
}

function page(action: string, entries: string[]): string {
  return `<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>Guestbook</title></head>
<body>
<h1>Guestbook</h1>
<form action="${escape(action || "/")}" method="post">
<p><label>Name <input name="name" required maxlength="${MAX_NAME}"></label>
<p><label>Message <textarea name="message" required maxlength="${MAX_MESSAGE}"></textarea></label>
<p><button>Sign</button>
</form>
<dl>
${entries.join("\n")}
</dl>
</body>
</html>
`;
}

function html(body: string, status = 200): Response {
  return new Response(body, { status, headers: { "content-type": "text/html; charset=utf-8" } });
}

function escape(value: unknown): string {
  return String(value).replace(/[&<>"']/g, (char) => `&#${char.charCodeAt(0)};`);
}

export default app;
if (import.meta.main) await serve(app);
