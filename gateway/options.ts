/**
 * The type of gateways, and their options.
 *
 * @module
 */

import { MIN_BODY_RATE } from "../io/body_rate.ts";
import type { Addr } from "../io/addr.ts";
import type { ServeInfo } from "../io/runtime.ts";

/** The `info` of a handler of `Deno.serve`, with the client's address. */
export type GatewayInfo = ServeInfo<Addr>;

/**
 * A handler for `Deno.serve`. Disposing of it closes its connections and kills its processes. Requests in progress then
 * get 502, later ones 503.
 */
export interface Gateway extends Disposable {
  /** Responds to a request. Without `info` the application does not get the client's address. */
  (request: Request, info?: GatewayInfo): Promise<Response>;
}

/** The options of bodies that are buffered until all of them have arrived. */
export type BufferOptions = Pick<GatewayOptions, "maxBufferedBody" | "maxBufferedTotal">;

/**
 * The files that an application may send by naming them: the option `sendFile` of the gateways.
 *
 * @example
 * ```ts
 * import { cgiGateway } from "@gatehouse/cgi/gateway";
 * import { assertEquals } from "@std/assert";
 *
 * const folder = await Deno.makeTempDir();
 * await Deno.mkdir(`${folder}/private`);
 * await Deno.writeTextFile(`${folder}/private/report.txt`, "the report");
 * const script = `${folder}/report`;
 * const text = `#!/bin/sh
 * echo "Content-Type: text/plain"; echo "X-Accel-Redirect: /files/report.txt"; echo`;
 * await Deno.writeTextFile(script, text, { mode: 0o755 });
 *
 * using gateway = cgiGateway({
 *   script,
 *   sendFile: {
 *     root: `${folder}/private`,
 *     location: "/files",
 *     // serveFile of jsr:@std/http/file-server handles Range and If-None-Match, too.
 *     serve: async (_request, path) => new Response((await Deno.open(path)).readable),
 *   },
 * });
 * const response = await gateway(new Request("http://localhost/"));
 * assertEquals(await response.text(), "the report");
 * ```
 */
export interface SendFileOptions {
  /**
   * The folder of the files. No other file is sent: not by `..`, by an encoded slash, or by a link that leads out.
   */
  root: string;
  /**
   * The path by which `X-Accel-Redirect` names the folder, like a `location` of nginx that has an `alias`. `X-Sendfile`
   * has the path of the file itself.
   *
   * @default "/"
   */
  location?: `/${string}`;
  /**
   * Sends a file: `serveFile` of `@std/http/file-server`, for instance. The request has the client's headers, such as
   * Range and If-None-Match; its method is GET or HEAD.
   *
   * @param path The file's path, without links.
   */
  serve: (request: Request, path: string) => Response | Promise<Response>;
}

