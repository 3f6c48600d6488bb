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
import {
  escape,
  IMMUTABLE,
  immutableFiles,
  NEVER_FILES,
  neverFiles,
  type StaticFiles,
} from "./static_files.ts";

/** The groups that connect to the app. */
const GROUPS: Groups = { debian: "www-data", fedora: "apache" };

/** A site for Apache. */
export function apache(options: ConfigOptions): string {
  const { name, listen, protocol, path, backends: [backend], https, files } = options;
  const scheme = protocol === "fastcgi" ? "fcgi" : "scgi";
  const host = listen === undefined ? https ? "*:443" : "*:80" : formatAddress(listen);
  const modules = [
    `proxy proxy_${scheme}`,
    ...(https ? ["ssl rewrite"] : files === undefined ? [] : ["rewrite"]),
    ...(files !== undefined && files.immutable.length > 0 ? ["headers"] : []),
  ];
  return `# /etc/apache2/sites-available/${name}.conf. To check and load it:
#   a2enmod ${modules.join(" ")} && a2ensite ${name} && apachectl -t && apachectl graceful
# On Fedora: /etc/httpd/conf.d/${name}.conf, and ${
    https ? "dnf install mod_ssl && " : ""
  }apachectl -t && systemctl reload httpd
${startLines(options, GROUPS)}

${https ? `${redirect(options)}\n` : ""}${
    listen === undefined ? "" : `Listen ${host}\n`
  }<VirtualHost ${host}>
${indent(serverName(options) + (https ? certificateLines(options) : ""), "  ")}${
    files === undefined ? "" : indent(filesFirst(path, files), "  ")
  }  # Without this, a path with %2F is 404.
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

function serverName({ serverNames: [name, ...others] }: ConfigOptions): string {
  if (name === undefined) return "";
  return `ServerName ${name}\n${others.length > 0 ? `ServerAlias ${others.join(" ")}\n` : ""}`;
}

/** The site of HTTP, if the app's is HTTPS. */
function redirect(options: ConfigOptions): string {
  return `<VirtualHost *:80>
${indent(serverName(options), "  ")}  # Where certbot proves that the name is yours.
  DocumentRoot /var/www/html
  RewriteEngine On
  RewriteCond %{REQUEST_URI} !^/\\.well-known/acme-challenge/
  # The path as the client sent it; one with %2F is 404 without this.
  AllowEncodedSlashes On
  RewriteCond %{THE_REQUEST} "^\\S+ (/[^\\s?]*)"
  RewriteRule ^ ${httpsOrigin(options, "%{SERVER_NAME}")}%1 [R=308,NE,L]
</VirtualHost>
`;
}

function certificateLines(options: ConfigOptions): string {
  const { comment, chain, key } = certificate(options);
  return `${comment}
SSLEngine On
SSLCertificateFile ${chain}
SSLCertificateKeyFile ${key}
`;
}

/** The rules by which a file is not proxied to the app. */
function filesFirst(path: string, files: StaticFiles): string {
  const { root } = files;
  const immutable = immutableFiles(files, path);
  return `RewriteEngine On
${NEVER_FILES}
RewriteCond %{REQUEST_URI} "${neverFiles(path)}" [NC]
RewriteRule ^ - [END]
# A file,
RewriteCond %{REQUEST_URI} ^${escape(path)}(/.*)$
RewriteCond "${root}%1" -f
RewriteRule ^ "${root}%1" [E=no-proxy:1,END]
# else the index.html of a folder, else the app.
RewriteCond %{REQUEST_URI} ^${escape(path)}(/.*)$
RewriteCond "${root}%1/index.html" -f
RewriteRule ^ "${root}%1/index.html" [E=no-proxy:1,END]
<Directory ${root}>
  Require all granted
  Options SymLinksIfOwnerMatch
  AllowOverride None
</Directory>
${
    immutable === undefined ? "" : `<LocationMatch "${immutable}">
  Header set Cache-Control "${IMMUTABLE}" env=no-proxy
</LocationMatch>
`
  }`;
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
