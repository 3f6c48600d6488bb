import { addressArgument, cgiFolder, type ConfigOptions, scriptLines } from "./options.ts";

/** A configuration of busybox httpd, which runs CGI scripts. */
export function busybox(options: ConfigOptions): string {
  const { root } = cgiFolder(options);
  return `# /etc/httpd.conf, of busybox httpd. It does not check it; to start it as root:
#   busybox httpd -f -u www-data -p ${addressArgument(options)} -c /etc/httpd.conf
# On Fedora with -u nobody.
${scriptLines(options)}
# It sends all other files of the folder as they are, runs scripts in its cgi-bin only, and finds none by a path with %2F.

H:${root}
`;
}
