#!/usr/bin/env -S deno run --allow-env --allow-net
/** Reads a form: the query, the path after the mount point, the fields and a file. */
import { type Handler, serve } from "../mod.ts";

/** How long a form may be, in bytes: its files are stored in memory. For larger ones see upload.ts. */
const MAX_FORM = 10_485_760;

const app: Handler = async (request, info) => {
  const url = new URL(request.url);
  const lines = [
    `path: ${info.pathInfo}`,
    ...[...url.searchParams].map(([name, value]) => `query ${name}: ${value}`),
  ];
  if (request.method === "POST") {
    const form = await readForm(request);
    if (form === undefined) return new Response("The form is too long\n", { status: 413 });
    for (const [name, value] of form) {
      lines.push(
        typeof value === "string"
          ? `field ${name}: ${value}`
          : `file ${name}: ${value.name}, ${value.size} bytes, SHA-256 ${await digest(value)}`,
      );
    }
  }
  return new Response(page(info.scriptName, lines), {
    headers: { "content-type": "text/html; charset=utf-8" },
  });
};

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

async function digest(file: File): Promise<string> {
  const hash = await crypto.subtle.digest("SHA-256", await file.arrayBuffer());
  return new Uint8Array(hash).toHex();
}

function page(action: string, lines: string[]): string {
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<meta name="color-scheme" content="light dark">
<title>Form</title>
</head>
<body>
<form action="${escape(action)}/some/path?color=blue" method="post" enctype="multipart/form-data">
<p><label>Name <input name="name"></label>
<p><label>File <input name="file" type="file"></label>
<p><button>Send</button>
</form>
<pre>${escape(lines.join("\n"))}</pre>
</body>
</html>
`;
}

function escape(text: string): string {
  return text.replace(/[&<>"']/g, (char) => `&#${char.charCodeAt(0)};`);
}

export default app;
if (import.meta.main) await serve(app);
