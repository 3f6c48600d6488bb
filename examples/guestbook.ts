#!/usr/bin/env -S deno run --allow-env --allow-net --allow-read=/var/lib/guestbook --allow-write=/var/lib/guestbook
/**
 * A guestbook: a form and an SQLite file, which all processes share.
 *
 * Make the folder of the file, `sudo install -d -o $USER /var/lib/guestbook`, run `./examples/guestbook.ts` and open
 * http://localhost:8000. Under a web server the folder belongs to the user of the web server, such as www-data. GUESTBOOK names
 * another file; grant its folder in the first line. It cannot be in /tmp: a service of systemd may have a /tmp of its own.
 */
import { DatabaseSync } from "node:sqlite";
import { type Handler, serve } from "../mod.ts";

const MAX_NAME = 60;
const MAX_MESSAGE = 1000;
/** How long a form may be, in bytes: the app stores it in memory. */
const MAX_FORM = 16_384;

function openDatabase(): DatabaseSync {
  const database = new DatabaseSync(
    Deno.env.get("GUESTBOOK") ?? "/var/lib/guestbook/guestbook.db",
  );
  // If two scripts write at the same time, one waits.
  database.exec(`PRAGMA busy_timeout = 5000;
    CREATE TABLE IF NOT EXISTS entry (name TEXT, message TEXT, time TEXT DEFAULT CURRENT_TIMESTAMP)`);
  return database;
}

const app: Handler = async (request, info) => {
  using database = openDatabase();
  if (request.method !== "POST") return page(guestbook(info.scriptName, readEntries(database)));
  if (!isOwnForm(request)) return page("<p>Please sign on our own page.", 403);
  const form = await readForm(request);
  if (form === undefined) return page("<p>Please write less.", 413);
  const name = String(form.get("name") ?? "").trim().slice(0, MAX_NAME);
  const message = String(form.get("message") ?? "").trim().slice(0, MAX_MESSAGE);
  if (!name || !message) return page("<p>Please give a name and a message.", 400);
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

function guestbook(action: string, entries: string[]): string {
  return `<h1>Guestbook</h1>
<form action="${escape(action || "/")}" method="post">
<p><label>Name <input name="name" required maxlength="${MAX_NAME}"></label>
<p><label>Message <textarea name="message" required maxlength="${MAX_MESSAGE}"></textarea></label>
<p><button>Sign</button>
</form>
<dl>
${entries.join("\n")}
</dl>`;
}

function page(content: string, status = 200): Response {
  return new Response(
    `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<meta name="color-scheme" content="light dark">
<title>Guestbook</title>
</head>
<body>
${content}
</body>
</html>
`,
    { status, headers: { "content-type": "text/html; charset=utf-8" } },
  );
}

function escape(value: unknown): string {
  return String(value).replace(/[&<>"']/g, (char) => `&#${char.charCodeAt(0)};`);
}

export default app;
if (import.meta.main) await serve(app);
