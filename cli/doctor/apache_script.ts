/**
 * Why Apache does not run a script.
 *
 * @module
 */

import { basename, dirname, join } from "node:path";
import { type ApacheConfig, type Directive, isOfDebian, readHtaccess } from "./apache_config.ts";
import { change, formatLine } from "./commands.ts";
import { createFinding, type FindingOf } from "./finding.ts";
import { toRegExp } from "./glob.ts";
import { foldersOf, stat } from "./user.ts";

/** All kinds of findings. Words in braces are replaced. */
export const APACHE_SCRIPT_FINDINGS = {
  "cgi-module": {
    what: "Apache runs no CGI scripts: neither mod_cgid nor mod_cgi is loaded{comment}",
    advice: "Write: LoadModule {module} modules/mod_cgid.so",
  },
  "fcgid-module": {
    what: "Apache does not run {script} as a FastCGI application: mod_fcgid is not loaded{comment}",
    advice: "Install it: apt-get install libapache2-mod-fcgid, on Fedora dnf install mod_fcgid",
  },
  "no-alias": {
    what: "No ScriptAlias, Alias or DocumentRoot of Apache leads to {script}",
    advice: "Write: ScriptAlias {url} {folder}/",
  },
  "not-granted": {
    what: "Apache lets no client request {script}: {rule}",
    advice: 'Write in <Directory "{folder}">: Require all granted',
  },
  "no-handler": {
    what: "Apache sends the source of {script} to clients, as no handler is set for its name",
    advice: 'Write in <Directory "{folder}">: AddHandler {handler} {end}',
  },
  "no-exec": {
    what: "Apache may not run {script}: the Options of its folder do not have ExecCGI",
    advice: 'Write in <Directory "{folder}">: Options +ExecCGI',
  },
  "override": {
    what: "AllowOverride {allowed} does not let {htaccess} set {directives}",
    advice: 'Write in <Directory "{folder}">: AllowOverride {needed}',
  },
} as const;

/** A reason why Apache does not run a script. */
export type ApacheScriptFinding = FindingOf<keyof typeof APACHE_SCRIPT_FINDINGS>;

/** How a site maps a URL to a script. */
interface Route {
  /** The path of the URL. */
  path: string;
  /** Whether it is a ScriptAlias, which needs neither ExecCGI nor a handler. */
  isScriptAlias: boolean;
}

/** The settings for a script, from all sections. */
interface Settings {
  exec: boolean;
  handler: string | undefined;
  /** The rule that denies all requests; undefined if none does. */
  denied: string | undefined;
}

/** The class of AllowOverride that lets `.htaccess` have a directive, of those that matter for scripts. */
const CLASSES: Record<string, string> = {
  options: "Options",
  addhandler: "FileInfo",
  sethandler: "FileInfo",
  setenv: "FileInfo",
  rewriteengine: "FileInfo",
  rewriterule: "FileInfo",
  require: "AuthConfig",
  cgipassauth: "AuthConfig",
};
const SPELLING: Record<string, string> = {
  options: "Options",
  addhandler: "AddHandler",
  sethandler: "SetHandler",
  setenv: "SetEnv",
  rewriteengine: "RewriteEngine",
  rewriterule: "RewriteRule",
  require: "Require",
  cgipassauth: "CGIPassAuth",
};
const HANDLERS = ["cgi-script", "fcgid-script"];

/** Finds out why Apache does not run a script; it does if one site runs it. */
export function examineApacheScript(script: string, config: ApacheConfig): ApacheScriptFinding[] {
  const results = sitesOf(config.directives).map((site) => examineSite(script, site, config));
  // The reason that comes last is the nearest to a script that runs.
  return results.find((findings) => findings.length === 0) ??
    results.toSorted((a, b) => order(b) - order(a))[0];
}

function order([finding]: ApacheScriptFinding[]): number {
  return Object.keys(APACHE_SCRIPT_FINDINGS).indexOf(finding.id);
}

/** Returns the directives of the main server, and of each virtual host with what it inherits. */
function sitesOf(directives: Directive[]): Directive[][] {
  const hosts = directives.filter(({ name }) => name === "virtualhost");
  const main = directives.filter(({ name }) => name !== "virtualhost");
  return [main, ...hosts.map(({ block = [] }) => [...main, ...block])];
}

