/**
 * Why nginx passes no request for a script to fcgiwrap, which runs it.
 *
 * @module
 */

import { basename, dirname } from "node:path";
import { createFinding, type FindingOf } from "./finding.ts";
import type { Directive } from "./nginx_config.ts";
import type { Pass } from "./nginx_passes.ts";
import { stat } from "./user.ts";

/** All kinds of findings. Words in braces are replaced. */
export const NGINX_SCRIPT_FINDINGS = {
  "no-alias": {
    what: "No location of nginx leads to {script}",
    advice: "Write in the block server: location {url} { root {root}; {lines} }",
  },
  "no-handler": {
    what: "nginx sends the source of {script} to clients, as {place} has no fastcgi_pass",
    advice: "Write in the block server: location {url} { root {root}; {lines} }",
  },
  "script-filename": {
    what: "{pass} names another file as SCRIPT_FILENAME than {script}: {file}",
    advice: "Write in the same block: fastcgi_param SCRIPT_FILENAME {variable};",
  },
} as const;

/** A reason why nginx does not pass requests for a script on. */
export type NginxScriptFinding = FindingOf<keyof typeof NGINX_SCRIPT_FINDINGS>;

/** Where the package of Debian and that of Fedora have the socket of fcgiwrap. */
const SOCKETS = ["/run/fcgiwrap.socket", "/run/fcgiwrap/fcgiwrap-nginx.sock"];

/** A server or a location, with the folder of its files. */
interface Place {
  block: Directive[];
  /** The operator and the pattern of a location; none for a server. */
  args: string[];
  root: string;
  /** Whether the folder takes the place of the location's path. */
  isAlias: boolean;
}

/**
 * Finds the directive that passes requests for a script on, or why there is none. Of several reasons the nearest to a script
 * that runs counts.
 */
export function wayTo(
  script: string,
  config: Directive[],
  passes: Pass[],
): { pass?: Pass; findings: NginxScriptFinding[] } {
  const folder = dirname(script);
  const lines =
    `include fastcgi_params; fastcgi_param SCRIPT_FILENAME ${"$document_root$fastcgi_script_name"}; fastcgi_pass unix:${
      SOCKETS.find((path) => stat(path) !== undefined) ?? SOCKETS[0]
    };`;
  const common = { script, url: `/${basename(folder)}/`, root: dirname(folder), lines };
  const reasons: NginxScriptFinding[] = [];
  for (const server of serversIn(config)) {
    const places = [...placesIn(server)];
    for (const path of pathsTo(script, places)) {
      const place = placeFor(path, places);
      const pass = passes.find(({ block, name }) =>
        block === place.block && name === "fastcgi_pass"
      );
      const names = variablesOf(path, place);
      const file = pass && scriptOf(pass, names);
      if (file === script) return { pass, findings: [] };
      if (names.request_filename !== script) continue;
      if (pass === undefined) {
        const name = place.args.length > 0 ? `location ${place.args.join(" ")}` : "its server";
        const values = { ...common, place: name };
        reasons.push(createFinding(NGINX_SCRIPT_FINDINGS, "no-handler", values));
      } else {
        reasons.push(createFinding(NGINX_SCRIPT_FINDINGS, "script-filename", {
          ...common,
          pass: pass.text,
          file: file || "nothing",
          variable: place.isAlias ? "$request_filename" : "$document_root$fastcgi_script_name",
        }));
      }
    }
  }
  const reason = reasons.find(({ id }) => id === "script-filename") ?? reasons[0];
  return { findings: [reason ?? createFinding(NGINX_SCRIPT_FINDINGS, "no-alias", common)] };
}

function serversIn(config: Directive[]): Place[] {
  const http = config.filter(({ name }) => name === "http").flatMap(({ block = [] }) => block);
  return http.filter(({ name }) => name === "server").map(({ block = [] }) => ({
    block,
    args: [],
    root: folderOf(block, "root") ?? folderOf(http, "root") ?? "html",
    isAlias: false,
  }));
}

/** Yields a server and all locations in it. */
function* placesIn(place: Place): Generator<Place> {
  yield place;
  for (const { name, args, block } of place.block) {
    if (name !== "location" || block === undefined) continue;
    const alias = folderOf(block, "alias");
    const root = folderOf(block, "root");
    yield* placesIn({
      block,
      args,
      root: alias ?? root ?? place.root,
      isAlias: alias !== undefined || root === undefined && place.isAlias,
    });
  }
}

function folderOf(block: Directive[], name: string): string | undefined {
  return block.findLast((directive) => directive.name === name)?.args[0];
}

/** Returns the paths of URLs that may lead to a script. */
function pathsTo(script: string, places: Place[]): string[] {
  const suffixes = [...script.matchAll(/\//g)].map(({ index }) => script.slice(index)).reverse();
  const aliased = places.filter(({ isAlias, root, args }) =>
    isAlias && args.at(-1)?.startsWith("/") && script.startsWith(root)
  ).map(({ root, args }) => args.at(-1)! + script.slice(root.length));
  return [...new Set([...aliased, ...suffixes])];
}

/** Returns the place that nginx chooses for a path. */
function placeFor(path: string, places: Place[]): Place {
  const [server, ...locations] = places;
  const exact = locations.find(({ args }) => args[0] === "=" && args[1] === path);
  if (exact !== undefined) return exact;
  const [prefix = server] = locations
    .filter(({ args }) => isPrefix(args) && path.startsWith(args.at(-1)!))
    .toSorted((a, b) => b.args.at(-1)!.length - a.args.at(-1)!.length);
  if (prefix.args[0] === "^~") return prefix;
  return locations.find((place) => groupsOf(path, place) !== undefined) ?? prefix;
}

function isPrefix([first, ...more]: string[]): boolean {
  return first === "^~" || more.length === 0 && !/^[~=@]/.test(first ?? "@");
}

/** Returns the groups of a location's expression, or undefined if it does not match or is none. */
function groupsOf(
  path: string,
  { args: [operator, source] }: Place,
): Record<string, string> | undefined {
  if (operator !== "~" && operator !== "~*") return undefined;
  try {
    const match = new RegExp(source, operator === "~*" ? "i" : "").exec(path);
    return match === null ? undefined : { ...match.groups, ...Object.fromEntries(match.entries()) };
  } catch {
    // PCRE has more than our expressions.
    return undefined;
  }
}

/** Returns the variables that the name of a file is made of. */
function variablesOf(path: string, place: Place): Record<string, string> {
  const { root, isAlias, args } = place;
  const location = isPrefix(args) ? args.at(-1)! : "";
  return {
    ...groupsOf(path, place),
    document_root: root,
    realpath_root: root,
    fastcgi_script_name: path,
    uri: path,
    document_uri: path,
    request_uri: path,
    request_filename: isAlias ? root + path.slice(location.length) : root + path,
  };
}

/** Returns the file that fcgiwrap runs: that of SCRIPT_FILENAME, else DOCUMENT_ROOT and SCRIPT_NAME. */
function scriptOf({ adds: { fastcgi_param } }: Pass, names: Record<string, string>): string {
  const expand = (text = "") =>
    text.replaceAll(
      /\$(?:\{(\w+)\}|(\w+))/g,
      (text, braced, name) => names[braced ?? name] ?? text,
    );
  const file = fastcgi_param.get("SCRIPT_FILENAME");
  return file === undefined
    ? expand(fastcgi_param.get("DOCUMENT_ROOT")) + expand(fastcgi_param.get("SCRIPT_NAME"))
    : expand(file);
}
