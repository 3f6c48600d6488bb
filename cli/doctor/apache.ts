/**
 * What can be wrong between Apache and the daemon behind it.
 *
 * @module
 */

import {
  type ApacheConfig,
  type Directive,
  isOfDebian,
  readApacheConfig,
} from "./apache_config.ts";
import { examineApacheScript } from "./apache_script.ts";
import {
  addressesOf,
  type Connecting,
  CONNECTION_FINDINGS,
  examineAddresses,
  type Protocol,
} from "./connection.ts";
import { createFinding, type FindingOf } from "./finding.ts";
import { examineFolder, FOLDER_FINDINGS } from "./folder.ts";
import type { Examined, Report } from "./report.ts";
import { User } from "./user.ts";

/** All kinds of findings. Words in braces are replaced. */
export const APACHE_FINDINGS = {
  ...CONNECTION_FINDINGS,
  ...FOLDER_FINDINGS,
  "proxy-module": {
    what: "{pass} needs mod_{module}, which is not loaded",
    advice: "Write: LoadModule {module}_module modules/mod_{module}.so",
  },
  "authorization": {
    what: "{pass} does not pass the header Authorization to the app",
    advice: 'Write: <Location "{path}"> CGIPassAuth On </Location>, on three lines',
  },
} as const;

/** A fault of Apache's configuration, or of what it connects to. */
export type ApacheFinding = FindingOf<keyof typeof APACHE_FINDINGS>;

/** A directive that passes requests to addresses. */
interface Pass extends Connecting {
  /** The path of the requests, if the directive names it. */
  path: string;
  addresses: string[];
}

const SCHEMES: Record<string, Protocol> = { fcgi: "fastcgi", scgi: "scgi", http: "http" };
/** Other directives that pass the header to an app. */
const OTHER_WAYS = /\bHTTP_AUTHORIZATION\b/;

/** Finds faults between Apache and the daemons that its configuration names, or why it does not run a script. */
export async function examineApache({ file, userName, script, ms }: Examined): Promise<Report> {
  const config = readApacheConfig(file);
  const named = config.directives.findLast(({ name }) => name === "user")?.args[0];
  const user = User.find(userName ?? named ?? "nobody");
  if (script !== undefined) {
    return { user, passes: 0, addresses: [], findings: examineApacheScript(script, config) };
  }
  const balancers = balancersOf(config.directives);
  const passes = [...passesOf(config.directives, "/", balancers)];
  const findings = [
    ...new Set(foldersIn(config.directives)).values().flatMap((folder) =>
      examineFolder(folder, user)
    ),
    ...passes.flatMap((pass) => examinePass(pass, config)),
    ...await examineAddresses(passes, user, ms),
  ];
  return { user, passes: passes.length, addresses: addressesOf(passes), findings };
}