/** Options that all gateways share. */
export interface GatewayOptions {
  /**
   * The path that the gateway is mounted at. SCRIPT_NAME begins with it. Other paths get 404, also if they differ in
   * their percent-encoding only. A slash at its end does not count.
   *
   * @default ""
   */
  basePath?: "" | `/${string}`;
  /**
   * The former name of `basePath`.
   *
   * @deprecated Use `basePath`. This name will be removed in 0.4.0.
   * @default undefined
   */
  prefix?: "" | `/${string}`;
  /**
   * How long the application may neither read nor write a byte, in milliseconds, from 0; Infinity for no limit. After
   * it the client gets 504, or a truncated response if its headers have been sent.
   *
   * @default 60_000
   */
  timeout?: number;
  /**
   * How long the gateway waits for the client to send or read a byte, in milliseconds, from 0; Infinity for no limit.
   * After it the client gets 408, or a truncated response if its headers have been sent.
   *
   * @default 60_000
   */
  clientTimeout?: number;
  /**
   * How many bytes per second of a body must arrive from the client, from 0, on average over a minute in which the
   * gateway waits for them. If there are fewer, the client gets 408. 0 means no minimum, for bodies that are sent over
   * a long time.
   *
   * A body of at most 64 KiB is received before the application is called, so that a slow client occupies none of its
   * processes or connections; a longer one with `bufferBody`.
   *
   * @default 500
   */
  minBodyRate?: number;
  /**
   * The maximum size of a response's header block, in bytes, from 0; Infinity for no limit. Beyond it the client gets
   * 502.
   *
   * @default 65_536
   */
  maxHeaderBytes?: number;
  /**
   * The maximum size of a request's body, in bytes, from 0. Beyond it the client gets 413. Bodies stream, or wait in a
   * file, so that a large one needs no memory.
   *
   * @default Infinity
   */
  maxBodyBytes?: number;
  /**
   * Whether the whole body of a request is received before the application is called, so that clients that upload
   * slowly occupy none of its processes. A body of more than 64 KiB waits in a file of the temporary folder, which has
   * mode 0600 and no name. This needs `--allow-read` and `--allow-write` of the folder: `/tmp`, or TMPDIR if
   * `--allow-env` includes it. Without these permissions the body waits in memory, up to `maxBufferedBody`.
   *
   * If false, a longer body of known length streams: the application can refuse it early, or process it as it arrives.
   *
   * @default true where each request takes a process: for CGI, and for FastCGI with `root` unless `needsLength` is false
   */
  bufferBody?: boolean;
  /**
   * The maximum size of a body that waits in memory since no file can be written, in bytes, from 0. Beyond it the
   * client gets 413. Once all bodies in memory together have ten times as many bytes, clients get 503.
   *
   * @default 10_485_760
   */
  maxBufferedBody?: number;
  /**
   * The maximum size of all bodies that wait in files, in bytes, from 0: bytes that have arrived, whatever length was
   * declared. If a body has more by itself, its client gets 413, else 503.
   *
   * @default 1_073_741_824
   */
  maxBufferedTotal?: number;
  /**
   * The host names that are served, in addition to those of this machine (`localhost`, `127.x.x.x`, `[::1]`). Others
   * get 421. On a development server set it, at least to `[]`: without it any website open in the developer's browser
   * can reach the server by a host name that resolves to 127.0.0.1 (DNS rebinding).
   *
   * @default undefined, any host
   */
  allowedHosts?: string[];
  /**
   * Whether the application gets the Authorization header. Other users of the machine may see a script's environment.
   *
   * @default true
   */
  passAuthorization?: boolean;
  /**
   * Additional variables, or a function that returns them for a request, for instance REMOTE_USER of an authenticated
   * user. They replace variables of the same name.
   *
   * @default undefined, none
   */
  variables?:
    | Record<string, string>
    | ((request: Request, info?: GatewayInfo) => Record<string, string>);
  /**
   * Whether the values in the URL's query are exported as `REDACTED` in spans (OpenTelemetry).
   *
   * @default false
   */
  redactQuery?: boolean;
  /**
   * Handles the request that a local redirect leads to (RFC 3875 section 6.2.2). After 5 in a row the client gets 502.
   *
   * @default the gateway itself
   */
  redirect?: (
    request: Request,
    info?: GatewayInfo,
  ) => Response | Promise<Response>;
  /**
   * The files that the application may send by `X-Accel-Redirect` or `X-Sendfile` in its response. The client gets the
   * file with Cache-Control, Content-Disposition, Content-Type, Expires and Set-Cookie of the application; the status and
   * other headers are those of the file. A file that does not exist or may not be sent is a 404, and is logged.
   *
   * Needs `--allow-read` of the folder.
   *
   * @default undefined, the headers pass unchanged to a web server in front
   */
  sendFile?: SendFileOptions;
  /**
   * Writes errors, and the lines that the application writes to stderr.
   *
   * @default console.error
   */
  log?: (message: string) => void;
}

/** Options of {@linkcode fastCGIGateway}. */
export interface FastCGIGatewayOptions extends GatewayOptions {
  /**
   * The folder of the application's scripts, as the application sees it. Each path must then name a script in it, which
   * becomes SCRIPT_FILENAME. PHP needs it.
   *
   * It changes the default of `needsLength` to true, as PHP needs it.
   *
   * @default undefined, the application handles all paths
   */
  root?: string;
  /**
   * Endings of scripts' names: the path up to one is SCRIPT_NAME, the rest is PATH_INFO.
   *
   * @default [".php"]
   */
  split?: string[];
  /**
   * The name of a folder's index script.
   *
   * @default "index.php"
   */
  index?: string;
  /**
   * The script for paths that name none, such as `"/index.php"`.
   *
   * @default undefined, they get 404
   */
  fallback?: `/${string}`;
  /**
   * Whether doubled slashes before and in a script's name are merged, as for `cgiGateway()`.
   *
   * @default false
   */
  mergeSlashes?: boolean;
  /**
   * Checks that the script exists before calling the application. Turn it off if the application has its own file
   * system, such as in a container: PHP must then itself refuse to run uploaded files (`cgi.fix_pathinfo=0`,
   * `security.limit_extensions`).
   *
   * @default true
   */
  checkFiles?: boolean;
  /**
   * Whether a body without a length is received whole to find its length, as with `bufferBody`: PHP and others ignore a
   * body without CONTENT_LENGTH. If false, each body streams, so that the application can respond to the first bytes
   * before the next ones arrive, unless `bufferBody` is set.
   *
   * @default true with `root`; without, up to 64 KiB are buffered, and a longer body streams
   */
  needsLength?: boolean;
  /**
   * The maximum number of connections that this gateway uses, with the idle ones to the same address, from 0; Infinity
   * for no limit. Beyond it clients get 503.
   *
   * @default 256
   */
  maxConnections?: number;
  /**
   * The maximum number of idle connections that are kept for the next request, from 0: then each has a new connection.
   * All gateways of a process to one address share them.
   *
   * @default Infinity: as many as were in use at once during `idleTimeout`
   */
  maxIdleConnections?: number;
  /**
   * How long an idle connection is kept, in milliseconds, from 0. Many applications (PHP-FPM, programs of libfcgi,
   * CGI::Fast) serve one connection per process, so that an idle one keeps their other clients waiting. Raise it if the
   * application serves many connections at once and connecting is slow.
   *
   * @default 20
   */
  idleTimeout?: number;
  /**
   * How long a connection is used for further requests, in milliseconds, from 0. Other clients of an application that
   * serves one connection per process may have to wait so long while all of its processes are busy.
   *
   * @default 100, and up to 1000 while responses over new connections show that nobody waits; if `idleTimeout` is set,
   * 100 or `idleTimeout`, whichever is longer
   */
  maxConnectionAge?: number;
  /**
   * How long connecting may take, in milliseconds, from 0; Infinity for no limit. After it the client gets 504.
   *
   * @default 10_000
   */
  connectTimeout?: number;
}

