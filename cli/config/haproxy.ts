import type { Endpoint } from "../../io/address.ts";
import { formatAddress } from "../address.ts";
import { type ConfigOptions, startLines } from "./options.ts";

/** A configuration of HAProxy. */
export function haproxy(options: ConfigOptions): string {
  const { name, listen, path, backends } = options;
  const several = backends.length > 1;
  const servers = backends.map((backend, i) =>
    `  server ${name}${i + 1} ${server(backend)} proto fcgi${several ? " check" : ""}`
  );
  return `# /etc/haproxy/haproxy.cfg. To check and load it:
#   haproxy -c -f /etc/haproxy/haproxy.cfg && systemctl reload haproxy
# The app:
${startLines(options)}

global
  log stderr format raw daemon

defaults
  mode http
  log global
  timeout connect 5s
  timeout client 30s
  timeout server 30s
  # How long the header of a request may take, and how long a connection may wait for the next request.
  timeout http-request 10s
  timeout http-keep-alive 30s

frontend ${name}
  bind ${listen === undefined ? "*:80" : formatAddress(listen)}
  ${
    path === ""
      ? `default_backend ${name}`
      : `use_backend ${name} if { path ${path} } || { path_beg ${path}/ }`
  }

backend ${name}
  use-fcgi-app ${name}
${
    several
      ? `  # The back end with the fewest connections is next; another, if it cannot be reached or closes before it
  # responds, but not for a POST, which may have had its effect.
  balance leastconn
  option redispatch 1
  retry-on conn-failure empty-response
  http-request disable-l7-retry unless METH_GET
`
      : ""
  }${servers.join("\n")}

fcgi-app ${name}
  docroot /
  # SCRIPT_NAME and PATH_INFO.
  path-info ^(${path.replaceAll(".", "\\.")})(/.*)$
  # By itself HAProxy does not pass the Authorization header to the app.
  pass-header Authorization
`;
}

function server(backend: Endpoint): string {
  return backend.transport === "tcp" ? formatAddress(backend) : `unix@${backend.path}`;
}
