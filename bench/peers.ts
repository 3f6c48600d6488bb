/** The peers that are measured: Gatehouse and others, each a small file in peers/. */

import { cores, freePort, output, Process, which } from "./process.ts";
import { type Protocol, variablesOf } from "./requests.ts";

/** Thrown if a peer is not installed. */
export class Unavailable extends Error {}

/** A running peer: a server, or the command of a CGI script. */
export interface Running {
  protocol: Protocol;
  port: number;
  processes: Process[];
  /** The application behind a gateway, which is not measured. */
  behind?: Process[];
  command?: string[];
  env?: Record<string, string>;
  /** The number of the user who runs the script, if it is not the one who runs this. */
  user?: number;
}

/** How a load starts its peers. */
export interface Setting {
  /** The name of the app, see peers/app.ts. */
  app: string;
  /** Whether peers on Deno print their memory usage on SIGUSR1. */
  reportMemory?: boolean;
  /** Where a peer on Deno exports telemetry to, if it does. */
  telemetry?: string;
  /** Whether they may use all cores. */
  unpinned?: boolean;
}

/** A program that is measured. */
export interface Peer {
  name: string;
  /** A short name for narrow columns. */
  short: string;
  /**
   * Finds or builds the program, and returns the name and version of its software.
   *
   * @throws {Unavailable} If it is not installed.
   */
  prepare?(directory: string): Promise<string | void>;
  start(setting: Setting): Promise<Running>;
}

/** The folder of the peers' files. */
export const PEERS = `${import.meta.dirname}/peers`;
/** The script that PHP runs. Every peer gets it as SCRIPT_FILENAME. */
export const SCRIPT = `${PEERS}/php.php`;

/** Where a program is. Throws {@linkcode Unavailable} with what to install. */
export function need(install: string, ...names: string[]): string {
  const found = which(...names);
  if (found === undefined) {
    throw new Unavailable(`no ${names[0]}; on Debian: apt install ${install}`);
  }
  return found;
}

/** What a pattern finds in a command's output. */
export async function firstLine(command: string[], pattern: RegExp): Promise<string> {
  return pattern.exec(await output(command))?.[1] ?? "";
}

/** Starts a server and waits until it listens. */
export async function startServer(
  protocol: Protocol,
  { unpinned, reportMemory, telemetry }: Setting,
  command: (port: number) => string[],
): Promise<Running> {
  const port = freePort();
  const process = new Process(command(port), {
    core: unpinned ? undefined : cores?.server,
    stdout: reportMemory ? "piped" : undefined,
    env: telemetry === undefined
      ? undefined
      : { OTEL_DENO: "true", OTEL_EXPORTER_OTLP_ENDPOINT: telemetry },
  });
  return { protocol, port, processes: [await process.listening(port)] };
}

/** The command that runs a file of peers/ on Deno. */
export function denoCommand(file: string, permissions: string[], flags: string[] = []): string[] {
  return [
    Deno.execPath(),
    "run",
    "--quiet",
    "--no-prompt",
    "--no-config",
    ...permissions,
    ...flags,
    file.startsWith("/") ? file : `${PEERS}/${file}`,
  ];
}

function denoPeer(name: string, short: string, protocol: Protocol, file: string): Peer {
  return {
    name,
    short,
    start: (setting) =>
      startServer(protocol, setting, (port) => [
        ...denoCommand(
          file,
          [
            `--allow-net=127.0.0.1:${port}`,
            ...(setting.app === "file" ? ["--allow-read", "--allow-write"] : []),
          ],
          setting.reportMemory ? ["--v8-flags=--expose-gc"] : [],
        ),
        String(port),
        setting.app,
      ]),
  };
}

export const gatehouse: Peer = denoPeer("Gatehouse", "Gatehouse", "fastcgi", "gatehouse.ts");
export const gatehouseSCGI: Peer = denoPeer("Gatehouse, SCGI", "SCGI", "scgi", "gatehouse_scgi.ts");
export const denoServe: Peer = denoPeer("Deno.serve (HTTP)", "Deno.serve", "http", "deno_serve.ts");
export const ceiling: Peer = denoPeer("Deno.Conn, bare", "Deno.Conn", "fastcgi", "ceiling.ts");
export const byteStream: Peer = denoPeer(
  "byte stream of Deno.Conn, bare",
  "byte stream",
  "fastcgi",
  "byte_stream.ts",
);
export const naive: Peer = denoPeer("naive responder", "naive", "fastcgi", "naive.ts");

