import { addressArgument, cgiFolder, type ConfigOptions, scriptLines } from "./options.ts";

/** A configuration of uWSGI, whose plugin runs CGI scripts. */
export function uwsgi(options: ConfigOptions): string {
  const { listen, name } = options;
  const file = `/etc/uwsgi/${name}.ini`;
  const { folder } = cgiFolder(options);
  const address = listen === undefined ? ":80" : addressArgument(options);
  return `; ${file}, with Debian's uwsgi-core. uWSGI does not check it; to start it as root: uwsgi ${file}
${scriptLines(options).replaceAll(/^#/gm, ";")}
; It passes no chunked body on.

[uwsgi]
plugins = http,cgi
http-socket = ${address}
; The CGI plugin.
http-socket-modifier1 = 9
cgi = /cgi-bin=${folder}
; Each process runs one script at a time.
master = true
processes = 8
die-on-term = true
; On Fedora: uwsgi, whose package uwsgi-plugin-cgi has the plugin.
uid = www-data
gid = www-data
`;
}
