import type { Endpoint } from "../../io/address.ts";
import { formatAddress } from "../address.ts";
import { type ConfigOptions, startLines } from "./options.ts";

/** A site for Apache. */
export function apache(options: ConfigOptions): string {
  const { name, listen, protocol, path, backends: [backend] } = options;
  const scheme = protocol === "fastcgi" ? "fcgi" : "scgi";
  const host = listen === undefined ? "*:80" : formatAddress(listen);
  return `# /etc/apache2/sites-available/${name}.conf. To check and load it:
#   a2enmod proxy proxy_${scheme} && a2ensite ${name} && apachectl -t && apachectl graceful
# The app:
${startLines(options)}

${listen === undefined ? "" : `Listen ${host}\n`}<VirtualHost ${host}>
  # Without this, a path with %2F is 404.
  AllowEncodedSlashes On
  # flushpackets passes on at once what the app streams${
    keeps(backend, protocol) ? "; enablereuse keeps connections" : ""
  }.
  ProxyPass ${path || "/"} ${target(scheme, backend, path)}${
    keeps(backend, protocol) ? " enablereuse=on" : ""
  } flushpackets=on
  <Location ${path || "/"}>
    # By itself Apache does not pass the Authorization header to the app.
    CGIPassAuth On
  </Location>
</VirtualHost>
`;
}

function keeps(backend: Endpoint, protocol: string): boolean {
  return backend.transport === "tcp" && protocol === "fastcgi";
}

function target(scheme: string, backend: Endpoint, path: string): string {
  const rest = path || "/";
  return backend.transport === "tcp"
    ? `${scheme}://${formatAddress(backend)}${rest}`
    : `${formatAddress(backend)}|${scheme}://localhost${rest}`;
}
