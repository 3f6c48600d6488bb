import { cgiFolder, type ConfigOptions, scriptLines } from "./options.ts";

/** A configuration of mini_httpd, which runs CGI scripts. */
export function miniHttpd(options: ConfigOptions): string {
  const { listen } = options;
  const { root } = cgiFolder(options);
  const address = listen?.transport === "tcp"
    ? `host=${listen.hostname}\nport=${listen.port}`
    : "port=80";
  return `# /etc/mini-httpd.conf. mini_httpd does not check it; to start it as root: mini_httpd -D -C /etc/mini-httpd.conf
${scriptLines(options)}
# It sends what the app writes to stderr to the client: let the app write its log to a file (option log of serve).
# It passes on five header fields of a request, and no body of a PUT.

${address}
# Debian's user for web servers. On Fedora: nobody
user=www-data
# The option names the folder of the site: it does not change the root of the process.
nochroot
dir=${root}
cgipat=cgi-bin/*
`;
}
