/**
 * Runs each example as a CGI script and as a FastCGI daemon behind one gateway on http://localhost:8000, and as an HTTP
 * server of its own.
 *
 * @module
 */

import { cgiGateway, fastCGIGateway, type Gateway } from "../gateway.ts";
import { serveHTTP } from "../http.ts";
import type { App } from "../bridge/app.ts";

const EXAMPLES = [
  { name: "hello", path: "", about: "ten lines" },
  { name: "environment", path: "/some/path?a=1", about: "the variables of the request" },
  { name: "form", path: "/some/path?color=blue", about: "query, path, fields, a file" },
  { name: "hono", path: "/visits", about: "a Hono app with a session" },
];
const TRANSPORTS = ["cgi", "fastcgi", "http"] as const;
const PORT = 8000;

const root = new URL("..", import.meta.url).pathname;
const sockets = await Deno.makeTempDir({ prefix: "gatehouse-demo-" });
const daemons: Deno.ChildProcess[] = [];

/** Starts an example as a daemon, with the command line interface. */
function startDaemon(name: string): Gateway {
  const address = `unix:${sockets}/${name}.sock` as const;
  const importMap = Deno.env.get("GATEHOUSE_IMPORT_MAP");
  daemons.push(
    new Deno.Command(Deno.execPath(), {
      cwd: root,
      args: [
        "run",
        "--no-prompt",
        ...(importMap ? [`--import-map=${importMap}`] : []),
        "--allow-read",
        "--allow-env",
        `--allow-write=${sockets}`,
        "--allow-net",
        "cli.ts",
        "serve",
        `examples/${name}.ts`,
        "--base-path",
        "auto",
        "--listen",
        address,
      ],
      stdin: "null",
      stderr: "piped",
    }).spawn(),
  );
  return fastCGIGateway(address, { prefix: `/fastcgi/${name}.ts`, allowedHosts: [] });
}

/** Waits until a daemon prints on stderr that it listens. */
async function ready(daemon: Deno.ChildProcess): Promise<void> {
  let text = "";
  const decoder = new TextDecoder();
  for await (const chunk of daemon.stderr.values({ preventCancel: true })) {
    text += decoder.decode(chunk);
    if (text.includes("Serving ")) {
      daemon.stderr.pipeTo(Deno.stderr.writable, { preventClose: true }).catch(() => {});
      return;
    }
  }
  throw new Error(`Cannot start a daemon: ${text}`);
}

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

const scripts = cgiGateway({
  root: `${root}examples`,
  prefix: "/cgi-bin",
  permissions: { "/": ["--allow-env"] },
  env: Deno.env.toObject(),
  allowedHosts: [],
});
const fastCGI = new Map(EXAMPLES.map(({ name }) => [name, startDaemon(name)]));
await Promise.all(daemons.map(ready));
const ports = new Map<string, number>();
for (const { name } of EXAMPLES) ports.set(name, await startHTTP(name));

function address(transport: typeof TRANSPORTS[number], name: string, path: string): string {
  if (transport === "cgi") return `http://localhost:${PORT}/cgi-bin/${name}.ts${path}`;
  if (transport === "fastcgi") return `http://localhost:${PORT}/fastcgi/${name}.ts${path}`;
  return `http://localhost:${ports.get(name)}${path || "/"}`;
}

/** Sends a request to warm up, and measures a second one. */
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

async function index(): Promise<Response> {
  const rows: string[] = [];
  for (const { name, path, about } of EXAMPLES) {
    let row = `<tr><th>${name}.ts</th><td>${about}</td>`;
    for (const transport of TRANSPORTS) row += await measure(address(transport, name, path));
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
<p>One fetch handler, any web server: each example is the same file over each transport. The times are those
of a second request, just now. Each request to a CGI script starts a process.</p>
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

async function respond(request: Request, info: Deno.ServeHandlerInfo): Promise<Response> {
  const { pathname } = new URL(request.url);
  if (pathname === "/") return await index();
  if (pathname.startsWith("/cgi-bin/")) return await scripts(request, info);
  const [, name] = /^\/fastcgi\/([a-z]+)\.ts(?:\/|$)/.exec(pathname) ?? [];
  return await fastCGI.get(name ?? "")?.(request, info) ??
    new Response("Not found\n", { status: 404 });
}

function stop(): void {
  for (const daemon of daemons) daemon.kill("SIGTERM");
  Deno.removeSync(sockets, { recursive: true });
  Deno.exit();
}

Deno.addSignalListener("SIGINT", stop);
Deno.addSignalListener("SIGTERM", stop);

try {
  Deno.serve({
    hostname: "127.0.0.1",
    port: PORT,
    onListen: () => console.log(`Open http://localhost:${PORT}/ in a browser. Stop with Ctrl-C.`),
  }, respond);
} catch (error) {
  console.error(
    error instanceof Deno.errors.AddrInUse
      ? `Cannot start the demo as port ${PORT} must be free: another program listens there`
      : error,
  );
  stop();
}
