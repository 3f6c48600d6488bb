import { formatAddress } from "../address.ts";
import { type ConfigOptions, startLines } from "./options.ts";

/** How FastCGI streams: with buffers, as the lack of an end shows only with them. */
const KEPT =
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
  const { name, listen, protocol, path, backends } = options;
  const several = backends.length > 1;
  const servers = backends.map((backend) =>
    `  server ${formatAddress(backend)}${several ? " max_fails=0" : ""};`
  );
  // A variable of nginx has no dash or dot in its name.
  const id = name.replaceAll(/\W/g, "_");
  // Not $1, which the map replaces by what it matches itself.
  const [location, pathInfo] = path === ""
    ? ["/", "$document_uri"]
    : [`~ ^${path.replaceAll(".", "\\.")}(?<path_of_${id}>/.*)?$`, `$path_of_${id}`];
  // Only FastCGI connections carry a second request.
  const keeps = protocol === "fastcgi";
  return `# /etc/nginx/conf.d/${name}.conf. To check and load it: nginx -t && nginx -s reload
# The app:
${startLines(options)}

upstream ${name} {
${several ? "  # The back end with the fewest requests is next.\n  least_conn;\n" : ""}${
    servers.join("\n")
  }
${keeps ? "  # Idle connections that each worker process keeps.\n  keepalive 8;\n" : ""}}

# The client's host with the port that it sent. $host has no port, and $http_host may be another host than the target's.
map "$host|$http_host" $host_of_${id} {
  "~*^([^|]+)\\|\\1(?<port_of_${id}>:\\d+)$" $host$port_of_${id};
  default $host;
}

server {
  listen ${listenOn(listen)};
  # Without a server_name, Debian's sites-enabled/default takes the requests of its port.
  # The largest upload; by default 1m.
  client_max_body_size 20m;

  location ${location} {
    include ${protocol}_params;
    ${protocol}_param SCRIPT_NAME "${path}";
    ${protocol}_param PATH_INFO ${pathInfo};
    ${protocol}_param HTTP_HOST $host_of_${id};
${keeps ? KEPT : STREAMED}${
    several
      ? `    # Send a request to the next back end if one closes before it responds. Without non_idempotent a POST is
    # not sent again, whose effect then cannot double, but which a restarting back end may lose.
    ${protocol}_next_upstream error timeout non_idempotent;
`
      : ""
  }    ${protocol}_pass ${name};
  }
}
`;
}

function listenOn(listen: ConfigOptions["listen"]): string {
  return listen === undefined ? "80" : formatAddress(listen);
}
