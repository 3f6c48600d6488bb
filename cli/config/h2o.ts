import type { Endpoint } from "../../io/address.ts";
import {
  certificate,
  type ConfigOptions,
  type Groups,
  httpsOrigin,
  indent,
  startLines,
} from "./options.ts";
import { NEVER_FILES, neverFiles, type StaticFiles } from "./static_files.ts";

/** The groups that connect to the app. */
const GROUPS: Groups = { debian: "www-data", fedora: "nobody" };

/** A configuration of h2o. */
export function h2o(options: ConfigOptions): string {
  const { path, backends: [backend], serverNames, https, files } = options;
  const app = `fastcgi.connect:\n${indent(connect(backend), "  ")}`;
  const paths = { [path || "/"]: app, ...files && filesFirst(path, files, app) };
  const site = `listen:
${indent(listenOn(options), "  ")}
paths:
${Object.entries(paths).map(([path, text]) => `  ${path}:\n${indent(text, "    ")}`).join("\n")}`;
  const names = serverNames.length > 0 ? serverNames : ["default"];
  const hosts = names.map((name) => `${name}:\n${indent(site, "  ")}`).join("\n");
  return `# /etc/h2o/h2o.conf. To check and load it: h2o -m test -c /etc/h2o/h2o.conf && systemctl reload h2o
${startLines(options, GROUPS)}

# The user that connects to the app, if it listens on a Unix socket. On Fedora: nobody
user: www-data
hosts:
${indent(hosts, "  ")}
${https ? indent(redirect(options), "  ") : ""}`;
}

function listenOn(options: ConfigOptions): string {
  const { listen, https } = options;
  const address = listen?.transport === "tcp"
    ? `host: "${listen.hostname}"\nport: ${listen.port}`
    : `port: ${https ? 443 : 80}`;
  if (!https) return address;
  const { comment, chain, key } = certificate(options);
  return `${address}
${comment}
ssl:
  certificate-file: ${chain}
  key-file: ${key}`;
}

/** The site of HTTP, if the app's is HTTPS. */
function redirect(options: ConfigOptions): string {
  return options.serverNames.map((name) =>
    `"${name}:80":
  listen:
    port: 80
  paths:
    # Where certbot proves that the name is yours.
    /.well-known/acme-challenge:
      file.dir: /var/www/html/.well-known/acme-challenge
    /:
      redirect:
        status: 308
        url: ${httpsOrigin(options, name)}/
`
  ).join("");
}

/** The app for the paths that no file has, by the beginnings of the paths. */
function filesFirst(
  path: string,
  { root, immutable }: StaticFiles,
  app: string,
): Record<string, string> {
  const never = `mruby.handler: |
  never = %r{${neverFiles(path).replace("^", "\\A")}}i
  lambda do |env|
    path = (env["SCRIPT_NAME"] + env["PATH_INFO"]).gsub(/%([2-7]\\h)/) { $1.hex.chr }
    next [399, {}, []] unless never.match(path)
    [404, { "content-type" => "text/plain" }, ["Not Found\\n"]]
  end
`;
  const files = (folder: string) =>
    `# A file or the index.html of a folder, else the app.
file.dir: ${root}${folder}
${app}`;
  const kept = immutable.map((folder) => [
    path + folder,
    `${never}# How long clients keep a file.\nexpires: 365 days\n${files(folder)}`,
  ]);
  return {
    [path || "/"]: `${NEVER_FILES} h2o\n# responds with 404.\n${never}${files("")}`,
    ...Object.fromEntries(kept),
  };
}

function connect(backend: Endpoint): string {
  return backend.transport === "tcp"
    ? `host: "${backend.hostname}"\nport: ${backend.port}\ntype: tcp`
    : `port: ${backend.path}\ntype: unix`;
}