function examineSite(
  script: string,
  directives: Directive[],
  config: ApacheConfig,
): ApacheScriptFinding[] {
  const folder = dirname(script);
  const end = /\.\w+$/.exec(basename(script))?.[0] ?? "";
  const common = { script, folder };
  const route = routeTo(script, directives);
  const settings = route && settingsOf(script, route, directives, config);
  const handler = route?.isScriptAlias ? "cgi-script" : settings?.handler ??
    (end === ".fcgi" ? "fcgid-script" : "cgi-script");
  const find = (
    id: keyof typeof APACHE_SCRIPT_FINDINGS,
    values: Record<string, string> = {},
    line?: string,
  ) => [createFinding(APACHE_SCRIPT_FINDINGS, id, { ...common, ...values }, line)];
  // Debian's files alias and handle scripts only with the module.
  if (handler === "fcgid-script" && !config.modules.has("fcgid_module")) {
    return find("fcgid-module", ...loading(["fcgid"], config));
  }
  const isThreaded = !config.modules.has("mpm_prefork_module");
  const names = isThreaded ? ["cgid", "cgi"] : ["cgi", "cgid"];
  if (handler === "cgi-script" && !names.some((name) => config.modules.has(`${name}_module`))) {
    return find("cgi-module", ...loading(names, config));
  }
  if (route === undefined || settings === undefined) {
    // Of two aliases of a path the first counts.
    const isTaken = directives.some(({ name, args }) =>
      /alias$/.test(name) && /^\/cgi-bin\b/.test(args[0] ?? "")
    );
    return find("no-alias", { url: isTaken ? `/${basename(folder)}/` : "/cgi-bin/" });
  }
  const denied = settings.denied;
  const runs = route.isScriptAlias || settings.handler === handler && settings.exec;
  const files = refusals(script, directives, config);
  if (denied === undefined && runs) {
    // A file that Apache does not read at all does no harm.
    return files.filter(({ allowed }) => !/^none$/i.test(allowed))
      .flatMap((values) => find("override", values));
  }
  // What a file says may be all that is missing.
  const wanted = denied === undefined ? /Options|Handler/ : /Require/;
  const refused = files.find(({ directives }) => wanted.test(directives));
  if (refused !== undefined) return find("override", refused);
  if (denied !== undefined) return find("not-granted", { rule: denied });
  if (settings.handler === undefined || !HANDLERS.includes(settings.handler)) {
    return find("no-handler", { handler, end: end || basename(script) });
  }
  return find("no-exec");
}

/** Returns what loads one of some modules: the words of the finding, and the line of shell. */
function loading(
  names: string[],
  config: ApacheConfig,
): [values: Record<string, string>, line: string | undefined] {
  const available = names.find((name) =>
    stat(join(config.root, "mods-available", `${name}.load`)) !== undefined
  );
  const name = available ?? names[0];
  const comment = config.comments.get(`${name}_module`);
  const values = {
    module: `${name}_module`,
    comment: comment === undefined
      ? ""
      : `, as line ${comment.line} of ${comment.file} is a comment`,
  };
  if (isOfDebian(config) && available !== undefined) {
    return [values, `sudo a2enmod ${available} && sudo systemctl restart apache2`];
  }
  const uncomment = comment &&
    change(comment.file, ["sed", "-i", `${comment.line}s/^[# ]*//`, comment.file]);
  return [values, uncomment && formatLine([uncomment])];
}

/** Returns how requests reach a script. */
function routeTo(script: string, directives: Directive[]): Route | undefined {
  for (const { name, args } of directives) {
    if (!/^(?:script)?alias(?:match)?$/.test(name) || args.length < 2) continue;
    const isScriptAlias = name.startsWith("script");
    const [from, to] = args;
    // What follows in the URL is in the path of the file, too.
    const folder = name.endsWith("match") ? to.replace(/\$.*/s, "") : to;
    const rest = below(script, folder);
    if (rest === undefined) continue;
    const path = name.endsWith("match") ? "/" : from;
    return { path: join(path, rest), isScriptAlias };
  }
  const root = directives.findLast(({ name }) => name === "documentroot")?.args[0];
  const rest = root && below(script, root);
  if (rest !== undefined && rest !== "") return { path: join("/", rest), isScriptAlias: false };
  const users = directives.findLast(({ name }) => name === "userdir")?.args[0];
  const home = users?.startsWith("/") === false && users !== "disabled"
    ? new RegExp(`^/home/([^/]+)/${users}/(.*)$`, "s").exec(script)
    : undefined;
  return home ? { path: `/~${home[1]}/${home[2]}`, isScriptAlias: false } : undefined;
}

