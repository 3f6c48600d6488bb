/**
 * The directives that make nginx pass requests to daemons.
 *
 * @module
 */

import type { Connecting, Protocol } from "./connection.ts";
import type { Directive } from "./nginx_config.ts";

/** What a block adds to a request: values by name, for each directive that does it. */
type Additions = Record<"fastcgi_param" | "scgi_param" | "proxy_set_header", Map<string, string>>;

const NOTHING: Additions = {
  fastcgi_param: new Map(),
  scgi_param: new Map(),
  proxy_set_header: new Map(),
};

/** A directive that passes requests to an address. */
export interface Pass extends Connecting {
  name: string;
  addresses: string[];
  /** What it adds to each request. */
  adds: Additions;
  /** The ports of its server. */
  ports: string[];
  /** The block that the directive is in. */
  block: Directive[];
}

/** Returns all of a configuration's. */
export function passesIn(config: Directive[]): Pass[] {
  return [...passesOf(config, upstreamsOf(config), NOTHING, [])];
}

const PROTOCOLS: Record<string, Protocol> = {
  fastcgi_pass: "fastcgi",
  scgi_pass: "scgi",
  proxy_pass: "http",
};

/** Returns the directive that speaks a protocol. */
function passTo(protocol: Protocol, address: string): string {
  return `${protocol === "http" ? "proxy_pass http://" : `${protocol}_pass `}${address};`;
}

function* passesOf(
  block: Directive[],
  upstreams: Map<string, string[]>,
  inherited: Additions,
  outerPorts: string[],
): Generator<Pass> {
  const adds = {
    fastcgi_param: additions(block, "fastcgi_param", inherited),
    scgi_param: additions(block, "scgi_param", inherited),
    proxy_set_header: additions(block, "proxy_set_header", inherited),
  };
  const listens = block.filter(({ name }) => name === "listen").map(({ args }) => args[0]);
  const own = listens.map((listen) => /(?:^|:)(\d+)$/.exec(listen)?.[1] ?? "80");
  const ports = own.length > 0 ? own : outerPorts;
  for (const { name, args, block: inner } of block) {
    if (inner !== undefined) yield* passesOf(inner, upstreams, adds, ports);
    if (!/^(?:fastcgi|scgi|proxy)_pass$/.test(name) || args.length !== 1) continue;
    // What a variable names is only known of a request.
    const target = args[0].replace(/^http:\/\//, "");
    if (target.includes("$") || target.startsWith("https:")) continue;
    const addresses = addressesOf(target, name, upstreams);
    const text = `${name} ${args[0]}`;
    yield { text, name, protocol: PROTOCOLS[name], write: passTo, addresses, adds, ports, block };
  }
}

/** Returns what a block adds. It inherits from the outer block only if it adds nothing itself. */
function additions(
  block: Directive[],
  directive: keyof Additions,
  inherited: Additions,
): Map<string, string> {
  const own = block.filter(({ name }) => name === directive);
  return own.length === 0
    ? inherited[directive]
    : new Map(own.map(({ args: [name, value = ""] }) => [
      // The names of headers have no case.
      directive === "proxy_set_header" ? name.toLowerCase() : name,
      value,
    ]));
}

function addressesOf(target: string, name: string, upstreams: Map<string, string[]>): string[] {
  const unix = /^unix:([^:]+)/.exec(target);
  if (unix !== null) return [unix[0]];
  const host = target.replace(/\/.*/s, "");
  const servers = upstreams.get(host) ?? [host];
  return servers.map((server) =>
    /^unix:|:\d+$/.test(server) ? server : name === "proxy_pass" ? `${server}:80` : undefined
  ).filter((server) => server !== undefined);
}

/** Returns the addresses of each `upstream`. */
function upstreamsOf(config: Directive[]): Map<string, string[]> {
  const blocks = config.flatMap(({ name, block }) => name === "http" ? block ?? [] : []);
  return new Map(
    blocks.filter(({ name }) => name === "upstream").map(({ args, block = [] }) => [
      args[0],
      block.filter(({ name, args }) => name === "server" && !args.includes("down"))
        .map(({ args }) => args[0]),
    ]),
  );
}
