import type { Endpoint } from "../../io/address.ts";
import { formatAddress } from "../address.ts";
import { type ConfigOptions, startLines } from "./options.ts";

/** How many idle connections are kept. */
const KEPT = 8;
/** How FastCGI streams: with buffers, as the lack of an end shows only with them. */
const BUFFERED =
  `    # Keep connections for the next request. With this nginx also passes on at once what the app streams, and a
    # client sees if a response ends too early.
    fastcgi_keep_conn on;
    # A client that reads slowly slows down the app, and fills no disk.
    fastcgi_max_temp_file_size 0;
`;
/** How SCGI streams. */
const STREAMED = `    # Pass on at once what the app streams.
    scgi_buffering off;
`;

/** A site for nginx. */
export function nginx(options: ConfigOptions): string {
  const { name, listen, serverNames, protocol, path, backends } = options;
  // A variable of nginx has no dash or dot in its name.
  const id = name.replaceAll(/\W/g, "_");
  // Not $1, which the map replaces by what it matches itself.
  const [location, pathInfo] = path === ""
    ? ["/", "$document_uri"]
    : [`~ ^${path.replaceAll(".", "\\.")}(?<path_of_${id}>/.*)?$`, `$path_of_${id}`];
  // Only FastCGI connections carry a second request.
  const kept = protocol === "fastcgi" ? KEPT : 0;
  return `# /etc/nginx/conf.d/${name}.conf. To check and load it: nginx -t && nginx -s reload
# The app:
${startLines(options)}

upstream ${name} {
${backends.length > 1 ? several(backends) : one(backends[0], kept)}${
    kept > 0 ? `  # Idle connections that each worker process keeps.\n  keepalive ${kept};\n` : ""
  }}

# The client's host with the port that it sent. $host has no port, and $http_host may be another host than the target's.
map "$host|$http_host" $host_of_${id} {
  "~*^([^|]+)\\|\\1(?<port_of_${id}>:\\d+)$" $host$port_of_${id};
  default $host;
}

server {
  listen ${listen === undefined ? "80" : formatAddress(listen)};
${
    serverNames.length > 0
      ? `  server_name ${serverNames.join(" ")};\n`
      : "  # Without a server_name, Debian's sites-enabled/default takes the requests of its port.\n"
  }  # The largest upload; by default 1m.
  client_max_body_size 20m;

  location ${location} {
    include ${protocol}_params;
    ${protocol}_param SCRIPT_NAME "${path}";
    ${protocol}_param PATH_INFO ${pathInfo};
    ${protocol}_param HTTP_HOST $host_of_${id};
${kept > 0 ? BUFFERED : STREAMED}${repeat(options)}    ${protocol}_pass ${name};
  }
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
    ? `    # A back end that accepts no connection within a second has failed.
    ${protocol}_connect_timeout 1s;
    # If a back end ends before it responds, or sends nothing for ${protocol}_read_timeout, send the request to the
    # next. Not a POST or PATCH, whose effect could double.
    ${protocol}_next_upstream error timeout;
    ${protocol}_next_upstream_tries ${backends.length + 1};
`
    : `    # If a worker ends before it responds, send the request to another, once. Not a POST or PATCH, whose effect
    # could double.
    ${protocol}_next_upstream error;
    ${protocol}_next_upstream_tries 2;
`;
}
