import type { Endpoint } from "../../io/address.ts";
import { formatAddress } from "../address.ts";
import { type ConfigOptions, indent, startLines } from "./options.ts";

/** A site for lighttpd. */
export function lighttpd(options: ConfigOptions): string {
  const { name, listen, protocol, path, backends } = options;
  const hosts = backends.map((backend) => `(\n${indent(host(backend, path), "    ")}\n  )`).join(
    ", ",
  );
  let site = `# Pass on at once what the app streams.
server.stream-response-body = 2
${protocol}.server = (
  "${path || "/"}" => (${hosts})
)`;
  // A key alone would match the beginning of other names.
  if (path !== "") {
    site = `$HTTP["url"] =~ "^${path.replaceAll(".", "\\.")}($|/)" {\n${indent(site, "  ")}\n}`;
  }
  if (listen !== undefined) {
    site = `$SERVER["socket"] == "${formatAddress(listen)}" {\n${indent(site, "  ")}\n}`;
  }
  return `# /etc/lighttpd/conf-enabled/50-${name}.conf. To check and load it:
#   lighttpd -tt -f /etc/lighttpd/lighttpd.conf && systemctl reload lighttpd
# The app:
${startLines(options)}

server.modules += ( "mod_${protocol}" )
${site}
`;
}

function host(backend: Endpoint, path: string): string {
  const lines = backend.transport === "tcp"
    ? [`"host" => "${backend.hostname}"`, `"port" => ${backend.port}`]
    : [`"socket" => "${backend.path}"`];
  lines.push('"check-local" => "disable"');
  // Otherwise the first segment of the path becomes SCRIPT_NAME.
  if (path === "") lines.push('"fix-root-scriptname" => "enable"');
  return lines.join(",\n");
}
