import type { DebugInfo } from "./development.ts";
import { quirksOf, type ServerQuirks } from "../bridge/server_quirks.ts";

/**
 * Hints on the configuration of web servers, each with the requests that it applies to. docs/servers.md has the
 * configurations. What a server does in any configuration is in the table of bridge/server_quirks.ts.
 */
const HINTS: [applies: (request: Facts) => boolean, text: string][] = [
  [
    ({ server, protocol, has }) =>
      /^nginx/.test(server) && protocol === "fastcgi" && !has("SCRIPT_FILENAME") &&
      !has("PATH_INFO"),
    "nginx's stock fastcgi_params sets neither SCRIPT_FILENAME nor PATH_INFO, so info.scriptName is empty. " +
    'Add fastcgi_param SCRIPT_NAME ""; and fastcgi_param PATH_INFO $document_uri;',
  ],
  [
    ({ server, get }) => /^nginx/.test(server) && !/:\d+$/.test(get("HTTP_HOST")) && isOddPort(get),
    "Debian's nginx sends HTTP_HOST without its port, so request.url has none. " +
    "Send it the HTTP_HOST that `config nginx` of the command line prints.",
  ],
  [
    ({ server, has }) => /^Apache/.test(server) && !has("HTTP_AUTHORIZATION"),
    "Apache passes no Authorization header without CGIPassAuth On.",
  ],
  [
    ({ server, has }) => /^HAProxy/.test(server) && !has("HTTP_AUTHORIZATION"),
    "HAProxy passes no Authorization header without pass-header Authorization in its fcgi-app section.",
  ],
  [
    ({ quirks, protocol }) => quirks.lacksStderr === true && protocol === "fastcgi",
    "This web server drops what an app logs over FastCGI: look into the daemon's own stderr.",
  ],
  [
    ({ server }) => /mod_fcgid/.test(server),
    "mod_fcgid buffers responses without FcgidOutputBufferSize 0, and limits uploads to 128 KiB without " +
    "FcgidMaxRequestLen.",
  ],
  [
    ({ get }) => get("CONTENT_LENGTH") === "-1",
    "The web server sends CONTENT_LENGTH -1 for an upload without a length, as Caddy does: request.headers has no " +
    "content-length.",
  ],
  [
    ({ server, get, has }) =>
      /^lighttpd/.test(server) && get("REQUEST_URI").startsWith(get("SCRIPT_NAME")) &&
      has("SCRIPT_NAME") && !has("PATH_INFO"),
    'lighttpd with the key "/" puts the whole path in SCRIPT_NAME without "fix-root-scriptname" => "enable".',
  ],
  [
    ({ server, protocol, get }) =>
      /^Apache/.test(server) && protocol !== "cgi" && get("SCRIPT_FILENAME").startsWith("proxy:"),
    "Apache's proxy modules put the whole path in SCRIPT_NAME: set basePath to the mount point.",
  ],
  [
    ({ get }) => /%2f/i.test(get("REQUEST_URI")),
    "The path has %2F: web servers decode it in PATH_INFO. Route by request.url.",
  ],
  [
    ({ protocol, has }) => protocol !== "http" && has("HTTP_UPGRADE"),
    "The client requested an upgrade, which only HTTP carries: proxy this path to serveHTTP().",
  ],
];

interface Facts {
  server: string;
  quirks: ServerQuirks;
  protocol: string;
  get(name: string): string;
  has(name: string): boolean;
}

/** Returns the hints that apply to a request. */
export function hintsFor({ variables, protocol }: DebugInfo): string[] {
  const get = (name: string) => variables.get(name) ?? "";
  const server = get("SERVER_SOFTWARE");
  const facts = {
    server,
    quirks: quirksOf(server),
    protocol,
    get,
    has: (name: string) => get(name) !== "",
  };
  return HINTS.filter(([applies]) => applies(facts)).map(([, text]) => text);
}

function isOddPort(get: (name: string) => string): boolean {
  return !["", "80", "443"].includes(get("SERVER_PORT"));
}
