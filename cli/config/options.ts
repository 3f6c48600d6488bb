import type { Endpoint } from "../../io/address.ts";
import { isLoopback } from "../../wire/ip_address.ts";
import { formatAddress } from "../address.ts";
import type { AppConfig } from "../app_config.ts";
import type { StaticFiles } from "./static_files.ts";

/** The values of a configuration. None has a character with a meaning in configuration files. */
export interface ConfigOptions {
  /** The name of upstreams, units and files. */
  name: string;
  /** The address of the web server or of systemd's socket; undefined for the default. */
  listen: Endpoint | undefined;
  /** The names of the site; none for all requests. */
  serverNames: string[];
  /** Whether the site is HTTPS, and its HTTP redirects to it. It then has a name. */
  https: boolean;
  /** The files that the web server sends itself; undefined for none. */
  files: StaticFiles | undefined;
  /** The protocol of the app. */
  protocol: "fastcgi" | "scgi";
  /** The path that the app is mounted at; "" for the whole site. */
  path: string;
  /** The addresses of the app, at least one. */
  backends: Endpoint[];
  /** The file of the app. */
  app: string;
  /** The config of the app; undefined if it has none on this machine. */
  project: AppConfig | undefined;
  /** The number of workers, or "auto"; undefined for one process. */
  workers: string | undefined;
  /** The program that runs the app. */
  deno: string;
  /** A file with variables of the app's environment; undefined for none. */
  envFile: string | undefined;
  /** Whether the app has a folder that it may write. */
  data: boolean;
}

/** Creates a configuration. */
export type Template = (options: ConfigOptions) => string;

/** The groups of the web server on Debian and on Fedora. */
export interface Groups {
  debian: string;
  fedora: string;
}

/** Returns the comment of all templates that says how to start each app. */
export function startLines(options: ConfigOptions, { debian, fedora }: Groups): string {
  const hasSocket = options.backends.some(({ transport }) => transport === "unix");
  const other = hasSocket && fedora !== debian ? ` On Fedora with --group ${fedora}:` : "";
  return [
    `# The app${other === "" ? ":" : `.${other}`}`,
    ...options.backends.map((backend) => `#   ${startCommand(options, backend, debian)}`),
  ].join("\n");
}

function startCommand(
  { app, protocol, path, workers }: ConfigOptions,
  backend: Endpoint,
  group: string,
): string {
  return [
    `gatehouse serve ${app} --protocol ${protocol} --listen ${formatAddress(backend)}`,
    ...(backend.transport === "unix" ? [`--group ${group}`] : []),
    ...(path === "" ? [] : [`--base-path ${path}`]),
    ...(workers === undefined ? [] : [`--workers ${workers}`]),
    ...allowRemote(backend),
  ].join(" ");
}

/** Returns the option that an app needs to listen on an address which other machines can reach. */
export function allowRemote(address: Endpoint): string[] {
  const needed = address.transport === "tcp" && !isLoopback(address.hostname);
  return needed ? ["--allow-remote"] : [];
}

/** Returns the folder of the site that the script's folder `cgi-bin` is in, and that folder. */
export function cgiFolder({ app }: Pick<ConfigOptions, "app">): { root: string; folder: string } {
  const folder = app.slice(0, app.lastIndexOf("/"));
  return { root: folder.slice(0, -"/cgi-bin".length), folder };
}

/** Returns the comment that says where the script is, and what makes it start faster. */
export function scriptLines({ app }: ConfigOptions): string {
  return `# The app is an executable CGI script:
#   ${app}
# A start takes half the time with a cache of compiled code. To print the line that fills one:
#   gatehouse doctor ${app} --user www-data`;
}

/** Returns where the web server listens, as an argument: a port, or a host and a port. */
export function addressArgument({ listen }: ConfigOptions): string {
  return listen === undefined ? "80" : formatAddress(listen);
}

/** Indents each line that is not empty. */
export function indent(text: string, by: string): string {
  return text.replaceAll(/^(?=.)/gm, by);
}

/**
 * Where the certificate of the site is, as certbot makes it.
 *
 * @param proof Its option for how it proves that the name is yours.
 */
export function certificate(
  { serverNames }: ConfigOptions,
  proof = "--webroot -w /var/www/html",
): { comment: string; chain: string; key: string } {
  const folder = `/etc/letsencrypt/live/${serverNames[0]}`;
  const names = serverNames.map((name) => ` -d ${name}`).join("");
  return {
    comment: `# From: certbot certonly ${proof}${names}`,
    chain: `${folder}/fullchain.pem`,
    key: `${folder}/privkey.pem`,
  };
}

/**
 * Returns the origin that HTTP is redirected to.
 *
 * @param host The variable with the requested host, for a site with several names.
 */
export function httpsOrigin({ serverNames, listen }: ConfigOptions, host: string): string {
  const port = listen?.transport === "tcp" && listen.port !== 443 ? `:${listen.port}` : "";
  return `https://${serverNames.length > 1 ? host : serverNames[0]}${port}`;
}