/** Creates a peer: Gatehouse with an access log, in a file. */
function withAccessLog(format: string): Peer {
  const name = `Gatehouse, access log: ${format}`;
  let path = "";
  return {
    name,
    short: format,
    prepare(directory) {
      path = `${directory}/access.${format}.log`;
      return Promise.resolve();
    },
    start: (setting) =>
      startServer("fastcgi", setting, (port) => [
        ...denoCommand("gatehouse.ts", [
          `--allow-net=127.0.0.1:${port}`,
          `--allow-read=${path}`,
          `--allow-write=${path}`,
        ]),
        String(port),
        setting.app,
        format,
        path,
      ]),
  };
}

export const commonAccessLog: Peer = withAccessLog("common");
export const combinedAccessLog: Peer = withAccessLog("combined");
export const jsonAccessLog: Peer = withAccessLog("json");

/** Creates a peer: Gatehouse with options, over FastCGI or HTTP. */
export function withOptions(protocol: "fastcgi" | "http", short: string, options: unknown): Peer {
  return {
    name: `Gatehouse, ${protocol === "http" ? "HTTP" : "FastCGI"}, ${short}`,
    short,
    start: (setting) =>
      startServer(protocol, setting, (port) => [
        ...denoCommand("gatehouse_options.ts", [`--allow-net=127.0.0.1:${port}`]),
        String(port),
        setting.app,
        protocol,
        JSON.stringify(options),
      ]),
  };
}

/** Gatehouse without options, and with those that change the URL or the client of each request. */
const optionsOf = (protocol: "fastcgi" | "http"): Peer[] => [
  withOptions(protocol, "no options", {}),
  withOptions(protocol, "trustForwarded", { trustForwarded: true }),
  withOptions(protocol, "trustForwarded: a list", { trustForwarded: ["loopback"] }),
  withOptions(protocol, "basePath", { basePath: protocol === "http" ? "/other" : "auto" }),
];
export const fastCGIOptions: Peer[] = optionsOf("fastcgi");
export const httpOptions: Peer[] = optionsOf("http");

/** Creates a peer that exports telemetry to a receiver that drops it. */
function traced(peer: Peer, receiver: string): Peer {
  return {
    ...peer,
    name: `${peer.name}, telemetry`,
    short: `${peer.short} traced`,
    start: (setting) => peer.start({ ...setting, telemetry: receiver }),
  };
}

/** Nothing listens there: what is exported is dropped. */
const NO_RECEIVER = "http://127.0.0.1:9";
export const tracedGatehouse: Peer = traced(gatehouse, NO_RECEIVER);
export const tracedDenoServe: Peer = traced(denoServe, NO_RECEIVER);

/** Creates a peer: Gatehouse in several processes. @param inherited Whether they share a socket that another program opens. */
export function prefork(workers: number, inherited = false): Peer {
  const short = `Gatehouse, ${workers} ${workers === 1 ? "worker" : "workers"}`;
  const name = inherited ? `${short}, socket of spawn-fcgi` : short;
  return {
    name,
    short: name,
    prepare() {
      if (inherited) need("spawn-fcgi", "spawn-fcgi");
      return Promise.resolve();
    },
    start: (setting) =>
      startServer("fastcgi", setting, (port) => [
        ...inherited ? ["spawn-fcgi", "-n", "-a", "127.0.0.1", "-p", String(port), "--"] : [],
        ...denoCommand("gatehouse_prefork.ts", [
          `--allow-net=127.0.0.1:${port}`,
          "--allow-run",
          "--allow-env",
        ]),
        inherited ? "fd:0" : `127.0.0.1:${port}`,
        setting.app,
        String(workers),
      ]),
  };
}

/** Serves the socket that it inherits. */
export const oneWorker: Peer = prefork(1);
export const twoWorkers: Peer = prefork(2);
export const twoWorkersInherited: Peer = prefork(2, true);

/** A program that was found or built. */
interface Built {
  command(port: number): string[];
  version?: string;
}

function builtPeer(
  name: string,
  short: string,
  build: (directory: string) => Promise<Built>,
): Peer {
  let built: Built | undefined;
  return {
    name,
    short,
    async prepare(directory) {
      built ??= await build(directory);
      return built.version;
    },
    start: (setting) => startServer("fastcgi", setting, built!.command),
  };
}

