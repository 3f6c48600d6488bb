import type { HandlerInfo } from "./app.ts";

/** Names of variables whose values the page hides, even from the developer (rule F6). */
const SECRET = /AUTHORIZATION|COOKIE|PASSWD|PASSWORD|SECRET|TOKEN|KEY/;

/**
 * Creates a page that shows a developer what the app threw, and the request.
 *
 * @param stack The error as the log shows it.
 * @param request The request, if it could be created.
 */
export function debugPage(
  error: unknown,
  stack: string,
  request: Request | undefined,
  info: HandlerInfo,
): Response {
  const rows = [...info.variables].sort().map(([name, value]) =>
    `<tr><th>${escape(name)}<td>${SECRET.test(name) ? "(hidden)" : escape(value)}`
  );
  const title = error instanceof Error ? `${error.name}: ${error.message}` : String(error);
  const html = `<!doctype html>
<html lang="en"><meta charset="utf-8"><title>${escape(title)}</title>
<style>body{font:15px/1.5 system-ui;margin:2rem;max-width:70rem}pre{overflow:auto;background:#f4f4f4;padding:1rem}
th{text-align:left;font-weight:normal;color:#666;padding-right:1rem;vertical-align:top}td{word-break:break-all}</style>
<h1>${escape(title)}</h1>
<p>${escape(request?.method ?? "")} ${escape(request?.url ?? "")} over ${info.protocol}</p>
<pre>${escape(stack)}</pre>
<table>${rows.join("\n")}</table>
<p>The option <code>debug</code> shows this page. Do not set it where others can see the page.</p>
`;
  return new Response(html, {
    status: 500,
    headers: { "content-type": "text/html;charset=UTF-8", "cache-control": "no-store" },
  });
}

function escape(text: string): string {
  return text.replace(/[&<>"']/g, (char) => `&#${char.charCodeAt(0)};`);
}