/** Returns the rest of a path below a folder, or "" for the path itself. */
function below(path: string, folder: string): string | undefined {
  if (path === folder) return "";
  const prefix = folder.replace(/\/*$/, "/");
  return path.startsWith(prefix) ? path.slice(prefix.length) : undefined;
}

/** Merges all sections for a script, in the order of Apache. */
function settingsOf(
  script: string,
  route: Route,
  directives: Directive[],
  config: ApacheConfig,
): Settings {
  const settings: Settings = { exec: false, handler: undefined, denied: undefined };
  const name = basename(script);
  apply(settings, directives, name);
  for (const folder of [...foldersOf(script)]) {
    for (const { block = [] } of sectionsFor(folder, directives)) apply(settings, block, name);
    const own = readHtaccess(join(folder, ".htaccess"), config) ?? [];
    const { classes } = overridesOf(folder, directives);
    apply(settings, own.filter((directive) => isAllowed(directive, classes)), name);
  }
  const later = directives.filter(({ name: section, args, block }) =>
    block !== undefined &&
    (section === "directorymatch" && matches(args, foldersOf(script).at(-1)!) ||
      section === "location" &&
        (args[0] === "~" ? matches(args, route.path) : below(route.path, args[0]) !== undefined) ||
      section === "locationmatch" && matches(args, route.path))
  );
  for (const { block = [] } of later) apply(settings, block, name);
  return settings;
}

/** Returns the `<Directory>` sections for a folder. */
function sectionsFor(folder: string, directives: Directive[]): Directive[] {
  return directives.filter(({ name, args }) => {
    if (name !== "directory") return false;
    if (args[0] === "~") return matches(args, folder);
    const [path] = args;
    if (!/[*?[]/.test(path)) return path.replace(/(.)\/+$/s, "$1") === folder;
    const parts = path.replace(/\/+$/, "").split("/");
    const names = folder.split("/");
    return parts.length === names.length && parts.every((part, i) => toRegExp(part).test(names[i]));
  });
}

/** Returns whether a directive is a section for a name. */
function isForFile({ name, args }: Directive, file: string): boolean {
  if (name === "filesmatch" || name === "files" && args[0] === "~") return matches(args, file);
  return name === "files" && toRegExp(args[0]).test(file);
}

function matches(args: string[], text: string): boolean {
  try {
    return new RegExp(args.at(-1)!).test(text);
  } catch {
    // Apache's expressions have more than ours.
    return false;
  }
}

/** Applies the directives of one section. */
function apply(settings: Settings, block: Directive[], file: string): void {
  const requires = block.filter(({ name }) => name === "require").map(({ args }) => args);
  if (requires.length > 0 || block.some(({ name }) => /^require(?:all|any|none)$/.test(name))) {
    const denies = requires.length > 0 &&
      requires.every(([what, value]) => what === "all" && value === "denied");
    settings.denied = denies ? "Require all denied" : undefined;
  }
  for (const { name, args } of block) {
    if (name === "options") applyOptions(settings, args);
    else if (name === "sethandler") settings.handler = args[0] === "None" ? undefined : args[0];
    else if (name === "addhandler" && hasExtension(file, args.slice(1))) settings.handler = args[0];
    else if (name === "removehandler" && hasExtension(file, args)) settings.handler = undefined;
  }
  for (const { block: inner } of block.filter((section) => isForFile(section, file))) {
    apply(settings, inner!, file);
  }
}

function applyOptions(settings: Settings, args: string[]): void {
  const isRelative = args.some((arg) => /^[+-]/.test(arg));
  if (!isRelative) settings.exec = false;
  for (const arg of args) {
    const [, sign, option] = /^([+-]?)(.*)$/.exec(arg.toLowerCase())!;
    if (option === "execcgi" || option === "all") settings.exec = sign !== "-";
  }
}

/** Returns whether one of the ends of a name is in a list, with or without its dot. */
function hasExtension(file: string, ends: string[]): boolean {
  const own = file.toLowerCase().split(".").slice(1);
  return ends.some((end) => own.includes(end.toLowerCase().replace(/^\./, "")));
}

/** Returns which directives the `.htaccess` of a folder may have: the words of AllowOverride. */
function overridesOf(folder: string, directives: Directive[]): { classes: string[] } {
  // Without the directive Apache reads the file, and refuses what is in it.
  let classes = ["None", "by default"];
  for (const above of [...foldersOf(folder), folder]) {
    for (const { block = [] } of sectionsFor(above, directives)) {
      const own = block.findLast(({ name }) => name === "allowoverride");
      if (own !== undefined) classes = own.args;
    }
  }
  return { classes };
}

function isAllowed({ name, args }: Directive, classes: string[]): boolean {
  const needed = CLASSES[name]?.toLowerCase();
  return needed === undefined || classes.some((word) => {
    const [own, options] = word.toLowerCase().split("=");
    if (own === "all") return true;
    if (own !== needed) return false;
    return options === undefined ||
      args.every((arg) => options.split(",").includes(arg.toLowerCase().replace(/^[+-]/, "")));
  });
}

/** The words of a finding. */
type Refusal = Record<"htaccess" | "folder" | "allowed" | "directives" | "needed", string>;

/** Returns the words of a finding for each `.htaccess` on the way to a script with directives that it may not have. */
function refusals(
  script: string,
  directives: Directive[],
  config: ApacheConfig,
): Refusal[] {
  return foldersOf(script).flatMap((folder) => {
    const htaccess = join(folder, ".htaccess");
    const own = readHtaccess(htaccess, config) ?? [];
    const { classes } = overridesOf(folder, directives);
    const refused = own.filter((directive) => !isAllowed(directive, classes));
    if (refused.length === 0) return [];
    const needs = own.filter(({ name }) => name in CLASSES);
    const needed = [...new Set(needs.map(neededClass))].sort().join(" ");
    const names = [...new Set(refused.map(({ name }) => SPELLING[name]))].join(" and ");
    return [{ htaccess, folder, allowed: classes.join(" "), directives: names, needed }];
  });
}

function neededClass({ name, args }: Directive): string {
  const isExec = name === "options" && args.every((arg) => /^[+-]?ExecCGI$/i.test(arg));
  return isExec ? "Options=ExecCGI" : CLASSES[name];
}
