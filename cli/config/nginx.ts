import type { Endpoint } from "../../io/address.ts";
import { formatAddress } from "../address.ts";
import {
  certificate,
  type ConfigOptions,
  type Groups,
  httpsOrigin,
  indent,
  startLines,
} from "./options.ts";
import { escape, IMMUTABLE, immutableFiles, NEVER_FILES, neverFiles } from "./static_files.ts";

/** The groups that connect to the app. */
const GROUPS: Groups = { debian: "www-data", fedora: "nginx" };

/** How many idle connections are kept. */
const KEPT = 8;
/**
 * How old a request may be that is sent again: for one back end less than the default of --worker-timeout, for several
 * more than nginx waits for the first.
 */
const LATE = { one: "30s", several: "90s" };
/** How FastCGI streams: with buffers, as the lack of an end shows only with them. */
const BUFFERED =
  `# Keep connections for the next request. With this nginx also passes on at once what the app streams, and a
# client sees if a response ends too early.
fastcgi_keep_conn on;
# A client that reads slowly slows down the app, and fills no disk.
fastcgi_max_temp_file_size 0;
`;
/** How SCGI streams. */
const STREAMED = `# Pass on at once what the app streams.
scgi_buffering off;
`;

/** A site for nginx. */
export function nginx(options: ConfigOptions): string {
  const { name, serverNames, protocol, backends, https } = options;
  const id = idOf(options);
  // Only FastCGI connections carry a second request.
  const kept = protocol === "fastcgi" ? KEPT : 0;
  const immutable = options.files && immutableFiles(options.files);
  return `# /etc/nginx/conf.d/${name}.conf. To check and load it: nginx -t && nginx -s reload
${startLines(options, GROUPS)}

upstream ${name} {
${backends.length > 1 ? several(backends) : one(backends[0], kept)}${
    kept > 0 ? `  # Idle connections that each worker process keeps.\n  keepalive ${kept};\n` : ""
  }}

# The client's host with the port that it sent. $host has no port, and $http_host may be another host than the target's.
${hostMap(id)}
${
    immutable === undefined ? "" : `
# How long a client keeps a file, by its path in the folder.
map $uri $cache_of_${id} {
  "~${immutable}" "${IMMUTABLE}";
  default "";
}
`
  }${https ? `\n${redirect(options)}` : ""}
server {
  listen ${listenOn(options)};
${
    serverNames.length > 0
      ? `  server_name ${serverNames.join(" ")};\n`
      : "  # Without a server_name, Debian's sites-enabled/default takes the requests of its port.\n"
  }${https ? indent(certificateLines(options), "  ") : ""}  # The largest upload; by default 1m.
  client_max_body_size 20m;

${indent(options.files === undefined ? app(options) : filesFirst(options), "  ")}}
`;
}

/** The host that a client has sent, with its port, as a variable $host_of_ID. */
export function hostMap(id: string): string {
  return `map "$host|$http_host" $host_of_${id} {
  "~*^([^|]+)\\|\\1(?<port_of_${id}>:\\d+)$" $host$port_of_${id};
  default $host;
}`;
}

/** Returns a name for variables, which have no dash or dot. */
function idOf({ name }: ConfigOptions): string {
  return name.replaceAll(/\W/g, "_");
}

function listenOn({ listen, https }: ConfigOptions): string {
  return `${listen === undefined ? https ? "443" : "80" : formatAddress(listen)}${
    https ? " ssl" : ""
  }`;
}

/** The site of HTTP, if the app's is HTTPS. */
function redirect(options: ConfigOptions): string {
  return `server {
  listen 80;
  server_name ${options.serverNames.join(" ")};

  location / {
    return 308 ${httpsOrigin(options, "$host")}$request_uri;
  }
  # Where certbot proves that the name is yours.
  location /.well-known/acme-challenge/ {
    root /var/www/html;
  }
}
`;
}

function certificateLines(options: ConfigOptions): string {
  const { comment, chain, key } = certificate(options);
  return `${comment}
