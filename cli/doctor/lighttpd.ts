/**
 * What can be wrong between lighttpd and the daemon behind it, and why it does not run a script.
 *
 * @module
 */

import { basename, dirname, join } from "node:path";
import {
  addressesOf,
  type Connecting,
  CONNECTION_FINDINGS,
  examineAddresses,
  type Protocol,
} from "./connection.ts";
import { createFinding, type FindingOf } from "./finding.ts";
import { type Condition, readLighttpdConfig, type Setting, type Value } from "./lighttpd_config.ts";
import type { Examined, Report } from "./report.ts";
import { stat, User } from "./user.ts";

/** All kinds of findings. Words in braces are replaced. */
export const LIGHTTPD_FINDINGS = {
  ...CONNECTION_FINDINGS,
  "server-module": {
    what: "lighttpd ignores {setting}, as server.modules does not have {module}",
    advice: 'Write: server.modules += ( "{module}" )',
  },
  "cgi-module": {
    what: "lighttpd runs no CGI scripts: server.modules does not have mod_cgi",
    advice: 'Write: server.modules += ( "mod_cgi" )',
  },
  "no-alias": {
    what: "Neither server.document-root nor alias.url of lighttpd leads to {script}",
    advice: 'Write: alias.url += ( "/cgi-bin/" => "{folder}/" )',
  },
  "not-granted": {
    what: 'lighttpd lets no client request {script}: url.access-deny has "{end}"',
    advice: 'Write: $HTTP["url"] == "{path}" { url.access-deny = () }',
  },
  "no-handler": {
    what: "lighttpd sends the source of {script} to clients, as no cgi.assign holds for it",
    advice: 'Write: $HTTP["url"] =^ "{path}" { cgi.assign = ( "" => "" ) }',
  },
} as const;

/** A fault of lighttpd's configuration, or of what it connects to. */
export type LighttpdFinding = FindingOf<keyof typeof LIGHTTPD_FINDINGS>;

interface Pass extends Connecting {
  addresses: string[];
}

/** The settings that name daemons, with their modules and protocols. */
const DAEMONS: [name: string, module: string, protocol: Protocol][] = [
  ["fastcgi.server", "mod_fastcgi", "fastcgi"],
  ["scgi.server", "mod_scgi", "scgi"],
  ["proxy.server", "mod_proxy", "http"],
];

/** Finds faults between lighttpd and the daemons that its configuration names, or why it does not run a script. */
export async function examineLighttpd({ file, userName, script, ms }: Examined): Promise<Report> {
  const settings = readLighttpdConfig(file);
  const named = settings.findLast(({ name }) => name === "server.username")?.value;
  const user = User.find(userName ?? (typeof named === "string" ? named : undefined));
  const modules = modulesOf(settings);
  if (script !== undefined) {
    return {
      user,
      passes: 0,
      addresses: [],
      findings: examineScript(script, file, settings, modules),
    };
  }
  const passes = settings.flatMap(passesOf);
  const missing = DAEMONS.filter(([name, module]) =>
    !modules.has(module) && settings.some((setting) => setting.name === name)
  );
  const findings = [
    ...missing.map(([setting, module]) =>
      createFinding(LIGHTTPD_FINDINGS, "server-module", { setting, module })
    ),
    ...await examineAddresses(passes, user, ms),
  ];
  return { user, passes: passes.length, addresses: addressesOf(passes), findings };
}

function modulesOf(settings: Setting[]): Set<string> {
  const value = settings.findLast(({ name }) => name === "server.modules")?.value;
  return new Set(Array.isArray(value) ? value.map(([, module]) => String(module)) : []);
}

/** Returns the daemons of a setting that lighttpd does not start itself. */
function passesOf({ name, value }: Setting): Pass[] {
  const [, , protocol] = DAEMONS.find(([daemon]) => daemon === name) ?? [];
  if (protocol === undefined || !Array.isArray(value)) return [];
  return value.flatMap(([key = "", hosts]) => {
    const addresses = listOf(hosts).map(addressOf).filter((address) => address !== undefined);
    const text = `${name} "${key}"`;
    const write = (protocol: Protocol, address: string) =>
      `${DAEMONS.find(([, , other]) => other === protocol)![0]} = ( "${key}" => ((${
        formatAddress(address)
      })) )`;
    return addresses.length > 0 ? [{ text, protocol, addresses, write }] : [];
  });
}

