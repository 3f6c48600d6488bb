/**
 * What each web server has for a fault between it and an app.
 *
 * @module
 */

import { hostMap } from "../config/nginx.ts";
import type { Protocol } from "./connection.ts";

/** What the advice depends on. */
export interface Circumstances {
  protocol: Protocol;
  /** The path of the site. */
  path: string;
  /** How long the app may take, in seconds. */
  seconds: number;
  /** The largest upload, in bytes. */
  upload: number;
}

type Advice = (circumstances: Circumstances) => string;

/** The faults that depend on the web server. */
export type AdviceId =
  | "host"
  | "script-name"
  | "authorization"
  | "httpoxy"
  | "buffering"
  | "body-limit"
  | "app-timeout";

const KIBIBYTE = 1024;

/** The name of nginx's directive that adds to a request. */
function addition({ protocol }: Circumstances): string {
  return protocol === "http" ? "proxy_set_header" : `${protocol}_param`;
}

/** Returns the prefix of nginx's directives for a protocol. */
function prefix({ protocol }: Circumstances): string {
  return protocol === "http" ? "proxy" : protocol;
}

const NGINX: Record<AdviceId, Advice> = {
  "host": (now) =>
    `Write in the block http: ${hostMap("app").replaceAll(/\s+/g, " ")} And where the app is: ${
      addition(now)
    } ${now.protocol === "http" ? "Host" : "HTTP_HOST"} $host_of_app;`,
  "script-name": (now) =>
    `Write where the app is: ${addition(now)} SCRIPT_NAME ""; ${
      addition(now)
    } PATH_INFO $document_uri;`,
  "authorization": (now) =>
    `Remove the line that sets ${
      now.protocol === "http" ? "Authorization" : "HTTP_AUTHORIZATION"
    } where the app is.`,
  "httpoxy": (now) =>
    `Write where the app is: ${addition(now)} ${
      now.protocol === "http" ? "Proxy" : "HTTP_PROXY"
    } "";`,
  "buffering": (now) =>
    `Write where the app is: ${
      now.protocol === "fastcgi" ? "fastcgi_keep_conn on;" : `${prefix(now)}_buffering off;`
    }`,
  "body-limit": ({ upload }) =>
    `Write in the block server: client_max_body_size ${Math.ceil(upload / KIBIBYTE)}k;`,
  "app-timeout": (now) =>
    `Write where the app is: ${prefix(now)}_read_timeout ${now.seconds + 5}s;`,
};

const APACHE: Partial<Record<AdviceId, Advice>> = {
  "host": () => "Write: ProxyPreserveHost On",
  "script-name": () => "Let ProxyPass name the app, as gatehouse config apache prints it.",
  "authorization": ({ path }) =>
    `Write: <Location "${path}"> CGIPassAuth On </Location>, on three lines`,
  "httpoxy": () => "Write: RequestHeader unset Proxy early",
  "buffering": () => "Add to the line of ProxyPass: flushpackets=on",
  "app-timeout": ({ seconds }) => `Write: ProxyTimeout ${seconds + 5}`,
};

const LIGHTTPD: Partial<Record<AdviceId, Advice>> = {
  "script-name": () => 'Add to the daemon: "fix-root-scriptname" => "enable"',
  "buffering": () => "Write: server.stream-response-body = 2",
  "body-limit": ({ upload }) => `Write: server.max-request-size = ${Math.ceil(upload / KIBIBYTE)}`,
  "app-timeout": ({ seconds }) => `Add to the daemon: "read-timeout" => ${seconds + 5}`,
};

const CADDY: Partial<Record<AdviceId, Advice>> = {
  "host": () => "Write in reverse_proxy: header_up Host {hostport}",
  "script-name": () => 'Write in transport fastcgi: env SCRIPT_NAME ""',
  "httpoxy": () => "Write in reverse_proxy: header_up -Proxy",
  "buffering": () => "Write in reverse_proxy: flush_interval -1",
  "body-limit": ({ upload }) => `Write in request_body: max_size ${upload}`,
  "app-timeout": ({ seconds }) => `Write in transport: read_timeout ${seconds + 5}s`,
};

const HAPROXY: Partial<Record<AdviceId, Advice>> = {
  "script-name": () => "Write in fcgi-app: path-info ^()(/.*)$",
  "authorization": () => "Write in fcgi-app: pass-header Authorization",
  "httpoxy": () => "Write in frontend: http-request del-header Proxy",
  "app-timeout": ({ seconds }) => `Write in backend: timeout server ${seconds + 5}s`,
};

const H2O: Partial<Record<AdviceId, Advice>> = {
  "body-limit": ({ upload }) => `Write: limit-request-body: ${upload}`,
  "app-timeout": ({ seconds }) => `Write: fastcgi.timeout.io: ${(seconds + 5) * 1000}`,
};

/** The web servers by what they call themselves. */
const SERVERS: [name: RegExp, config: string, advice: Partial<Record<AdviceId, Advice>>][] = [
  [/^(?:nginx|openresty)\b/i, "nginx", NGINX],
  [/^Apache\b/i, "apache", APACHE],
  [/^lighttpd\b/i, "lighttpd", LIGHTTPD],
  [/^Caddy\b/i, "caddy", CADDY],
  [/^HAProxy\b/i, "haproxy", HAPROXY],
  [/^h2o\b/i, "h2o", H2O],
];

/** Returns the name by which `config` and `doctor` know a web server, or undefined if they do not. */
export function serverNamed(software: string): string | undefined {
  return SERVERS.find(([name]) => name.test(software))?.[1];
}

/** Returns what to write for a web server, or undefined if it does what it does whatever is written. */
export function adviceFor(
  software: string,
  id: AdviceId,
  now: Circumstances,
): string | undefined {
  const [, config, advice] = SERVERS.find(([name]) => name.test(software)) ?? [];
  if (advice === undefined) {
    return "See what its documentation has for it: doctor knows nginx, Apache, lighttpd, Caddy, HAProxy and h2o.";
  }
  // h2o passes the header on. Gatehouse drops it; other programs must.
  if (config === "h2o" && id === "httpoxy") return undefined;
  return advice[id]?.(now) ??
    `Compare its configuration with what this prints: gatehouse config ${config}`;
}
