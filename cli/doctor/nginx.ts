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
} as const;

/** A fault of nginx's configuration, or of what it connects to. Its texts have no control characters. */
export interface NginxFinding {
  id: keyof typeof NGINX_FINDINGS;
  what: string;
  /** The line of shell that fixes it, if there is one. */
  line: string | undefined;
  advice: string;
}

/** A directive that passes requests to an address. */
interface Pass {
  /** The directive, as it is written. */
  text: string;
  name: string;
  addresses: string[];
  /** The names of the FastCGI parameters. */
  parameters: string[];
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
  const passes = [...passesOf(config, upstreamsOf(config), [])];
  const findings: NginxFinding[] = [];
  for (const pass of passes) {
    const common = { pass: pass.text, user: user.name };
    if (pass.name === "fastcgi_pass" && !pass.parameters.includes("REQUEST_METHOD")) {
      findings.push(found("parameters", common));
    }
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
  inherited: string[],
): Generator<Pass> {
  // A block inherits parameters only if it has none.
  const own = block.filter(({ name }) => name === "fastcgi_param").map(({ args }) => args[0]);
  const parameters = own.length > 0 ? own : inherited;
  for (const { name, args, block: inner } of block) {
    if (inner !== undefined) yield* passesOf(inner, upstreams, parameters);
    if (!/^(?:fastcgi|scgi|proxy)_pass$/.test(name) || args.length !== 1) continue;
    // What a variable names is only known of a request.
    const target = args[0].replace(/^http:\/\//, "");
    if (target.includes("$") || target.startsWith("https:")) continue;
    const addresses = addressesOf(target, name, upstreams);
    yield { text: `${name} ${args[0]}`, name, addresses, parameters };
  }
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