/** Yields the folders whose files are sent: not those of sections that only deny them, or that name a pattern. */
function* foldersIn(block: Directive[]): Generator<string> {
  for (const { name, args, block: inner = [] } of block) {
    const isFolder = args.length === 1 && /^\/[^*?\[$]*$/.test(args[0]);
    const isSent = name === "documentroot" || name === "directory" && inner.some(grantsAll);
    if (isFolder && isSent) yield args[0];
    yield* foldersIn(inner);
  }
}

function grantsAll({ name, args }: Directive): boolean {
  return name === "require" && args.join(" ").toLowerCase() === "all granted";
}

function examinePass(pass: Pass, config: ApacheConfig): ApacheFinding[] {
  const { text, protocol, path } = pass;
  const findings: ApacheFinding[] = [];
  const missing = ["proxy", `proxy_${protocol === "fastcgi" ? "fcgi" : protocol}`]
    .filter((module) => !config.modules.has(`${module}_module`));
  for (const module of missing) {
    const line = isOfDebian(config)
      ? `sudo a2enmod ${module} && sudo systemctl restart apache2`
      : undefined;
    findings.push(createFinding(APACHE_FINDINGS, "proxy-module", { pass: text, module }, line));
  }
  if (protocol !== "http" && !passesAuthorization(config.directives, path)) {
    findings.push(createFinding(APACHE_FINDINGS, "authorization", { pass: text, path }));
  }
  return findings;
}

/** Returns whether a section for a path, or for paths that this does not know, passes the header on. */
function passesAuthorization(block: Directive[], path: string): boolean {
  return block.some(({ name, args, block: inner }) => {
    if (name === "cgipassauth") return args[0]?.toLowerCase() === "on";
    if (args.some((arg) => OTHER_WAYS.test(arg))) return true;
    if (inner === undefined) return false;
    const isElsewhere = name === "location" && args[0] !== "~" && !path.startsWith(args[0]);
    return !isElsewhere && passesAuthorization(inner, path);
  });
}

function* passesOf(
  block: Directive[],
  path: string,
  balancers: Map<string, string[]>,
): Generator<Pass> {
  for (const { name, args, block: inner } of block) {
    if (inner !== undefined) {
      yield* passesOf(inner, name === "location" ? args.at(-1) ?? path : path, balancers);
    }
    const target = targetOf(name, args);
    if (target === undefined) continue;
    const from = /^proxypass/.test(name) && args.length > 1 && args[0].startsWith("/")
      ? args[0]
      : path;
    const members = target.startsWith("balancer:")
      ? balancers.get(target.replace(/^(balancer:\/\/[^/]+).*/s, "$1")) ?? []
      : [target];
    const addresses = members.map(addressOf).filter((address) => address !== undefined);
    const scheme = members.map((member) => /^(?:unix:[^|]*\|)?(\w+):/.exec(member)?.[1])
      .find((scheme) => scheme !== undefined && scheme in SCHEMES);
    if (scheme === undefined || addresses.length === 0) continue;
    const text = `${DIRECTIVES[name]} ${args.join(" ")}`;
    yield {
      text,
      path: from,
      protocol: SCHEMES[scheme],
      addresses,
      write: (protocol, address) => `ProxyPass ${from} ${formatTarget(protocol, address, from)}`,
    };
  }
}

const DIRECTIVES: Record<string, string> = {
  proxypass: "ProxyPass",
  proxypassmatch: "ProxyPassMatch",
  sethandler: "SetHandler",
  rewriterule: "RewriteRule",
};

/** Returns the URL that a directive passes requests to, if it does. */
function targetOf(name: string, args: string[]): string | undefined {
  if (name === "proxypass" || name === "proxypassmatch") {
    return args.find((arg) => /^(?:unix|fcgi|scgi|http|balancer):/.test(arg));
  }
  if (name === "sethandler") return /^proxy:(.*)/s.exec(args[0] ?? "")?.[1];
  const isProxied = name === "rewriterule" && /\[(?:[^\]]*,)?(?:P|proxy)[\],]/.test(args[2] ?? "");
  return isProxied ? args[1] : undefined;
}

/** Returns the address of a URL, unless it is only known of a request. */
function addressOf(target: string): string | undefined {
  const [, socket] = /^unix:([^|]+)\|/.exec(target) ?? [];
  if (socket !== undefined) return `unix:${socket}`;
  const [, scheme, host, port] =
    /^(\w+):\/\/(\[[^\]]*\]|[^/:$%]*)(?::(\d+))?(?:\/|$)/.exec(target) ??
      [];
  const number = port ?? { fcgi: "8000", scgi: "4000", http: "80" }[scheme ?? ""];
  return host && number ? `${host}:${number}` : undefined;
}

function formatTarget(protocol: Protocol, address: string, path: string): string {
  const scheme = protocol === "fastcgi" ? "fcgi" : protocol;
  return address.startsWith("unix:")
    ? `${address}|${scheme}://localhost${path}`
    : `${scheme}://${address}${path}`;
}

/** Returns the URLs of each balancer's members. */
function balancersOf(block: Directive[]): Map<string, string[]> {
  return new Map(block.flatMap(({ name, args, block: inner }) => {
    if (inner === undefined) return [];
    if (name !== "proxy") return [...balancersOf(inner)];
    const members = inner.filter(({ name }) => name === "balancermember");
    return [[args[0].replace(/\/$/, ""), members.map(({ args }) => args[0])] as const];
  }));
}
