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

/** The groups that connect to the app. */
const GROUPS: Groups = { debian: "haproxy", fedora: "haproxy" };

/** How requests are balanced. */
const BALANCED = `  # The back end with the fewest connections is next; another, if it fails.
  balance leastconn
  option redispatch 1
`;

/** When a request is sent again. */
function repeat(several: boolean): string {
  const times = several ? "" : ", once";
  return `  # If the app ends before it responds, send the request again${times}. Not a POST or PATCH, whose effect could double.
${several ? "" : "  retries 1\n"}  retry-on conn-failure empty-response${
    several ? " response-timeout" : ""
  }
  http-request disable-l7-retry unless { method GET HEAD OPTIONS PUT DELETE }
`;
}

/** A configuration of HAProxy. */
export function haproxy(options: ConfigOptions): string {
  const { name, path, backends } = options;
  const several = backends.length > 1;
  const servers = backends.map((backend, i) =>
    `  server ${name}${i + 1} ${server(backend)} proto fcgi${several ? " check" : ""}`
  );
  return `# /etc/haproxy/haproxy.cfg. To check and load it:
#   haproxy -c -f /etc/haproxy/haproxy.cfg && systemctl reload haproxy
${startLines(options, GROUPS)}

global
  log stderr format raw daemon

defaults
  mode http
  log global
  timeout connect ${several ? "1s" : "5s"}
  timeout client 30s
  timeout server 30s
  # How long the header of a request may take, and how long a connection may wait for the next request.
  timeout http-request 10s
  timeout http-keep-alive 30s

frontend ${name}
${indent(bind(options), "  ")}
  ${route(options)}

backend ${name}
  use-fcgi-app ${name}
${several ? BALANCED : ""}${repeat(several)}${servers.join("\n")}

fcgi-app ${name}
  docroot /
  # SCRIPT_NAME and PATH_INFO.
  path-info ^(${path.replaceAll(".", "\\.")})(/.*)$
  # By itself HAProxy does not pass the Authorization header to the app.
  pass-header Authorization
`;
}

function bind(options: ConfigOptions): string {
  const { listen, https, serverNames } = options;
  if (!https) return `bind ${listen === undefined ? "*:80" : formatAddress(listen)}`;
  const { comment, chain, key } = certificate(options, "--standalone");
  const file = `/etc/haproxy/${serverNames[0]}.pem`;
  return `${comment}, while nothing listens on port 80.
# In one file, as root: umask 077; cat ${chain} ${key} > ${file}
bind ${listen === undefined ? "*:443" : formatAddress(listen)} ssl crt ${file}
bind *:80
http-request redirect prefix ${
    httpsOrigin(options, "%[req.hdr(host),host_only]")
  } code 308 unless { ssl_fc }`;
}

/** Which requests go to the app. */
function route({ name, path, serverNames }: ConfigOptions): string {
  const host = serverNames.length === 0
    ? ""
    : ` { req.hdr(host),host_only -m str -i ${serverNames.join(" ")} }`;
  const conditions = path === ""
    ? [host]
    : [`{ path ${path} }`, `{ path_beg ${path}/ }`].map((condition) => `${host} ${condition}`);
  return conditions.join("") === ""
    ? `default_backend ${name}`
    : `use_backend ${name} if${conditions.join(" ||")}`;
}

function server(backend: Endpoint): string {
  return backend.transport === "tcp" ? formatAddress(backend) : `unix@${backend.path}`;
}
