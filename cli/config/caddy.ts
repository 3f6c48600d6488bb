import type { Endpoint } from "../../io/address.ts";
import { formatAddress } from "../address.ts";
import { type ConfigOptions, type Groups, indent, startLines } from "./options.ts";
import {
  HIDDEN_BELOW,
  IMMUTABLE,
  immutableFiles,
  NEVER_ENDS,
  NEVER_FILES,
  type StaticFiles,
} from "./static_files.ts";

/** The groups that connect to the app. */
const GROUPS: Groups = { debian: "caddy", fedora: "caddy" };

/** A Caddyfile. */
export function caddy(options: ConfigOptions): string {
  const { path, backends, files } = options;
  const proxy = `reverse_proxy ${backends.map(upstream).join(" ")} {
${backends.length > 1 ? "  lb_policy least_conn\n" : ""}  # Pass on at once what the app streams.
  flush_interval -1
  # Programs take HTTP_PROXY for their own proxy.
  header_up -Proxy
  transport fastcgi {
${path === "" ? "" : `    env SCRIPT_NAME ${path}\n`}    # Log the app's errors, from Caddy 2.7 on.
    capture_stderr
  }
}`;
  const handled = files === undefined ? proxy : filesFirst(path, files, proxy);
  const site = path === ""
    ? handled
    : `redir ${path} ${path}/\nhandle_path ${path}/* {\n${indent(handled, "  ")}\n}`;
  return `# /etc/caddy/Caddyfile. To check and load it:
#   caddy validate --config /etc/caddy/Caddyfile && systemctl reload caddy
${startLines(options, GROUPS)}

{
  servers {
    timeouts {
      # How long the header of a request may take; without it, forever.
      read_header 10s
    }
  }
}

${head(options)}
${indent(site, "  ")}
}
`;
}

function head({ listen, serverNames, https }: ConfigOptions): string {
  const tcp = listen?.transport === "tcp" ? listen : undefined;
  const port = tcp === undefined ? "" : `:${tcp.port}`;
  const names = (serverNames.length > 0 ? serverNames : [""])
    .map((name) => `${https ? "" : "http://"}${name}${port || (name === "" ? ":80" : "")}`);
  const comment = https
    ? "# Caddy gets the certificate, keeps it in /var/lib/caddy, and redirects HTTP."
    : "# Caddy serves HTTPS with a domain, such as example.com, in place of an address with http://.";
  const bind = tcp === undefined
    ? ""
    : `\n  bind ${tcp.hostname.includes(":") ? `[${tcp.hostname}]` : tcp.hostname}`;
  return `${comment}\n${names.join(", ")} {${bind}`;
}

/** The app for the paths that no file has. */
function filesFirst(path: string, files: StaticFiles, proxy: string): string {
  const immutable = immutableFiles(files);
  // Caddy's regular expressions have no lookahead.
  const hidden = path === ""
    ? "not {\n    path /.*\n    not path /.well-known/*\n  }"
    : "not path /.*";
  return `root * ${files.root}
${NEVER_FILES}
@files {
  not path_regexp (?i)${HIDDEN_BELOW}|${NEVER_ENDS}
  ${hidden}
  # A file, or the index.html of a folder.
  file {path} {path}/index.html
}
handle @files {
${
    immutable === undefined ? "" : `  @immutable path_regexp ${immutable}
  header @immutable Cache-Control "${IMMUTABLE}"
`
  }  rewrite * {http.matchers.file.relative}
  file_server
}
handle {
${indent(proxy, "  ")}
}`;
}

function upstream(backend: Endpoint): string {
  return backend.transport === "tcp" ? formatAddress(backend) : `unix/${backend.path}`;
}
