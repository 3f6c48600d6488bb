/** Numbers that would turn a limit off, NaN and those below zero, are rejected (rule F8). */
import { assertRejects, assertStringIncludes, assertThrows } from "@std/assert";
import { serveCGI } from "../../cgi.ts";
import { listen, serveFastCGI } from "../../fastcgi.ts";
import * as gateway from "../../gateway.ts";
import { serveHTTP } from "../../http.ts";
import { prefork } from "../../prefork.ts";
import { serveSCGI } from "../../scgi.ts";

const app = () => new Response();
const url = "http://localhost/";
const address = "127.0.0.1:1";
const BAD = [NaN, -1, -Infinity, -0.5];

/** Options with a number by what takes them, in groups that differ in how they are read. */
const USERS: [
  name: string,
  use: (options: Record<string, number>) => unknown,
  options: string[],
][] = [
  ["serveCGI()", (options) => serveCGI(app, options), ["maxBodyBytes", "exitTimeout"]],
  [
    "serveFastCGI()",
    (options) => withListener((listener) => serveFastCGI(app, listener, options)),
    [
      "maxVariableBytes",
      "maxVariables",
      "maxBodyBytes",
      "maxBufferedBody",
      "maxRequests",
      "variablesTimeout",
      "bodyTimeout",
      "minBodyRate",
      "writeTimeout",
      "maxConnections",
      "shutdownTimeout",
      "maxRequestsPerConnection",
      "idleTimeout",
    ],
  ],
  [
    "serveSCGI()",
    (options) => withListener((listener) => serveSCGI(app, listener, options)),
    ["maxVariableBytes", "maxRequests", "maxConnections", "shutdownTimeout"],
  ],
  ["serveHTTP()", (options) => serveHTTP(app, { ...options, port: 0 }), ["shutdownTimeout"]],
  ["fastCGIGateway()", (options) => gateway.fastCGIGateway(address, options), [
    "timeout",
    "clientTimeout",
    "connectTimeout",
    "minBodyRate",
    "maxHeaderBytes",
    "maxBodyBytes",
    "maxBufferedBody",
    "maxBufferedTotal",
    "maxConnections",
    "maxIdleConnections",
    "idleTimeout",
    "maxConnectionAge",
  ]],
  ["scgiGateway()", (options) => gateway.scgiGateway(address, options), ["maxConnections"]],
  ["cgiGateway()", (options) => gateway.cgiGateway({ script: "/x", ...options }), ["maxProcesses"]],
  ["fetchFastCGI()", (options) => gateway.fetchFastCGI(url, address, options), ["timeout"]],
  ["fetchSCGI()", (options) => gateway.fetchSCGI(url, address, options), ["timeout"]],
  ["fetchCGI()", (options) => gateway.fetchCGI(url, { script: "/x", ...options }), ["timeout"]],
  ["listen()", (options) => listen("unix:/nonexistent/a", options), ["mode", "group"]],
  [
    "prefork()",
    (options) => prefork({ workers: 1, command: [], ...options }),
    ["shutdownTimeout", "workers"],
  ],
];

function withListener<T>(use: (listener: Deno.Listener) => T): T {
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  return use(listener);
}

for (const [name, use, options] of USERS) {
  for (const option of options) {
    Deno.test(`${name} rejects ${option} that is negative or NaN (rule F8)`, async () => {
      for (const value of BAD) {
        let result: unknown;
        const error = assertThrowsSoon(() => result = use({ [option]: value })) ??
          await assertRejects(() => result as Promise<unknown>, RangeError);
        assertStringIncludes(error.message, `current value is ${value}`);
      }
    });
  }
}

/** Returns the RangeError that a function throws, or undefined if it returns a promise. */
function assertThrowsSoon(use: () => unknown): RangeError | undefined {
  try {
    if (use() instanceof Promise) return undefined;
  } catch (error) {
    return assertThrows(() => {
      throw error;
    }, RangeError);
  }
  throw new Error("nothing was thrown");
}
