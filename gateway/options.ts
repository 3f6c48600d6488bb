/**
 * What a gateway is, and its options.
 *
 * @module
 */

/** What is told of a request's client. */
export type GatewayInfo = Deno.ServeHandlerInfo<Deno.Addr>;

/** A handler for `Deno.serve`. Disposing of it ends what it holds open: connections, processes. */
export interface Gateway extends Disposable {
  /** Answers a request. Without `info` the client's address is not told. */
  (request: Request, info?: GatewayInfo): Promise<Response>;
}

/** Options that all gateways share. */
export interface GatewayOptions {
  /**
   * The part of the URL's path that the gateway is mounted at: it becomes the beginning of SCRIPT_NAME. Other paths are
   * answered with 404.
   *
   * @default ""
   */
  prefix?: "" | `/${string}`;
  /**
   * How long the application may neither take nor send a byte, in milliseconds; past it, 504, or if the answer has begun
   * it breaks off.
   *
   * @default 60_000
   */
  timeout?: number;
  /**
   * How long the client may neither send nor take a byte that the application waits for, in milliseconds; past it, 408,
   * or the answer breaks off.
   *
   * @default 60_000
   */
  clientTimeout?: number;
  /**
   * How many bytes the header block of an answer may have; past it, 502.
   *
   * @default 65_536
   */
  maxHeaderBytes?: number;
  /**
   * How many bytes a request's body may have; past it, 413. Bodies stream.
   *
   * @default Infinity
   */
  maxBodyBytes?: number;
  /**
   * Host names that are answered beside those of this machine itself (`localhost`, `127.0.0.1`, `[::1]`); others get
   * 421. Set it, be it to `[]`, on a server for development: without it a page in the developer's browser can reach the
   * server by a name of its own that it has resolve to 127.0.0.1 (DNS rebinding).
   *
   * @default undefined, any host
   */
  allowedHosts?: string[];
  /**
   * Hands the Authorization header to the application. A script's environment may be seen by others on the machine.
   *
   * @default true
   */
  passAuthorization?: boolean;
  /**
   * More variables, or a function that tells them for a request, such as REMOTE_USER of who has signed in. They replace
   * those of the same name.
   */
  variables?:
    | Record<string, string>
    | ((request: Request, info?: GatewayInfo) => Record<string, string>);
  /**
   * Answers where an application sends the client to another path of the same server without the client's doing (a
   * local redirect, RFC 3875 section 6.2.2). At most 5 follow one another; past it, 502.
   *
   * @default the gateway itself
   */
  redirect?: (
    request: Request,
    info?: GatewayInfo,
  ) => Response | Promise<Response>;
  /** Where errors, and what the application writes to stderr, go. @default console.error */
  log?: (message: string) => void;
}

/** Options of {@linkcode fastCGIGateway}. */
export interface FastCGIGatewayOptions extends GatewayOptions {
  /**
   * The folder of the application's scripts, as the application sees it; SCRIPT_FILENAME is in it. With it, paths must
   * name a script. What PHP needs.
   *
   * @default undefined, the application answers all paths
   */
  root?: string;
  /** The ends of scripts' names: the path up to there is SCRIPT_NAME, the rest PATH_INFO. @default [".php"] */
  split?: string[];
  /** The script of a folder. @default "index.php" */
  index?: string;
  /** The script for paths that name none, as `"/index.php"`. @default undefined, they are answered with 404 */
  fallback?: `/${string}`;
  /**
   * Sees first that the script exists. Not where the application has its own file system, such as a container: PHP
   * must then itself keep uploaded files from being run (`cgi.fix_pathinfo=0`, `security.limit_extensions`).
   *
   * @default true
   */
  checkFiles?: boolean;
  /**
   * Holds a body without a length until its length is known: PHP does not see one without.
   *
   * @default true with `root`, else false: the body is sent as it comes
   */
  needsLength?: boolean;
  /** How many bytes are then held; past it, 413. @default 10_485_760 */
  maxBufferedBody?: number;
  /** How many connections may be open; past it, 503. @default 256 */
  maxConnections?: number;
  /**
   * How many idle connections are kept for the next request; 0 for a connection each. PHP-FPM gives each connection a
   * process, which others then wait for.
   *
   * @default 0 with `root`, else 4
   */
  maxIdleConnections?: number;
  /**
   * How long an idle connection is kept, in milliseconds.
   *
   * @default 10_000
   */
  idleTimeout?: number;
  /** How long connecting may take, in milliseconds; past it, 504. @default 10_000 */
  connectTimeout?: number;
}

/** Options of {@linkcode scgiGateway}. */
export interface SCGIGatewayOptions extends GatewayOptions {
  /** How many connections may be open; past it, 503. @default 256 */
  maxConnections?: number;
  /** How long connecting may take, in milliseconds; past it, 504. @default 10_000 */
  connectTimeout?: number;
  /**
   * How many bytes of a body without a length are held to find its length, which SCGI needs; past it, 413.
   *
   * @default 10_485_760
   */
  maxBufferedBody?: number;
}

/** Options of {@linkcode cgiGateway}: `root` or `script`. */
export interface CGIGatewayOptions extends GatewayOptions {
  /** The folder of the scripts. The longest part of the path that names a file is the script. */
  root?: string;
  /** The one script that answers all paths. */
  script?: string;
  /** Names of the script that answers for a folder. @default [] */
  index?: string[];
  /** The ends of names of files that may be run. @default undefined, any that is executable */
  extensions?: string[];
  /**
   * Programs that run scripts, by the end of the script's name, as `{ ".php": ["php-cgi"] }`. Such scripts need no
   * executable bit.
   */
  interpreters?: Record<string, string[]>;
  /**
   * Permissions of Deno scripts by folder of the root, as `{ "/": ["--allow-env"], "/reports": ["--allow-env",
   * "--allow-read=/srv/data"] }`. The nearest folder counts. Scripts that end in `.ts`, `.js`, `.mts` or `.mjs` are then
   * run with exactly these, whatever their first line says, and need no executable bit.
   */
  permissions?: Record<`/${string}`, string[]>;
  /** What scripts find in their environment beside the request. @default PATH alone */
  env?: Record<string, string>;
  /** How many processes may run; past it, 503. @default 32 */
  maxProcesses?: number;
  /**
   * How many bytes of a body without a length are held to find its length, which CGI needs; past it, 413.
   *
   * @default 10_485_760
   */
  maxBufferedBody?: number;
}

/** The defaults of the options above. */
export const DEFAULTS = {
  prefix: "",
  timeout: 60_000,
  clientTimeout: 60_000,
  maxHeaderBytes: 65_536,
  maxBodyBytes: Infinity,
  passAuthorization: true,
  split: [".php"],
  index: "index.php",
  checkFiles: true,
  maxConnections: 256,
  maxIdleConnections: 4,
  idleTimeout: 10_000,
  connectTimeout: 10_000,
  maxBufferedBody: 10_485_760,
  maxProcesses: 32,
} as const;
