/**
 * What can be wrong between nginx and the daemon behind it.
 *
 * @module
 */

import { dirname } from "node:path";
import { hostMap } from "../config/nginx.ts";
import {
  type Connecting,
  CONNECTION_FINDINGS,
  examineAddresses,
  type Protocol,
} from "./connection.ts";
import { createFinding, type FindingOf } from "./finding.ts";
import { type Directive, readNginxConfig } from "./nginx_config.ts";
import type { Examined, Report } from "./report.ts";
import { User } from "./user.ts";

/** All kinds of findings. Words in braces are replaced. */
export const NGINX_FINDINGS = {
  ...CONNECTION_FINDINGS,
  "include": {
    what: "{include} includes nothing: its [ has no end, and so stands for itself",
    advice: "Write the ] that is missing. See which files there are: ls {folder}",
  },
  "parameters": {
    what: "{pass} passes no REQUEST_METHOD, as its block has other fastcgi_param lines, or none",
    advice: "Write in the same block: include fastcgi_params;",
  },
  "host": {
    what:
      "{pass} passes {value} as the host, not the browser's host and port, so that the app's URLs and its check of origins are wrong",
    advice: "Write in the block http: {map} And in the same block: {write}",
  },
} as const;

/** A fault of nginx's configuration, or of what it connects to. */
export type NginxFinding = FindingOf<keyof typeof NGINX_FINDINGS>;

/** What a block adds to a request: values by name, for each directive that does it. */
type Additions = Record<"fastcgi_param" | "scgi_param" | "proxy_set_header", Map<string, string>>;

const NOTHING: Additions = {
  fastcgi_param: new Map(),
  scgi_param: new Map(),
  proxy_set_header: new Map(),
};

/** A directive that passes requests to an address. */
interface Pass extends Connecting {
  name: string;
  addresses: string[];
  /** What it adds to each request. */
  adds: Additions;
  /** The ports of its server. */
  ports: string[];
}

/** Finds faults between nginx and the daemons that its configuration names. */
export async function examineNginx({ file, userName, ms }: Examined): Promise<Report> {
  const config = readNginxConfig(file);
  const named = config.findLast(({ name }) => name === "user")?.args[0];
  const user = User.find(userName ?? named ?? "nobody");
  const passes = [...passesOf(config, upstreamsOf(config), NOTHING, [])];
  const findings = [
    ...[...emptyIncludes(config)].map((include) =>
      createFinding(NGINX_FINDINGS, "include", {
        include: `include ${include}`,
        folder: dirname(include),
      })
    ),
    ...passes.flatMap(examinePass),
    ...await examineAddresses(passes, user, ms),
  ];
  // Several locations may say the same.
  const texts = findings.map(({ what }) => what);
  return {
    user,
    passes: passes.length,
    findings: findings.filter(({ what }, i) => texts.indexOf(what) === i),
  };
}

function examinePass(pass: Pass): NginxFinding[] {
  const findings: NginxFinding[] = [];
  const common = { pass: pass.text };
  if (pass.name === "fastcgi_pass" && !pass.adds.fastcgi_param.has("REQUEST_METHOD")) {
    findings.push(createFinding(NGINX_FINDINGS, "parameters", common));
  }
  const host = wrongHost(pass);
  if (host !== undefined) {
    findings.push(createFinding(NGINX_FINDINGS, "host", { ...common, ...host }));
  }
  return findings;
}

/** Yields the patterns that include nothing as a bracket in them has no end. */
function* emptyIncludes(block: Directive[]): Generator<string> {
  for (const { name, args, block: inner } of block) {
    if (name === "include" && /\[[^\]]*$/.test(args[0])) yield args[0];
    if (inner !== undefined) yield* emptyIncludes(inner);
  }
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
    yield { text, name, protocol: PROTOCOLS[name], write: passTo, addresses, adds, ports };
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

/** Returns what a daemon on this machine gets as the host if it is not what the browser sends, and what to write. */
function wrongHost(
  { name, addresses, adds, ports }: Pass,
): { value: string; map: string; write: string } | undefined {
  const isProxy = name === "proxy_pass";
  const isLocal = (address: string) => /^(?:unix:|127\.|localhost:|\[::1\]:)/.test(address);
  if (isProxy && !addresses.every(isLocal)) return undefined;
  const value = isProxy
    ? adds.proxy_set_header.get("host") ?? "$proxy_host"
    : adds[name === "fastcgi_pass" ? "fastcgi_param" : "scgi_param"].get("HTTP_HOST");
  // $host is without the port, which the usual ports do not need.
  const hasPort = ports.some((port) => port !== "80" && port !== "443");
  if (value !== "$proxy_host" && !(value === "$host" && hasPort)) return undefined;
  const directive = isProxy
    ? "proxy_set_header Host"
    : `${name.replace("pass", "param")} HTTP_HOST`;
  return {
    value,
    map: hostMap("app").replaceAll(/\s+/g, " "),
    write: `${directive} $host_of_app;`,
  };
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
