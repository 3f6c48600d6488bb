import type { Endpoint } from "../../io/address.ts";
import { isLoopback } from "../../server/peers.ts";
import { formatAddress } from "../address.ts";
import type { AppConfig } from "../app_config.ts";

/** The values of a configuration. None has a character with a meaning in configuration files. */
export interface ConfigOptions {
  /** The name of upstreams, units and files. */
  name: string;
  /** The address of the web server or of systemd's socket; undefined for the default. */
  listen: Endpoint | undefined;
  /** The names of the site; none for all requests. */
  serverNames: string[];
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
}

/** Creates a configuration. */
export type Template = (options: ConfigOptions) => string;

/** Returns the comment of all templates that says how to start each app. */
export function startLines(options: ConfigOptions): string {
  return options.backends.map((backend) => `#   ${startCommand(options, backend)}`).join("\n");
}

function startCommand(
  { app, protocol, path, workers }: ConfigOptions,
  backend: Endpoint,
): string {
  return [
    `gatehouse serve ${app} --protocol ${protocol} --listen ${formatAddress(backend)}`,
    ...(backend.transport === "unix" ? ["--group www-data"] : []),
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

/** Indents each line that is not empty. */
export function indent(text: string, by: string): string {
  return text.replaceAll(/^(?=.)/gm, by);
}
