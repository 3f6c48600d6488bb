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
import { escape, NEVER_FILES, neverFiles, type StaticFiles } from "./static_files.ts";

/** The groups that connect to the app. */
const GROUPS: Groups = { debian: "www-data", fedora: "lighttpd" };

/** A site for lighttpd. */
export function lighttpd(options: ConfigOptions): string {
  const { name, listen, protocol, path, backends, https, files } = options;
  // The key of the app: without a file, the path is rewritten to one below it.
  const key = files === undefined ? path || "/" : `/.${name}`;
  const hosts = backends.map((backend) => `(\n${indent(host(backend, key), "    ")}\n  )`).join(
    ", ",
  );
  let site = `# Pass on at once what the app streams.
server.stream-response-body = 2
${protocol}.server = (
  "${key}" => (${hosts})
)`;
  // A key alone would match the beginning of other names.
  if (files !== undefined) site = `${filesFirst(path, key, files)}${site}`;
  else if (path !== "") {
    site = `$HTTP["url"] =~ "^${escape(path)}($|/)" {\n${indent(site, "  ")}\n}`;
  }
  const socket = listen === undefined ? https ? ":443" : undefined : formatAddress(listen);
  if (https) site = `${certificateLines(options)}${site}`;
  if (socket !== undefined) {
    site = `$SERVER["socket"] == "${socket}" {\n${indent(site, "  ")}\n}`;
  }
  const modules = [
    protocol,
    ...(https ? ["openssl", "redirect"] : []),
    // The alias is for the check of the rewrite.
    ...(files === undefined ? [] : path === "" ? ["rewrite"] : ["alias", "rewrite"]),
    ...(files !== undefined && files.immutable.length > 0 ? ["expire"] : []),
  ];
  return `# /etc/lighttpd/conf-enabled/50-${name}.conf. To check and load it:
#   lighttpd -tt -f /etc/lighttpd/lighttpd.conf && systemctl reload lighttpd
# On Fedora: /etc/lighttpd/conf.d/${name}.conf, which a line of lighttpd.conf must name: include "conf.d/${name}.conf"
${startLines(options, GROUPS)}

server.modules += ( ${modules.map((module) => `"mod_${module}"`).join(", ")} )
${https ? redirect(options) : ""}${site}
`;
}

/** The site of HTTP, if the app's is HTTPS. */
function redirect(options: ConfigOptions): string {
  return `$SERVER["socket"] == ":80" {
  server.document-root = "/var/www/html"
  # All but where certbot proves that the name is yours.
  $HTTP["url"] !~ "^/\\.well-known/acme-challenge/" {
    url.redirect = ( "" => "${httpsOrigin(options, "${url.authority}")}\${url.path}\${qsa}" )
    url.redirect-code = 308
  }
}
`;
}

function certificateLines(options: ConfigOptions): string {
  const { comment, chain, key } = certificate(options);
  return `${comment}
ssl.engine = "enable"
ssl.pemfile = "${chain}"
ssl.privkey = "${key}"
`;
}

/** The rules by which a path that no file has is rewritten to one of the app. REQUEST_URI stays that of the client. */
function filesFirst(path: string, key: string, files: StaticFiles): string {
  const { root, immutable } = files;
  const app = `( "" => "${key}\${url.path}\${qsa}" )`;
  const rules = `${
    path === "" ? `server.document-root = "${root}"` : `alias.url = ( "${path}/" => "${root}/" )`
  }
${NEVER_FILES}
$HTTP["url"] =~ "(?i)${neverFiles(path)}" {
  url.rewrite-once = ${app}
}
# A file, else the app. lighttpd does not look for the index.html of a folder before that.
else $HTTP["url"] =~ "" {
  url.rewrite-if-not-file = ${app}
}
${
    immutable.length === 0
      ? ""
      : `expire.url = ( ${
        immutable.map((folder) => `"${path}${folder}/" => "access plus 365 days"`).join(", ")
      } )
`
  }`;
  return path === ""
    ? rules
    : `$HTTP["url"] =~ "^${escape(path)}($|/)" {\n${indent(rules, "  ")}}\n`;
}

function host(backend: Endpoint, key: string): string {
  const lines = backend.transport === "tcp"
    ? [`"host" => "${backend.hostname}"`, `"port" => ${backend.port}`]
    : [`"socket" => "${backend.path}"`];
  lines.push('"check-local" => "disable"');
  // Otherwise the first segment of the path becomes SCRIPT_NAME.
  if (key === "/") lines.push('"fix-root-scriptname" => "enable"');
  return lines.join(",\n");
}