export const go: Peer = builtPeer("Go net/http/fcgi", "Go", async (directory) => {
  const compiler = need("golang-go", "go");
  const server = `${directory}/go`;
  await output([compiler, "build", "-o", server, `${PEERS}/go.go`]);
  return {
    command: (port) => [server, String(port)],
    version: `Go ${await firstLine([compiler, "version"], /go([\d.]+)/)}`,
  };
});

export const libfcgi: Peer = builtPeer("libfcgi (C)", "libfcgi", async (directory) => {
  const compiler = need("gcc", "cc", "gcc", "clang");
  const server = `${directory}/libfcgi`;
  try {
    await output([compiler, "-O2", "-o", server, `${PEERS}/libfcgi.c`, "-lfcgi"]);
  } catch (error) {
    if (!/fcgiapp\.h|-lfcgi/.test((error as Error).message)) throw error;
    throw new Unavailable("no fcgiapp.h; on Debian: apt install libfcgi-dev");
  }
  return { command: (port) => [server, String(port)] };
});

/** PHP-FPM with a number of processes. */
export function phpFPM(children: number): Peer {
  const name = children === 1 ? "PHP-FPM, one child" : `PHP-FPM, ${children} children`;
  return builtPeer(name, "PHP-FPM", async (directory) => {
    const names = Array.from({ length: 10 }, (_, i) => `php-fpm8.${9 - i}`);
    const manager = need("php-fpm", "php-fpm", ...names);
    const user = Deno.uid() === 0 ? "user = root\ngroup = root" : "";
    return {
      command(port) {
        const file = `${directory}/php-fpm-${port}.conf`;
        Deno.writeTextFileSync(
          file,
          `[global]
error_log = /dev/stderr
log_level = error
[bench]
${user}
listen = 127.0.0.1:${port}
listen.backlog = 4096
pm = static
pm.max_children = ${children}
`,
        );
        return [manager, "--nodaemonize", "--allow-to-run-as-root", "--fpm-config", file];
      },
      version: await firstLine([manager, "--version"], /^(PHP [\d.]+)/),
    };
  });
}

/** PHP-FPM that serves one connection after the other. */
export const phpOne: Peer = phpFPM(1);

export const nodeFastCGI: Peer = builtPeer("node-fastcgi", "node-fastcgi", async (directory) => {
  const node = need("nodejs", "node");
  const npm = need("npm", "npm");
  const prefix = `${directory}/node`;
  const flags = ["--no-audit", "--no-fund", "--silent", "--prefix", prefix];
  const version = "node-fastcgi 2.0.0";
  try {
    await output([npm, "install", ...flags, version.replace(" ", "@")]);
  } catch {
    throw new Unavailable("npm cannot install node-fastcgi");
  }
  const library = `${prefix}/node_modules/node-fastcgi`;
  return { command: (port) => [node, `${PEERS}/node.cjs`, library, String(port)], version };
});

/** Creates a peer: nginx in front of another, on the same core. */
export function throughNginx(peer: Peer, name: string, short: string): Peer {
  let nginx = "";
  let directory = "";
  return {
    name,
    short,
    async prepare(given) {
      nginx = need("nginx", "nginx");
      directory = given;
      await peer.prepare?.(directory);
      return `nginx ${await firstLine(["sh", "-c", `${nginx} -v 2>&1`], /nginx\/([\d.]+)/)}`;
    },
    async start(setting) {
      const upstream = await peer.start(setting);
      const front = await startServer("http", setting, (port) => {
        const file = `${directory}/nginx-${port}.conf`;
        Deno.writeTextFileSync(file, nginxConfig(directory, port, upstream));
        return [nginx, "-e", "stderr", "-c", file];
      });
      return { ...front, processes: [...upstream.processes, ...front.processes] };
    },
  };
}

