import type { Endpoint } from "../../io/address.ts";
import { formatAddress } from "../address.ts";
import { type ConfigOptions, indent, startLines } from "./options.ts";

/** A Caddyfile. */
export function caddy(options: ConfigOptions): string {
  const { listen, path, backends } = options;
  const proxy = `reverse_proxy ${backends.map(upstream).join(" ")} {
${backends.length > 1 ? "  lb_policy least_conn\n" : ""}  # Pass on at once what the app streams.
  flush_interval -1
  transport fastcgi {
${path === "" ? "" : `    env SCRIPT_NAME ${path}\n`}    # Log the app's errors, from Caddy 2.7 on.
    capture_stderr
  }
}`;
  const site = path === ""
    ? proxy
    : `redir ${path} ${path}/\nhandle_path ${path}/* {\n${indent(proxy, "  ")}\n}`;
  return `# /etc/caddy/Caddyfile. To check and load it:
#   caddy validate --config /etc/caddy/Caddyfile && systemctl reload caddy
# The app:
${startLines(options)}

{
  servers {
    timeouts {
      # How long the header of a request may take; without it, for ever.
      read_header 10s
    }
  }
}

# With a domain instead, such as example.com, Caddy serves HTTPS.
${head(listen)}
${indent(site, "  ")}
}
`;
}

function head(listen: Endpoint | undefined): string {
  if (listen?.transport !== "tcp") return "http://:80 {";
  const host = listen.hostname.includes(":") ? `[${listen.hostname}]` : listen.hostname;
  return `http://:${listen.port} {\n  bind ${host}`;
}

function upstream(backend: Endpoint): string {
  return backend.transport === "tcp" ? formatAddress(backend) : `unix/${backend.path}`;
}