/** Options of {@linkcode scgiGateway}. A body without a length is received whole, as SCGI needs the length. */
export interface SCGIGatewayOptions extends GatewayOptions {
  /**
   * The maximum number of open connections, from 0; Infinity for no limit. Beyond it clients get 503.
   *
   * @default 256
   */
  maxConnections?: number;
  /**
   * How long connecting may take, in milliseconds, from 0; Infinity for no limit. After it the client gets 504.
   *
   * @default 10_000
   */
  connectTimeout?: number;
}

/**
 * Options of {@linkcode cgiGateway}: `root` or `script`. A body without a length is received whole, as CGI needs the
 * length.
 */
export interface CGIGatewayOptions extends GatewayOptions {
  /**
   * The folder of the scripts. The path up to the first segment that names a file is the script's.
   *
   * @default undefined, `script` must be set
   */
  root?: string;
  /**
   * The one script that handles all paths.
   *
   * @default undefined, `root` must be set
   */
  script?: string;
  /**
   * Names of a folder's index script, in order of preference.
   *
   * @default []
   */
  index?: string[];
  /**
   * Endings of the names of files that may be run.
   *
   * @default undefined, any file that is executable
   */
  extensions?: string[];
  /**
   * Whether doubled slashes before and in a script's name are merged, as web servers do before they check a request:
   * `//cgi-bin//app.pl` runs `/cgi-bin/app.pl`. If false, GET and HEAD are redirected to the merged path, and other
   * methods get 404. Set it only if what checks requests before the gateway merges slashes, too.
   *
   * @default false
   */
  mergeSlashes?: boolean;
  /**
   * Programs that run scripts, by the ending of the script's name, such as `{ ".php": ["php-cgi"] }`. Such scripts
   * need no executable bit.
   *
   * @default {}
   */
  interpreters?: Record<string, string[]>;
  /**
   * Permissions of Deno scripts by folder of the root, such as
   * `{ "/": ["--allow-env"], "/reports": ["--allow-env", "--allow-read=/srv/data"] }`. The nearest folder counts; a
   * slash at its end does not. Scripts that end in `.ts`, `.js`, `.mts` or `.mjs` run with exactly these permissions,
   * whatever their first line says, and need no executable bit.
   *
   * @default {}
   */
  permissions?: Record<`/${string}`, string[]>;
  /**
   * The environment of scripts, in addition to the variables of the request.
   *
   * @default PATH only
   */
  env?: Record<string, string>;
  /**
   * The maximum number of running processes, from 0; Infinity for no limit. Beyond it clients get 503.
   *
   * @default 32
   */
  maxProcesses?: number;
}

/** The defaults of the options above. */
export const DEFAULTS = {
  basePath: "",
  timeout: 60_000,
  clientTimeout: 60_000,
  minBodyRate: MIN_BODY_RATE,
  maxHeaderBytes: 65_536,
  maxBodyBytes: Infinity,
  passAuthorization: true,
  split: [".php"],
  index: "index.php",
  checkFiles: true,
  mergeSlashes: false,
  maxConnections: 256,
  idleTimeout: 20,
  connectTimeout: 10_000,
  maxBufferedBody: 10_485_760,
  maxBufferedTotal: 1_073_741_824,
  maxProcesses: 32,
} as const;