ssl_certificate ${chain};
ssl_certificate_key ${key};
`;
}

/** The app for the paths that no file has. */
function filesFirst(options: ConfigOptions): string {
  const { path, files } = options;
  const [location, file] = path === "" ? ["/", "$uri"] : mount(options);
  const never = neverFiles(path, path === "" ? undefined : file.slice(1));
  return `root ${files!.root};

${NEVER_FILES}
location ~* "${never}" {
  error_page 404 = @${options.name};
  return 404;
}

# A file, else the index.html of a folder, else the app.
location ${location} {
  try_files ${file} ${file}/index.html @${options.name};
${files!.immutable.length > 0 ? `  add_header Cache-Control $cache_of_${idOf(options)};\n` : ""}}

${app(options, `@${options.name}`)}`;
}

/** The location of the path, and the variable with the rest of it. Not $1, which a map replaces by what it matches itself. */
function mount(options: ConfigOptions): [location: string, rest: string] {
  const rest = `path_of_${idOf(options)}`;
  return [`~ ^${escape(options.path)}(?<${rest}>/.*)?$`, `$${rest}`];
}

/** The location of the app. */
function app(options: ConfigOptions, named?: string): string {
  const { name, protocol, path } = options;
  const [location, pathInfo] = path === "" ? ["/", "$document_uri"] : mount(options);
  return `location ${named ?? location} {
  include ${protocol}_params;
  ${protocol}_param SCRIPT_NAME "${path}";
  ${protocol}_param PATH_INFO ${pathInfo};
  ${protocol}_param HTTP_HOST $host_of_${idOf(options)};
  # Programs take this variable for their own proxy, and a client could set it by a header.
  ${protocol}_param HTTP_PROXY "";
${
    indent((protocol === "fastcgi" ? BUFFERED : STREAMED) + repeat(options), "  ")
  }  ${protocol}_pass ${name};
}
`;
}

/** The servers of an upstream with one back end. */
function one(backend: Endpoint, kept: number): string {
  // One for the connection that a worker closes as it ends, one for each that it closes at the same time, and one more.
  const tries = kept + 2;
  const server = `  server ${formatAddress(backend)} max_fails=0;\n`;
  return `  # The same ${tries} times, as nginx tries each line once: if a worker ends, ${
    kept === 0 ? "a new connection" : "idle connections"
  } may be its, too.\n${server.repeat(tries)}`;
}

/** The servers of an upstream with several back ends. */
function several(backends: Endpoint[]): string {
  const servers = (parameters: string) =>
    backends.map((backend) => `  server ${formatAddress(backend)} ${parameters};\n`).join("");
  return `  # The back end with the fewest requests is next. One that fails is left out for 5 seconds.
  least_conn;
${servers("max_fails=1 fail_timeout=5s")}  # Tried when all have failed.
${servers("backup max_fails=0")}`;
}

/** When a request is sent again. */
function repeat({ protocol, backends }: ConfigOptions): string {
  return backends.length > 1
    ? `# A back end that accepts no connection within a second has failed.
${protocol}_connect_timeout 1s;
# If a back end ends before it responds, or sends nothing for ${protocol}_read_timeout, send the request to the
# next. Not a POST or PATCH, whose effect could double.
${protocol}_next_upstream error timeout;
${protocol}_next_upstream_tries ${backends.length + 1};
# Not after ${LATE.several}: a request that loops would take a worker of each.
${protocol}_next_upstream_timeout ${LATE.several};
`
    : `# If a worker ends before it responds, send the request to another, once. Not a POST or PATCH, whose effect
# could double.
${protocol}_next_upstream error;
${protocol}_next_upstream_tries 2;
# Not after ${LATE.one}: a request that loops until its worker is killed would take another.
${protocol}_next_upstream_timeout ${LATE.one};
`;
}