/** Returns the daemons of a key: one, a list, or a list with names. */
function listOf(value: Value): Map<string, Value>[] {
  if (!Array.isArray(value)) return [];
  if (value.some(([, member]) => !Array.isArray(member))) {
    return [new Map(value.map(([key = "", member]) => [key, member]))];
  }
  return value.flatMap(([, member]) => listOf(member));
}

function addressOf(host: Map<string, Value>): string | undefined {
  if (host.has("bin-path")) return undefined;
  const socket = host.get("socket");
  if (socket !== undefined) return `unix:${socket}`;
  const name = String(host.get("host") ?? "127.0.0.1");
  if (name.startsWith("/")) return `unix:${name}`;
  return `${name.includes(":") ? `[${name}]` : name}:${host.get("port") ?? 80}`;
}

function formatAddress(address: string): string {
  const [, path, host, port] = /^(?:unix:(.*)|\[?(.*?)\]?:(\d+))$/s.exec(address)!;
  return path === undefined
    ? ` "host" => "${host}", "port" => ${port} `
    : ` "socket" => "${path}" `;
}

function examineScript(
  script: string,
  file: string,
  settings: Setting[],
  modules: Set<string>,
): LighttpdFinding[] {
  const folder = dirname(script);
  const find = (
    id: keyof typeof LIGHTTPD_FINDINGS,
    values: Record<string, string> = {},
    line?: string,
  ) => [createFinding(LIGHTTPD_FINDINGS, id, { script, folder, ...values }, line)];
  // Debian's file has the alias, too.
  if (!modules.has("mod_cgi")) {
    const isAvailable = stat(join(dirname(file), "conf-available/10-cgi.conf")) !== undefined;
    const line = isAvailable
      ? "sudo lighttpd-enable-mod cgi && sudo systemctl restart lighttpd"
      : undefined;
    return find("cgi-module", {}, line);
  }
  const path = pathOf(script, settings, modules);
  if (path === undefined) return find("no-alias");
  const applying = settings.filter(({ conditions }) =>
    conditions.every((condition) => mayBeTrue(condition, path))
  );
  const denied = modules.has("mod_access")
    ? lastOf(applying, "url.access-deny").map(([, end]) => String(end))
      .find((end) => end !== "" && path.toLowerCase().endsWith(end.toLowerCase()))
    : undefined;
  if (denied !== undefined) return find("not-granted", { end: denied, path });
  const isAssigned = lastOf(applying, "cgi.assign").some(([end = ""]) => script.endsWith(end));
  return isAssigned ? [] : find("no-handler", { path: path.slice(0, -basename(path).length) });
}

/** Returns the last list that a setting was set to. */
function lastOf(settings: Setting[], name: string): [string | undefined, Value][] {
  const value = settings.findLast((setting) => setting.name === name)?.value;
  return Array.isArray(value) ? value : [];
}

/** Returns the path of the URL that leads to a script. */
function pathOf(script: string, settings: Setting[], modules: Set<string>): string | undefined {
  for (const { name, value, conditions } of settings.toReversed()) {
    const aliases: [string, string][] = name === "alias.url" && modules.has("mod_alias") &&
        Array.isArray(value)
      ? value.map(([key = "", folder]) => [key, String(folder)])
      : name === "server.document-root"
      ? [["/", `${String(value).replace(/\/*$/, "")}/`]]
      : [];
    for (const [key, folder] of aliases) {
      if (!script.startsWith(folder)) continue;
      const path = key + script.slice(folder.length);
      if (conditions.every((condition) => mayBeTrue(condition, path))) return path;
    }
  }
  return undefined;
}

/** Returns whether a condition is true for a path, or may be true for a request. */
function mayBeTrue({ what, operator, value }: Condition, path: string): boolean {
  if (what !== "HTTP.url") return true;
  switch (operator) {
    case "==":
      return path === value;
    case "!=":
      return path !== value;
    case "=^":
      return path.startsWith(value);
    case "=$":
      return path.endsWith(value);
  }
  try {
    const [, flags, source] = /^(?:\(\?(i)\))?(.*)$/s.exec(value)!;
    return new RegExp(source, flags).test(path) === (operator === "=~");
  } catch {
    // PCRE has more than our expressions.
    return true;
  }
}
