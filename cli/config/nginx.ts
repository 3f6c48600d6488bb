import { formatAddress } from "../address.ts";
import { type ConfigOptions, startLines } from "./options.ts";

/** A site for nginx. */
export function nginx(options: ConfigOptions): string {
  const { name, listen, protocol, path, backends } = options;
  const several = backends.length > 1;
  const servers = backends.map((backend) =>
    `  server ${formatAddress(backend)}${several ? " max_fails=0" : ""};`
  );
  const [location, pathInfo] = path === ""
    ? ["/", "$document_uri"]
    : [`~ ^${path.replaceAll(".", "\\.")}(/.*)?$`, "$1"];
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

server {
  listen ${listenOn(listen)};
  # Without a server_name, Debian's sites-enabled/default takes the requests of its port.
  # The largest upload; by default 1m.
  client_max_body_size 20m;

  location ${location} {
    include ${protocol}_params;
    ${protocol}_param SCRIPT_NAME "${path}";
    ${protocol}_param PATH_INFO ${pathInfo};
    # Debian's ${protocol}_params have the host without its port.
    ${protocol}_param HTTP_HOST $host:$server_port;
    # Pass on at once what the app streams.
    ${protocol}_buffering off;
${keeps ? "    # Keep connections for the next request.\n    fastcgi_keep_conn on;\n" : ""}${
    several
      ? `    # Send a request to the next back end if one closes before it responds, but no POST, which may have
    # had its effect. Where a POST may run twice, add non_idempotent: then a restart loses none.
    ${protocol}_next_upstream error timeout;
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
