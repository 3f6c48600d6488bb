/**
 * Shows Gatehouse at work: each example as a CGI script, as a FastCGI daemon and by itself, behind one gateway, on
 * http://localhost:8000 or the port that `--port` names. Loads an example again when it has changed.
 *
 * @module
 */

import type { App } from "../bridge/app.ts";
import { Arguments, type Usage } from "../cli/arguments.ts";
import { ReloadingApp } from "../cli/dev/reloading_app.ts";
import { serveDevelopment } from "../cli/dev/server.ts";
import { watchSources } from "../cli/dev/watch.ts";
import { Failure, UsageError } from "../cli/errors.ts";
import { cgiGateway, type GatewayInfo } from "../gateway.ts";
import { serveHTTP } from "../http.ts";

const USAGE: Usage = {
  name: "demo",
  operands: "",
  about: "Shows Gatehouse at work.",
  options: [{ name: "port", value: "N", about: "the port. Default: 8000" }],
  example: "deno task demo --port 8001",
};
const EXAMPLES = [
  { name: "hello", path: "", about: "ten lines" },
  { name: "environment", path: "/some/path?a=1", about: "what a handler is told" },
  { name: "form", path: "/some/path?color=blue", about: "query, path, fields, a file" },
  { name: "hono", path: "/visits", about: "a Hono app with a session" },
];
const TRANSPORTS = ["cgi", "fastcgi", "http"] as const;

const root = new URL("..", import.meta.url).pathname;

async function startHTTP(name: string): Promise<number> {
  const app: App = (await import(`../examples/${name}.ts`)).default;
  return await new Promise((resolve) => {
    serveHTTP(app, {
      hostname: "127.0.0.1",
      port: 0,
      onListen: (addr) => resolve((addr as Deno.NetAddr).port),
    });
  });
}

/** Starts each example as a daemon of its own, on FastCGI. */
async function startDaemons(): Promise<Map<string, ReloadingApp>> {
  const importMap = Deno.env.get("GATEHOUSE_IMPORT_MAP");
  const flags = ["--allow-read", "--allow-write", "--allow-env", "--allow-net"];
  if (importMap) flags.push(`--import-map=${importMap}`);
  const daemons = EXAMPLES.map(({ name }): [string, ReloadingApp] => {
    const app = new ReloadingApp(`${root}examples/${name}.ts`, {
      flags,
      serve: ["--base-path", "auto"],
      prefix: `/fastcgi/${name}.ts`,
    });
    return [name, app];
  });
  await Promise.all(daemons.map(([, app]) => app.reload()));
  return new Map(daemons);
}

/** Asks once to warm up, and once by the clock. */
async function measure(url: string): Promise<string> {
  await (await fetch(url)).body?.cancel();
  const start = performance.now();
  const response = await fetch(url);
  await response.arrayBuffer();
  const time = performance.now() - start;
  return `<td${response.ok ? "" : ' class="bad"'}><a href="${url}">${
    response.ok ? `${time.toFixed(1)} ms` : response.status
  }</a></td>`;
}

async function index(origin: string, ports: Map<string, number>): Promise<Response> {
  const rows: string[] = [];
  for (const { name, path, about } of EXAMPLES) {
    let row = `<tr><th>${name}.ts</th><td>${about}</td>`;
    const urls = {
      cgi: `${origin}/cgi-bin/${name}.ts${path}`,
      fastcgi: `${origin}/fastcgi/${name}.ts${path}`,
      http: `http://localhost:${ports.get(name)}${path || "/"}`,
    };
    for (const transport of TRANSPORTS) row += await measure(urls[transport]);
    rows.push(row + "</tr>");
  }
  return new Response(
    `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Gatehouse</title>
<style>
body { font: 1rem/1.5 system-ui, sans-serif; max-width: 44rem; margin: 3rem auto; padding: 0 1rem; color: #222 }
table { border-collapse: collapse; width: 100% }
th, td { text-align: left; padding: .5rem .75rem .5rem 0; border-bottom: 1px solid #ddd; font-weight: normal }
thead th { font-weight: bold }
td:nth-child(n+3) { font-variant-numeric: tabular-nums }
.bad { background: #fdd }
</style>
</head>
<body>
<h1>Gatehouse</h1>
<p>One fetch handler, any web server: each example is the same file over each transport. The times are of a
second request, just now; for a CGI script each starts a process.</p>
<table>
<thead><tr><th>example</th><th></th><th>CGI</th><th>FastCGI</th><th>HTTP</th></tr></thead>
<tbody>
${rows.join("\n")}
</tbody>
</table>
</body>
</html>
`,
    { headers: { "content-type": "text/html; charset=utf-8" } },
  );
}

async function run(port: number): Promise<void> {
  await using stack = new AsyncDisposableStack();
  const scripts = stack.use(cgiGateway({
    root: `${root}examples`,
    prefix: "/cgi-bin",
    permissions: { "/": ["--allow-env"] },
    env: Deno.env.toObject(),
  }));
  const daemons = await startDaemons();
  for (const daemon of daemons.values()) stack.use(daemon);
  const ports = new Map<string, number>();
  for (const { name } of EXAMPLES) ports.set(name, await startHTTP(name));
  stack.use(watchSources(`${root}examples`, async (path) => {
    await daemons.get(/([a-z]+)\.ts$/.exec(path)?.[1] ?? "")?.reload();
  }));

  await serveDevelopment(async (request: Request, info: GatewayInfo) => {
    const { origin, pathname } = new URL(request.url);
    if (pathname === "/") return await index(origin, ports);
    if (pathname.startsWith("/cgi-bin/")) return await scripts(request, info);
    const [, name] = /^\/fastcgi\/([a-z]+)\.ts(?:\/|$)/.exec(pathname) ?? [];
    return await daemons.get(name ?? "")?.respond(request, info) ??
      new Response("Not found\n", { status: 404 });
  }, port);
}

try {
  await run(Arguments.parse(USAGE, Deno.args).number("port", 0) ?? 8000);
} catch (error) {
  if (!(error instanceof UsageError || error instanceof Failure)) throw error;
  console.error(error.message);
  Deno.exit(1);
}
Deno.exit();
