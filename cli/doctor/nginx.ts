/**
 * What can be wrong between nginx and the daemon behind it.
 *
 * @module
 */

import { printable } from "../../io/printable.ts";
import { readAddress } from "../address.ts";
import { fetchValues } from "../fetch_values.ts";
import { change, formatLine } from "./commands.ts";
import { type Directive, readNginxConfig } from "./nginx_config.ts";
import { stat, User } from "./user.ts";

/** All kinds of findings. Words in braces are replaced. */
export const NGINX_FINDINGS = {
  "no-socket": {
    what: "{pass} names a socket that does not exist",
    advice:
      "Start the daemon with --listen {address}, or name its socket. fcgiwrap's: systemctl enable --now fcgiwrap.socket",
  },
  "socket-denied": {
    what: "{user} may not connect to the socket that {pass} names: it may not {right} {path}",
    advice: "Start the daemon with --group and the group of {user}.",
  },
  "refused": {
    what: "Nothing listens where {pass} connects",
    advice: "Start the daemon with --listen {address}, or name the address that it listens on.",
  },
  "protocol": {
    what: "{pass} speaks FastCGI, but what listens there speaks HTTP",
    advice: "Start the daemon with --protocol fastcgi, or write: proxy_pass http://{address};",
  },
  "parameters": {
    what: "{pass} passes no REQUEST_METHOD, as its block has other fastcgi_param lines, or none",
    advice: "Write in the same block: include fastcgi_params;",
  },
  "host": {
    what:
      "{pass} passes {value} as the host, not the browser's host and port, so that the app's URLs and its check of origins are wrong",
    advice: "Write in the same block: {write}",
  },
} as const;

/** A fault of nginx's configuration, or of what it connects to. Its texts have no control characters. */
export interface NginxFinding {
  id: keyof typeof NGINX_FINDINGS;
  what: string;
  /** The line of shell that fixes it, if there is one. */
  line: string | undefined;
  advice: string;
}

/** What a block adds to a request: values by name, for each directive that does it. */
type Additions = Record<"fastcgi_param" | "scgi_param" | "proxy_set_header", Map<string, string>>;

const NOTHING: Additions = {
  fastcgi_param: new Map(),
  scgi_param: new Map(),
  proxy_set_header: new Map(),
};

/** A directive that passes requests to an address. */
interface Pass {
  /** The directive, as it is written. */
  text: string;
  name: string;
  addresses: string[];
  /** What it adds to each request. */
  adds: Additions;
  /** The ports of its server. */
  ports: string[];
}

/**
 * Finds faults between nginx and the daemons that its configuration names.
 *
 * @param file The configuration.
 * @param userName The user of nginx, if the configuration does not say it.
 * @param ms How long a daemon may take to respond, in milliseconds.
 */
export async function examineNginx(
  file: string,
  userName: string | undefined,
  ms: number,
): Promise<{ passes: number; findings: NginxFinding[] }> {
  const config = readNginxConfig(file);
  const named = config.findLast(({ name }) => name === "user")?.args[0];
  const user = User.find(userName ?? named ?? "nobody");
  const passes = [...passesOf(config, upstreamsOf(config), NOTHING, [])];
  const findings: NginxFinding[] = [];
  for (const pass of passes) {
    const common = { pass: pass.text, user: user.name };
    if (pass.name === "fastcgi_pass" && !pass.adds.fastcgi_param.has("REQUEST_METHOD")) {
      findings.push(found("parameters", common));
    }
    const host = wrongHost(pass);
    if (host !== undefined) findings.push(found("host", { ...common, ...host }));
    for (const address of pass.addresses) {
      const finding = await examineAddress(pass, address, user, ms);
      if (finding !== undefined) findings.push(finding);
    }
  }
  // Several locations may name one daemon.
  const texts = findings.map(({ what }) => what);
  return {
    passes: passes.length,
    findings: findings.filter(({ what }, i) => texts.indexOf(what) === i),
  };
}

async function examineAddress(
  { text, name }: Pass,
  address: string,
  user: User,
  ms: number,
): Promise<NginxFinding | undefined> {
  const common = { pass: text, user: user.name, address };
  const path = /^unix:(.*)$/s.exec(address)?.[1];
  if (path !== undefined) {
    const folder = user.blockedAt(path);
    if (folder !== undefined) {
      const command = change(folder, ["chmod", `${user.classOf(folder)}+x`, folder]);
      const line = command && formatLine([command]);
      return found("socket-denied", { ...common, right: "enter", path: folder }, line);
    }
    if (stat(path) === undefined) return found("no-socket", common);
    if (!user.canWrite(path)) {
      return found("socket-denied", { ...common, right: "write to", path });
    }
  }
  const endpoint = readAddress(address);
  try {
    const connection = await ("path" in endpoint
      ? Deno.connect({ transport: "unix", path: endpoint.path })
      : Deno.connect(endpoint));
    connection.close();
  } catch (error) {
    if (error instanceof Deno.errors.ConnectionRefused) return found("refused", common);
    // This user may have fewer rights than nginx.
    if (error instanceof Deno.errors.PermissionDenied) return undefined;
    throw error;
  }
  return name === "fastcgi_pass" && await speaksHTTP(endpoint, ms)
    ? found("protocol", common)
    : undefined;
}

/** Returns whether a server takes the record of a FastCGI client for a bad HTTP request. */
async function speaksHTTP(endpoint: ReturnType<typeof readAddress>, ms: number): Promise<boolean> {
  try {
    await fetchValues(endpoint, ms);
    return false;
  } catch (error) {
    if (error instanceof Deno.errors.NotCapable) throw error;
    // Not every application tells its values. The version in a record from HTTP is the letter H.
    return /\bHTTP\b|\bversion 72\b|current value is 72\b/.test((error as Error).message);
  }
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
    yield { text: `${name} ${args[0]}`, name, addresses, adds, ports };
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
): { value: string; write: string } | undefined {
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
  // $http_host may be another host than that of the request's target.
  return { value, write: `${directive} ${hasPort ? "$host:$server_port" : "$host"};` };
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

function found(
  id: keyof typeof NGINX_FINDINGS,
  values: Record<string, string>,
  line?: string,
): NginxFinding {
  const fill = (text: string) =>
    printable(text.replaceAll(/\{(\w+)\}/g, (braces, name: string) => values[name] ?? braces));
  const { what, advice } = NGINX_FINDINGS[id];
  return { id, what: fill(what), advice: fill(advice), line };
}
