/**
 * What a module exports in place of an app, and how to make an app of it.
 *
 * @module
 */

import { basename, dirname, join } from "node:path";
import type { App } from "../bridge/app.ts";
import { pathOf } from "./app_config.ts";

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
  /** Modules that the lines import besides. */
  imports?: string;
  /** Makes an app of the expression for the value. */
  wrap(value: string): string;
}

const AS_IT_IS = (value: string) => value;
const NODE: Pick<Way, "imports"> = { imports: `import { toFetchHandler } from "npm:srvx@1/node";` };

/**
 * Returns whether a default export is an app.
 *
 * @param started What has started the servers of the module, if it has some.
 */
export function isApp(value: unknown, started: string[]): value is App {
  const way = wayOf("default", value);
  return way?.wrap === AS_IT_IS && !(started.length > 0 && isServer(value as Functions));
}

/** Returns whether an app is what srvx's serve() returns. */
function isServer({ fetch, close, ready }: Functions): boolean {
  return [fetch, close, ready].every((member) => typeof member === "function");
}

/**
 * Explains what a module exports, and which lines make an app of it.
 *
 * @param exports What it exports; undefined if it never ended to load.
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
  const lines = linesFor(module, exports ?? {});
  if (lines === undefined) return `${must}${found}`;
  const name = siblingOf(module);
  return `${must}${found} Save these lines as ${name}, and serve that:\n\n${indent(lines)}`;
}

function explainServers(module: string, started: string[]): string {
  const text = `It listens by itself, with ${started.join(", ")}.`;
  const isNode = started.every((by) => by.includes("Node"));
  const sibling = isNode ? handlerOf(module) : undefined;
  if (sibling !== undefined) {
    // As in what SvelteKit builds for Node.
    const lines = [
      NODE.imports!,
      `import { handler } from "./${basename(sibling)}";`,
      "export default toFetchHandler(handler);",
    ];
    return `${text} Save these lines as ${siblingOf(module)}, and serve that:\n\n${indent(lines)}`;
  }
  const lines = isNode
    ? [
      NODE.imports!,
      "export default toFetchHandler(listener); // what createServer() was given",
      "if (import.meta.main) createServer(listener).listen(8000);",
    ]
    : [
      "const app = handler; // what the server was given: a function, or an object with a fetch method",
      "export default app;",
      "if (import.meta.main) Deno.serve(app); // or as it was",
    ];
  return `${text} Write there instead:\n\n${indent(lines)}`;
}

/** Returns the lines of a module that imports another and exports its app, if there is one. */
function linesFor(module: string, exports: Exports): string[] | undefined {
  const from = JSON.stringify(pathOf(module) === undefined ? module : `./${basename(module)}`);
  if (["entry", "routes", "assets"].every((name) => name in exports)) {
    // What React Router builds for a server.
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
    const expression = way.wrap(path.replace(/^default/, "found"));
    return [
      ...(way.imports === undefined ? [] : [way.imports]),
      `import ${name === "default" ? local : `{ ${name} }`} from ${from};`,
      `export default ${expression};`,
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
      return { what, wrap: AS_IT_IS };
    }
    if (typeof callback === "function" && typeof listen === "function") {
      return { ...NODE, what: "a Koa app", wrap: (value) => `toFetchHandler(${value}.callback())` };
    }
    if (typeof routing === "function" && typeof listen === "function") {
      const wrap = (value: string) =>
        `${value}.ready().then(() => toFetchHandler(${value}.routing))`;
      return { ...NODE, what: "a Fastify app", wrap: (value) => `await ${wrap(value)}` };
    }
    return undefined;
  }
  if (typeof value !== "function") return undefined;
  if (typeof (value as unknown as Functions).fetch === "function") {
    return { what: "a function with fetch", wrap: AS_IT_IS };
  }
  if (isClass(value)) return { what: "a class", wrap: (value) => `new ${value}()` };
  if (isNodeHandler(value)) {
    return {
      ...NODE,
      what: "a function of Node's request and response",
      wrap: (value) => `toFetchHandler(${value})`,
    };
  }
  const source = Function.prototype.toString.call(value);
  if ((FACTORY.test(value.name) || FACTORY.test(name)) && !REQUEST_PARAMETER.test(source)) {
    return { what: "a function that creates an app", wrap: (value) => `await ${value}()` };
  }
  const isMethod = path.includes(".");
  if (name !== "default" && !NAMES.includes(name)) return undefined;
  return {
    what: "a function",
    wrap: isMethod ? (value) => `(request: Request) => ${value}(request)` : AS_IT_IS,
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

function siblingOf(module: string): string {
  const path = pathOf(module);
  return path === undefined ? "gatehouse.ts" : join(dirname(module), "gatehouse.ts");
}

/** Returns the file `handler.js` beside a module, if there is one. */
function handlerOf(module: string): string | undefined {
  const path = pathOf(module);
  if (path === undefined) return undefined;
  const sibling = join(dirname(path), "handler.js");
  const { state } = Deno.permissions.querySync({ name: "read", path: sibling });
  if (state !== "granted" || sibling === path) return undefined;
  try {
    return Deno.statSync(sibling).isFile ? sibling : undefined;
  } catch {
    return undefined;
  }
}

function indent(lines: string[]): string {
  return lines.map((line) => `  ${line}`).join("\n");
}
