/**
 * What a module exports in place of an app, and how to make an app of it.
 *
 * @module
 */

import { basename, dirname, join, relative } from "node:path";
import type { App } from "../bridge/app.ts";
import { findConfig, pathOf } from "./app_config.ts";

/** What a module exports. */
export type Exports = Record<string, unknown>;

/** Names under which a module may export its app. */
const NAMES = ["app", "handler", "fetch", "handle", "server", "router", "api", "main", "request"];
/** The name of a function that creates an app. */
const FACTORY = /^(?:create|make|build)\w*(?:App|Application|Server|Handler|Router)$/;
/** The first parameter of a function of a Request. */
const REQUEST_PARAMETER = /^(?:async\s+)?(?:function\b[^(]*)?\w*\s*\(?\s*_?req/;
/** The first two parameters of a handler of Node's. */
const NODE_PARAMETERS =
  /^(?:async\s+)?(?:function\b[^(]*)?\w*\s*\(?\s*_?(?:req|request|incoming\w*)\s*,\s*_?(?:res|response|reply|outgoing\w*)\b/;
/** What compilers to CommonJS and Deno add to the exports of a module. */
const ADDED = ["__esModule", "module.exports"];
/** How many exports a message lists. */
const LISTED = 8;

type Functions = Record<string, ((...args: unknown[]) => unknown) | undefined>;

/** A way from an export to an app. */
interface Way {
  /** The kind of value that was found. */
  what: string;
  /** Whether the lines need the bridge from Node's handlers. */
  isNode?: boolean;
  /** Returns the lines that export an app, given the expression for the value. */
  lines(value: string): string[];
}

const AS_IT_IS = (value: string) => [`export default ${value};`];
/** A bridge from Node's handlers that streams, and reports a path for which Express has no route. */
const BRIDGE = "@universal-middleware/express";
const BRIDGE_VERSION = "0.6";
/** Folders that a build writes, and empties first. */
const BUILT = new Set(["build", "dist", ".output"]);

/** Returns a way from a function of Node's request and response, given the expression for it. */
function fromNode(what: string, handler: (value: string) => string = (value) => value): Way {
  return { what, isNode: true, lines: (value) => bridge(handler(value)) };
}

/** Returns the line that imports the bridge. With a package.json, Deno loads what that has only. */
function importOfBridge(module: string): string {
  const npm = `npm:${BRIDGE}@${BRIDGE_VERSION}`;
  return isInNodeProject(module)
    ? `import { connectToWeb } from "${BRIDGE}"; // after: deno add ${npm}`
    : `import { connectToWeb } from "${npm}";`;
}

function isInNodeProject(module: string): boolean {
  try {
    return findConfig(module)?.path.endsWith("package.json") ?? false;
  } catch {
    // This process may not look for it.
    return false;
  }
}

function bridge(handler: string, parameter = "request: Request", comment = ""): string[] {
  return [
    `const handle = connectToWeb(${handler});${comment}`,
    `export default async (${parameter}) =>`,
    "  await handle(request) ?? new Response(null, { status: 404 });",
  ];
}

/**
 * Returns the app that a module exports: as its default or, without one, as `fetch` or `handler`.
 *
 * @param started What has started the servers of the module, if it has some.
 */
export function appOf(exports: Exports, started: string[]): App | undefined {
  const { default: main, fetch, handler } = exports;
  if (main !== undefined) {
    const isRunning = started.length > 0 && isServer(main as Functions);
    return isApp("default", main) && !isRunning ? main : undefined;
  }
  if (isApp("fetch", fetch)) return fetch;
  // Platforms for functions call theirs with an event.
  const isOfEvents = typeof handler === "function" &&
    !REQUEST_PARAMETER.test(Function.prototype.toString.call(handler));
  return !isOfEvents && isApp("handler", handler) ? handler : undefined;
}

/** Returns whether the export of a name is an app as it is. */
function isApp(name: string, value: unknown): value is App {
  return wayOf(name, value)?.lines === AS_IT_IS;
}

/** Returns whether an app is what srvx's serve() returns. */
function isServer({ fetch, close, ready }: Functions): boolean {
  return [fetch, close, ready].every((member) => typeof member === "function");
}

/**
 * Explains what a module exports, and which lines make an app of it.
 *
 * @param exports Its exports; undefined if it never finished loading.
 * @param started What has started its servers.
 */
export function explainExports(
  module: string,
  exports: Exports | undefined,
  started: string[],
): string {
  const must =
    `${module} must export an app as its default: a function of a Request, or an object with a fetch method.`;
  const found = exports === undefined ? "" : ` It exports ${list(exports)}.`;
  if (started.length > 0) return `${must}${found} ${explainServers(module, started)}`;
  const lines = linesForSvelteKit(module) ?? linesFor(module, exports ?? {});
  if (lines === undefined) return `${must}${found}`;
  return `${must}${found} ${saved(module, lines)}`;
}

function explainServers(module: string, started: string[]): string {
  const text = `It listens by itself, with ${started.join(", ")}.`;
  const isNode = started.every((by) => by.includes("Node"));
  const built = isNode ? linesForSvelteKit(module) : undefined;
  if (built !== undefined) return `${text} ${saved(module, built)}`;
  if (isNode && /\.output\/server\/index\.mjs$/.test(module)) {
    return `${text} Build it with the preset standard of Nitro 3, or with node-listener of Nuxt.`;
  }
  const parameter = /\.[cm]?tsx?$/.test(module) ? "request: Request" : "request";
  const lines = isNode
    ? [
      importOfBridge(module),
      ...bridge("listener", parameter, " // what createServer() was given"),
      "if (import.meta.main) createServer(listener).listen(8000);",
    ]
    : [
      "const app = handler; // what the server was given: a function, or an object with a fetch method",
      "export default app;",
      "if (import.meta.main) Deno.serve(app); // or as it was",
    ];
  return `${text} Write there instead:\n\n${indent(lines)}`;
}

/** Says where to save the lines of a module that exports an app. */
function saved(module: string, lines: string[]): string {
  return `Save these lines as ${fileFor(module)}, and serve that:\n\n${indent(lines)}`;
}

/** Returns the lines of a module that imports another and exports its app, if there is one. */
function linesFor(module: string, exports: Exports): string[] | undefined {
  const from = importedAs(module);
  if (["entry", "routes", "assets"].every((name) => name in exports)) {
    // The server build of React Router.
    return [
      `import { createRequestHandler } from "react-router";`,
      `import * as build from ${from};`,
      "const handle = createRequestHandler(build);",
      "export default (request: Request) => handle(request);",
    ];
  }
  for (const [name, path, value] of candidates(exports)) {
    const way = wayOf(path, value);
    if (way === undefined) continue;
    const local = name === "default" ? "found" : name;
    return [
      ...(way.isNode ? [importOfBridge(module)] : []),
      `import ${name === "default" ? local : `{ ${name} }`} from ${from};`,
      ...way.lines(path.replace(/^default/, "found")),
    ];
  }
  return undefined;
}

/** Returns the values that may be apps, from the most likely one: the export, the path to the value, and the value. */
function candidates(exports: Exports): [name: string, path: string, value: unknown][] {
  const { default: main, ...others } = exports;
  const nested = isObject(main)
    ? ["default", ...NAMES].map((name): [string, string, unknown] => [
      "default",
      `default.${name}`,
      main[name],
    ])
    : [];
  const named = Object.keys(others).toSorted((a, b) => rank(a) - rank(b))
    .map((name): [string, string, unknown] => [name, name, others[name]]);
  return [["default", "default", main], ...nested, ...named];
}

/** Returns the place of a name in the list of likely ones. */
function rank(name: string): number {
  const at = NAMES.indexOf(name);
  return at < 0 ? NAMES.length : at;
}

/**
 * Returns how to make an app of a value, or undefined if it is nothing of the kind.
 *
 * @param path How the module exports it, such as "default.handler".
 */
function wayOf(path: string, value: unknown): Way | undefined {
  const name = path.slice(path.lastIndexOf(".") + 1);
  if (isObject(value)) {
    const { fetch, callback, routing, listen } = value as Functions;
    if (typeof fetch === "function") {
      const what = isServer(value as Functions) ? "a server with fetch" : "an object with fetch";
      return { what, lines: AS_IT_IS };
    }
    if (typeof callback === "function" && typeof listen === "function") {
      return fromNode("a Koa app", (value) => `${value}.callback()`);
    }
    if (typeof routing === "function" && typeof listen === "function") {
      return fromNode(
        "a Fastify app",
        (value) => `await ${value}.ready().then(() => ${value}.routing)`,
      );
    }
    return undefined;
  }
  if (typeof value !== "function") return undefined;
  if (typeof (value as unknown as Functions).fetch === "function") {
    return { what: "a function with fetch", lines: AS_IT_IS };
  }
  if (isClass(value)) return { what: "a class", lines: (value) => AS_IT_IS(`new ${value}()`) };
  if (isNodeHandler(value)) {
    return fromNode("a function of Node's request and response");
  }
  const source = Function.prototype.toString.call(value);
  if ((FACTORY.test(value.name) || FACTORY.test(name)) && !REQUEST_PARAMETER.test(source)) {
    return {
      what: "a function that creates an app",
      lines: (value) => AS_IT_IS(`await ${value}()`),
    };
  }
  const isMethod = path.includes(".");
  if (name !== "default" && !NAMES.includes(name)) return undefined;
  return {
    what: "a function",
    lines: isMethod ? (value) => AS_IT_IS(`(request: Request) => ${value}(request)`) : AS_IT_IS,
  };
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null;
}

function isClass(value: unknown): boolean {
  return /^class\b/.test(Function.prototype.toString.call(value));
}

/** Returns whether a function takes Node's request and response, as apps of Express and Connect do. */
function isNodeHandler(value: { length: number }): boolean {
  // Ours take two parameters, Node's often a third, `next`.
  return value.length > 2 || NODE_PARAMETERS.test(Function.prototype.toString.call(value));
}

function list(exports: Exports): string {
  const names = Object.keys(exports).filter((name) => !ADDED.includes(name))
    .toSorted((a, b) => Number(b === "default") - Number(a === "default"));
  if (names.length === 0) return "nothing";
  const items = names.slice(0, LISTED).map((name) => `${name} (${describe(name, exports[name])})`);
  const more = names.length - items.length;
  return `${items.join(", ")}${more > 0 ? ` and ${more} more` : ""}`;
}

function describe(name: string, value: unknown): string {
  const what = wayOf(name, value)?.what;
  if (what !== undefined) return what;
  if (isObject(value)) {
    const keys = Object.keys(value).filter((key) => !ADDED.includes(key)).slice(0, LISTED);
    return keys.length === 0 ? "an object" : `an object with ${keys.join(", ")}`;
  }
  return value === null ? "null" : `of type ${typeof value}`;
}

/** Returns the file for the lines: beside the module, or the folder of a build. */
function fileFor(module: string): string {
  return pathOf(module) === undefined ? "gatehouse.ts" : join(folderFor(module), "gatehouse.ts");
}

/** Returns the folder of a module, or of the project that a build made it of. */
function folderFor(module: string): string {
  const folder = dirname(module);
  const parts = folder.split("/");
  const at = parts.findLastIndex((name) => BUILT.has(name));
  if (at < 0) return folder;
  const project = parts.slice(0, at).join("/") || (folder.startsWith("/") ? "/" : ".");
  return isFile(join(project, "package.json")) ? project : folder;
}

/** Returns the specifier, quoted, that the lines import a module by, or a file beside it. */
function importedAs(module: string, file = module): string {
  if (pathOf(module) === undefined) return JSON.stringify(module);
  return JSON.stringify(`./${relative(folderFor(module), file)}`);
}

/** Returns the lines for a module that SvelteKit built for Node, if it is one. */
function linesForSvelteKit(module: string): string[] | undefined {
  const path = pathOf(module);
  if (path === undefined || !/^(?:index|handler)\.js$/.test(basename(path))) return undefined;
  const server = join(dirname(path), "server", "server.js");
  const handler = join(dirname(path), "handler.js");
  if (!isFile(handler)) return undefined;
  const imported = (file: string) => importedAs(path, file);
  return isFile(server)
    ? [
      `import { server } from ${imported(server)};`,
      "await server.init({ env: Deno.env.toObject() });",
      "export default (request: Request, info: { remoteAddr: { hostname: string } }) =>",
      "  server.respond(request, { getClientAddress: () => info.remoteAddr.hostname });",
    ]
    : [
      importOfBridge(module),
      `import { handler } from ${imported(handler)};`,
      ...bridge("handler"),
    ];
}

/** Returns whether a file exists that this process may see. */
function isFile(path: string): boolean {
  if (Deno.permissions.querySync({ name: "read", path }).state !== "granted") return false;
  try {
    return Deno.statSync(path).isFile;
  } catch {
    return false;
  }
}

function indent(lines: string[]): string {
  return lines.map((line) => `  ${line}`).join("\n");
}