function nginxConfig(
  directory: string,
  port: number,
  { protocol, port: upstream }: Running,
): string {
  const variables = variablesOf({ path: "/" })
    .filter(([name]) => !name.startsWith("HTTP_") && name !== "REDIRECT_STATUS")
    .map(([name]) => `fastcgi_param ${name} ${NGINX_VARIABLES[name] ?? `$${name.toLowerCase()}`};`);
  const pass = protocol === "http"
    ? ["proxy_http_version 1.1;", 'proxy_set_header Connection "";', "proxy_set_header Host $host;"]
    : [...variables, "fastcgi_param REDIRECT_STATUS 200;", "fastcgi_keep_conn on;"];
  const temporary = ["client_body", "fastcgi", "proxy", "scgi", "uwsgi"]
    .map((name) => `${name}_temp_path ${directory}/nginx-${name};`);
  return `${Deno.uid() === 0 ? "user root;" : ""}
daemon off;
worker_processes 1;
pid ${directory}/nginx-${port}.pid;
events { worker_connections 4096; }
http {
access_log off;
${temporary.join("\n")}
keepalive_requests 1000000000;
upstream app {
  server 127.0.0.1:${upstream};
  keepalive 64;
  keepalive_requests 1000000000;
}
server {
  listen 127.0.0.1:${port};
  location / {
    ${pass.join("\n    ")}
    ${protocol === "http" ? "proxy_pass http://app" : "fastcgi_pass app"};
  }
}
}
`;
}

const NGINX_VARIABLES: Record<string, string> = {
  SCRIPT_FILENAME: SCRIPT,
  SCRIPT_NAME: "$fastcgi_script_name",
  GATEWAY_INTERFACE: "CGI/1.1",
  SERVER_SOFTWARE: "nginx/$nginx_version",
  REQUEST_SCHEME: "$scheme",
};

export const nginxGatehouse: Peer = throughNginx(
  gatehouse,
  "Gatehouse (fastcgi_pass)",
  "Gatehouse",
);
export const nginxDeno: Peer = throughNginx(denoServe, "Deno.serve (proxy_pass)", "Deno.serve");
export const nginxCeiling: Peer = throughNginx(ceiling, "Deno.Conn, bare (fastcgi_pass)", "bare");
export const nginxGo: Peer = throughNginx(go, "Go (fastcgi_pass)", "Go");
export const nginxWorkers: Peer = throughNginx(
  twoWorkers,
  "Gatehouse, 2 workers (fastcgi_pass)",
  "2 workers",
);
export const nginxPHP: Peer = throughNginx(phpOne, "PHP-FPM (fastcgi_pass)", "PHP-FPM");

function cgiScript(
  name: string,
  short: string,
  command: (directory: string) => string[] | Promise<string[]>,
): Peer {
  let found: string[] = [];
  return {
    name,
    short,
    async prepare(directory) {
      found = await command(directory);
    },
    start: () =>
      Promise.resolve({
        protocol: "http",
        port: 0,
        processes: [],
        command: found,
        env: Object.fromEntries(
          // A web server omits empty variables except the query.
          variablesOf({ path: "/" }, `${PEERS}/cgi/php.php`)
            .filter(([name, value]) => value !== "" || name === "QUERY_STRING"),
        ),
      }),
  };
}

function denoScript(name: string, short: string, file: string): Peer {
  return cgiScript(name, short, () => denoCommand(`cgi/${file}`, ["--allow-env"]));
}

export const cgiGatehouse: Peer = denoScript("Gatehouse, serve()", "Gatehouse", "gatehouse.ts");
export const cgiGatehouseOnly: Peer = denoScript(
  "Gatehouse, serveCGI()",
  "serveCGI()",
  "gatehouse_cgi.ts",
);
/** Bundles a script. @param target A file, or the folder of several. */
async function bundle(target: string, file: string, flags: string[] = []): Promise<void> {
  const command = [Deno.execPath(), "bundle", "--quiet", "--no-config", ...flags];
  const option = target.endsWith(".js") ? "--output" : "--outdir";
  try {
    await output([...command, option, target, `${PEERS}/cgi/${file}`]);
  } catch {
    throw new Unavailable("deno bundle cannot get esbuild from npm");
  }
}

function bundledScript(name: string, short: string, file: string): Peer {
  return cgiScript(name, short, async (directory) => {
    const script = `${directory}/${file.replace(".ts", ".js")}`;
    await bundle(script, file);
    return denoCommand(script, ["--allow-env"]);
  });
}

