/** Who takes part as a gateway: Gatehouse and web servers, each before the same application. */

import {
  denoCommand,
  firstLine,
  need,
  type Peer,
  PEERS,
  phpFPM,
  type Running,
  type Setting,
  startServer,
} from "./peers.ts";
import { output } from "./process.ts";

/** What a gateway stands before. */
type Kind = "fastcgi" | "php" | "scgi" | "cgi";

const phpFour = phpFPM(4);
const SOURCES = `${PEERS}/gateway`;

/** Builds or finds the application. Returns how to start it, if it is a server. */
async function prepareApplication(kind: Kind, directory: string): Promise<void> {
  if (kind === "php") return void await phpFour.prepare?.(directory);
  const compiler = need("gcc libc6-dev", "cc", "gcc", "clang");
  const [source, flags] = kind === "cgi" ? ["hello", []] : ["app", ["-pthread"]];
  await output([
    compiler,
    "-O2",
    ...flags,
    "-o",
    `${directory}/${source}`,
    `${SOURCES}/${source}.c`,
  ]);
}

async function startApplication(kind: Kind, setting: Setting, directory: string): Promise<Running> {
  if (kind === "php") return await phpFour.start(setting);
  if (kind === "cgi") return { protocol: "http", port: 0, processes: [] };
  return await startServer(kind, setting, (port) => [`${directory}/app`, kind, String(port)]);
}

/** A gateway: how it is found, and the command that starts it. */
interface Front {
  name: string;
  short: string;
  /** Finds or builds the parts that it needs. Returns its name and version. */
  prepare?(directory: string): Promise<string>;
  /** @param application The port of the application, or the CGI program. */
  command(kind: Kind, port: number, application: string, directory: string): string[];
}

/** A gateway before an application of a kind. */
function before(kind: Kind, front: Front): Peer {
  let directory = "";
  return {
    name: front.name,
    short: front.short,
    async prepare(given) {
      directory = given;
      await prepareApplication(kind, directory);
      return await front.prepare?.(directory);
    },
    async start(setting) {
      const { processes, port: application } = await startApplication(kind, setting, directory);
      const target = kind === "cgi" ? `${directory}/hello` : `127.0.0.1:${application}`;
      const running = await startServer(
        "http",
        setting,
        (port) => front.command(kind, port, target, directory),
      );
      return { ...running, behind: processes };
    },
  };
}

const gatehouse: Front = {
  name: "Gatehouse",
  short: "Gatehouse",
  command: (kind, port, target) => [
    ...denoCommand("gateway/gatehouse.ts", ["--allow-net", "--allow-read", "--allow-run"]),
    String(port),
    ...(kind === "php" ? ["fastcgi", target, PEERS] : [kind, target]),
  ],
};

/** What Deno alone costs for CGI: no gateway on it can be faster. */
const command: Front = {
  name: "Deno.Command, bare",
  short: "Deno.Command",
  command: (_kind, port, target) => [
    ...denoCommand("gateway/command.ts", ["--allow-net", "--allow-run"]),
    String(port),
    target,
  ],
};

/** The same for FastCGI. */
const conn: Front = {
  name: "Deno.serve and Deno.Conn, bare",
  short: "Deno.Conn",
  command: (_kind, port, target) => [
    ...denoCommand("gateway/conn.ts", ["--allow-net"]),
    String(port),
    target,
  ],
};

/** What Deno.Command costs with the program that starts a process group, so that the children of a script can be killed. */
const commandGroup: Front = {
  name: "Deno.Command, setsid",
  short: "setsid",
  prepare() {
    need("util-linux", "setsid");
    return Promise.resolve("");
  },
  command: (kind, port, target, directory) => [
    ...command.command(kind, port, target, directory),
    need("util-linux", "setsid"),
  ],
};

/** Keeps its connections, to show what it costs that others are served in turn. */
const keeping: Front = {
  name: "Gatehouse, connections kept",
  short: "kept",
  command: (kind, port, target, directory) => [
    ...gatehouse.command(kind, port, target, directory),
    "",
    "3600000",
  ],
};

function configured(
  directory: string,
  name: string,
  port: number,
  text: string,
): string {
  const file = `${directory}/${name}-${port}.conf`;
  Deno.writeTextFileSync(file, text);
  return file;
}

const nginx: Front = {
  name: "nginx",
  short: "nginx",
  prepare: () => version("nginx", ["-v"], /(nginx\/[\d.]+)/),
  command: (kind, port, target, directory) => [
    need("nginx", "nginx"),
    "-e",
    "stderr",
    "-c",
    configured(directory, "gateway-nginx", port, nginxConfig(kind, port, target, directory)),
  ],
};

