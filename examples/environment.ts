#!/usr/bin/env -S deno run --allow-env --allow-net
/** Shows the variables of the request as a table. */
import { type Handler, serve } from "../mod.ts";

const app: Handler = (_request, info) => {
  const rows = [...info.variables].sort().map(([name, value]) =>
    `<tr><th>${escape(name)}</th><td>${escape(value)}</td></tr>`
  );
  return new Response(
    `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<meta name="color-scheme" content="light dark">
<title>Environment</title>
<style>
table { width: 100%; table-layout: fixed }
th { text-align: left }
th, td { overflow-wrap: anywhere; vertical-align: top }
</style>
</head>
<body>
<h1>${info.variables.size} variables over ${info.protocol}</h1>
<table>
${rows.join("\n")}
</table>
</body>
</html>
`,
    { headers: { "content-type": "text/html; charset=utf-8" } },
  );
};

function escape(text: string): string {
  return text.replace(/[&<>"']/g, (char) => `&#${char.charCodeAt(0)};`);
}

export default app;
if (import.meta.main) await serve(app);