export const cgiBundled: Peer = bundledScript(
  "Gatehouse, serve(), bundled",
  "bundled",
  "gatehouse.ts",
);
export const cgiOnlyBundled: Peer = bundledScript(
  "Gatehouse, serveCGI(), bundled",
  "serveCGI(), bundled",
  "gatehouse_cgi.ts",
);
export const cgiFloor: Peer = denoScript("`deno run`, new Response", "floor", "response.ts");
export const cgiBare: Peer = denoScript("bare `deno run`", "deno run", "bare.ts");
export const cgiWebAPI: Peer = denoScript("`deno run`, Request and Response", "web", "web_api.ts");
/** How a script is bundled for a web server. */
const BUNDLES: [name: string, flags: string[]][] = [
  ["bundled", []],
  ["--minify", ["--minify"]],
  ["--code-splitting", ["--code-splitting"]],
  ["--sourcemap=inline", ["--sourcemap=inline"]],
];

/**
 * Scripts as a web server's user runs them, who has no cache that it may write: without one, and with one that its owner
 * has filled.
 */
export const cgiDeployed: Peer[] = [true, false].flatMap((cached) => [
  ...BUNDLES.map(([name, flags]) => deployed(name, flags, cached)),
  ...cached ? [deployed("not bundled", undefined, cached)] : [],
]);

function deployed(kind: string, flags: string[] | undefined, cached: boolean): Peer {
  const name = `${kind}, ${cached ? "a read-only cache" : "no cache"}`;
  const peer = cgiScript(name, name, async (directory) => {
    if (Deno.uid() !== 0) throw new Unavailable("not root, which alone can run it as another user");
    await Deno.chmod(directory, 0o755);
    const folder = `${directory}/deployed-${kind.replaceAll(/\W+/g, "-")}-${cached}`;
    await Deno.mkdir(folder);
    const split = flags?.includes("--code-splitting") === true;
    const script = flags === undefined
      ? `${PEERS}/cgi/gatehouse_cgi.ts`
      : split
      ? `${folder}/gatehouse_cgi.js`
      : `${folder}/hello.js`;
    if (flags !== undefined) await bundle(split ? folder : script, "gatehouse_cgi.ts", flags);
    const cache = `${folder}/cache`;
    const run = denoCommand(script, ["--allow-env"]);
    if (cached) await fill(cache, run);
    return ["env", `DENO_DIR=${cached ? cache : "/nonexistent"}`, ...run];
  });
  return {
    ...peer,
    start: async (setting) => ({ ...await peer.start(setting), user: NOBODY }),
  };
}

/** The number of the user who runs scripts and may write nothing. */
const NOBODY = 65534;

/** Fills a cache of compiled code as README does. */
async function fill(cache: string, run: string[]): Promise<void> {
  const env = { DENO_DIR: cache, GATEWAY_INTERFACE: "CGI/1.1", REQUEST_METHOD: "GET" };
  for (let i = 0; i < 2; i++) await output(run, { env });
  for await (const { name } of Deno.readDir(cache)) {
    if (!/_v\d+$/.test(name)) continue;
    for (const end of ["-shm", "-wal"]) {
      (await Deno.open(`${cache}/${name}${end}`, { append: true, create: true })).close();
    }
  }
}

export const cgiNode: Peer = cgiScript(
  "Node.js",
  "Node.js",
  () => [need("nodejs", "node"), `${PEERS}/cgi/node.cjs`],
);
export const cgiPython: Peer = cgiScript("Python wsgiref", "wsgiref", async () => {
  const python = need("python3", "python3");
  // The command may be a script that finds the real interpreter at each start.
  const real = (await output([python, "-c", "import sys; print(sys.executable)"])).trim();
  return [real, `${PEERS}/cgi/python.py`];
});
export const cgiPerl: Peer = cgiScript(
  "Perl",
  "Perl",
  () => [need("perl", "perl"), `${PEERS}/cgi/perl.pl`],
);
export const cgiPerlModule: Peer = cgiScript("Perl CGI.pm", "CGI.pm", async () => {
  const perl = need("perl", "perl");
  try {
    await output([perl, "-MCGI", "-e", "1"]);
  } catch {
    throw new Unavailable("no CGI.pm; on Debian: apt install libcgi-pm-perl");
  }
  return [perl, `${PEERS}/cgi/perl_cgi.pl`];
});
export const cgiPHP: Peer = cgiScript("php-cgi", "php-cgi", () => [need("php-cgi", "php-cgi")]);
