/**
 * What can be wrong between nginx and the daemon behind it.
 *
 * @module
 */

import { dirname } from "node:path";
import { hostMap } from "../config/nginx.ts";
import { addressesOf, CONNECTION_FINDINGS, examineAddresses } from "./connection.ts";
import { createFinding, type FindingOf } from "./finding.ts";
import { examineFolder, FOLDER_FINDINGS } from "./folder.ts";
import { type Directive, readNginxConfig } from "./nginx_config.ts";
import { type Pass, passesIn } from "./nginx_passes.ts";
import { wayTo } from "./nginx_script.ts";
import type { Examined, Report } from "./report.ts";
import { User } from "./user.ts";

/** All kinds of findings. Words in braces are replaced. */
export const NGINX_FINDINGS = {
  ...CONNECTION_FINDINGS,
  ...FOLDER_FINDINGS,
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

/** Finds faults between nginx and the daemons that its configuration names. */
export async function examineNginx({ file, userName, script, ms }: Examined): Promise<Report> {
  const config = readNginxConfig(file);
  const named = config.findLast(({ name }) => name === "user")?.args[0];
  const user = User.find(userName ?? named ?? "nobody");
  const passes = passesIn(config);
  if (script !== undefined) {
    const { pass, findings } = wayTo(script, config, passes);
    const more = pass === undefined
      ? []
      : [...examinePass(pass), ...await examineAddresses([pass], user, ms)];
    const addresses = pass === undefined ? [] : addressesOf([pass]);
    return { user, passes: 0, addresses, findings: [...findings, ...more] };
  }
  const findings = [
    ...[...emptyIncludes(config)].map((include) =>
      createFinding(NGINX_FINDINGS, "include", {
        include: `include ${include}`,
        folder: dirname(include),
      })
    ),
    ...[...foldersIn(config)].flatMap((folder) => examineFolder(folder, user)),
    ...passes.flatMap(examinePass),
    ...await examineAddresses(passes, user, ms),
  ];
  // Several locations may say the same.
  const texts = findings.map(({ what }) => what);
  return {
    user,
    passes: passes.length,
    addresses: addressesOf(passes),
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

/** Yields the folders whose files are sent. What a variable names is only known of a request. */
function* foldersIn(block: Directive[]): Generator<string> {
  for (const { name, args, block: inner } of block) {
    if (/^(?:root|alias)$/.test(name) && /^\/[^$]*$/.test(args[0])) yield args[0];
    if (inner !== undefined) yield* foldersIn(inner);
  }
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
