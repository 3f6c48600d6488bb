import type { Endpoint } from "../../io/address.ts";
import { isLoopback } from "../../io/peers.ts";
import { formatAddress } from "../address.ts";

/** What a configuration is made of. No value has a character that a configuration would take for its own. */
export interface ConfigOptions {
  /** A name for what needs one: an upstream, a unit. */
  name: string;
  /** Where the web server listens, or where systemd does; undefined for the usual place. */
  listen: Endpoint | undefined;
  /** The protocol of the app. */
  protocol: "fastcgi" | "scgi";
  /** The path that the app is mounted at; "" for the whole site. */
  path: string;
  /** Where the app listens, one or more. */
  backends: Endpoint[];
  /** The file of the app. */
  app: string;
  /** The number of workers, or "auto"; undefined for one process. */
  workers: string | undefined;
  /** The program that runs the app. */
  deno: string;
}

/** Creates a configuration. */
export type Template = (options: ConfigOptions) => string;

/** What all templates need to say in a comment: how each app is started. */
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