/** PHP-FPM has a process for each connection: nginx then keeps none, which is its default. */
function nginxConfig(kind: Kind, port: number, target: string, directory: string): string {
  const pass = kind === "scgi" ? "scgi" : "fastcgi";
  const variables = [
    "QUERY_STRING",
    "REQUEST_METHOD",
    "CONTENT_TYPE",
    "CONTENT_LENGTH",
    "REQUEST_URI",
  ]
    .concat(
      "DOCUMENT_URI",
      "SERVER_PROTOCOL",
      "REMOTE_ADDR",
      "REMOTE_PORT",
      "SERVER_PORT",
      "SERVER_NAME",
    )
    .map((name) => `${pass}_param ${name} $${name.toLowerCase()};`);
  if (kind === "php") variables.push(`fastcgi_param SCRIPT_FILENAME ${PEERS}$uri;`);
  if (kind === "fastcgi") variables.push("fastcgi_keep_conn on;");
  const temporary = ["client_body", "fastcgi", "proxy", "scgi", "uwsgi"]
    .map((name) => `${name}_temp_path ${directory}/nginx-${name};`);
  return `${Deno.uid() === 0 ? "user root;" : ""}
daemon off;
worker_processes 1;
pid ${directory}/gateway-nginx-${port}.pid;
events { worker_connections 4096; }
http {
access_log off;
client_max_body_size 0;
${temporary.join("\n")}
keepalive_requests 1000000000;
upstream app {
  server ${target};
  ${kind === "fastcgi" ? "keepalive 64;" : ""}
}
server {
  listen 127.0.0.1:${port};
  location / {
    ${variables.join("\n    ")}
    ${pass}_pass app;
  }
}
}
`;
}

const caddy: Front = {
  name: "Caddy",
  short: "Caddy",
  prepare: () => version("caddy", ["version"], /v?([\d.]+)/, "Caddy "),
  command: (_kind, port, target, directory) => [
    "env",
    `HOME=${directory}`,
    `XDG_CONFIG_HOME=${directory}`,
    need("caddy", "caddy"),
    "run",
    "--adapter",
    "caddyfile",
    "--config",
    configured(
      directory,
      "gateway-caddy",
      port,
      `{
  admin off
  auto_https off
}
:${port} {
  bind 127.0.0.1
  reverse_proxy ${target} {
    transport fastcgi {
      root ${PEERS}
      split .php
    }
  }
}
`,
    ),
  ],
};

const lighttpd: Front = {
  name: "lighttpd",
  short: "lighttpd",
  prepare: () => version("lighttpd", ["-v"], /(lighttpd\/[\d.]+)/),
  command: (kind, port, target, directory) => [
    need("lighttpd", "lighttpd"),
    "-D",
    "-f",
    configured(directory, "gateway-lighttpd", port, lighttpdConfig(kind, port, target, directory)),
  ],
};

function lighttpdConfig(kind: Kind, port: number, target: string, directory: string): string {
  const [host, application] = target.split(":");
  const servers =
    `( "/" => (( "host" => "${host}", "port" => ${application}, "check-local" => "disable" )) )`;
  const script = target.slice(directory.length);
  return `server.bind = "127.0.0.1"
server.port = ${port}
server.document-root = "${kind === "cgi" ? directory : PEERS}"
server.max-keep-alive-requests = 100000000
server.modules = ( "mod_alias", "mod_cgi", "mod_fastcgi", "mod_scgi" )
${
    kind === "cgi"
      ? `alias.url = ( "/hello" => "${directory}${script}" )\ncgi.assign = ( "/hello" => "" )`
      : `${kind}.server = ${servers}`
  }
`;
}

const go: Front = {
  name: "Go net/http/cgi",
  short: "Go",
  async prepare(directory) {
    const compiler = need("golang-go", "go");
    await output([compiler, "build", "-o", `${directory}/cgi-go`, `${SOURCES}/cgi.go`]);
    return `Go ${await firstLine([compiler, "version"], /go([\d.]+)/)}`;
  },
  command: (_kind, port, target, directory) => [`${directory}/cgi-go`, String(port), target],
};

async function version(
  name: string,
  args: string[],
  pattern: RegExp,
  label = "",
): Promise<string> {
  const found = await firstLine(["sh", "-c", '"$0" "$@" 2>&1', need(name, name), ...args], pattern);
  return label + found.replace("/", " ");
}

export const fastCGI: Peer = before("fastcgi", gatehouse);
export const fastCGIKept: Peer = before("fastcgi", keeping);
export const fastCGINginx: Peer = before("fastcgi", nginx);
export const fastCGICaddy: Peer = before("fastcgi", caddy);
export const fastCGILighttpd: Peer = before("fastcgi", lighttpd);
export const fastCGIConn: Peer = before("fastcgi", conn);
export const php: Peer = before("php", gatehouse);
export const phpNginx: Peer = before("php", nginx);
export const phpCaddy: Peer = before("php", caddy);
export const scgi: Peer = before("scgi", gatehouse);
export const scgiNginx: Peer = before("scgi", nginx);
export const scgiLighttpd: Peer = before("scgi", lighttpd);
export const cgi: Peer = before("cgi", gatehouse);
export const cgiCommand: Peer = before("cgi", command);
export const cgiCommandGroup: Peer = before("cgi", commandGroup);
export const cgiGo: Peer = before("cgi", go);
export const cgiLighttpd: Peer = before("cgi", lighttpd);
