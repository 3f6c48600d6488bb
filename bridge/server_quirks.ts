import type { Variables } from "../wire/variables.ts";

/** What a web server does that only its name shows, and no other variable. */
export interface ServerQuirks {
  /** How SERVER_SOFTWARE begins. */
  readonly software: string;
  /** The version that it was seen in. */
  readonly version: string;
  /** REQUEST_URI is decoded, so that `?` and `%` in it are ambiguous: the path is SCRIPT_NAME and PATH_INFO (A13). */
  readonly decodesTarget?: true;
  /** Some `HTTP_*` variables are empty though the client sent no such field (A4). */
  readonly inventsEmpty?: true;
  /** CONTENT_TYPE is invented if the client sent no type: HTTP_CONTENT_TYPE is absent then (A25). */
  readonly inventsType?: true;
  /** The type is in HTTP_CONTENT_TYPE only (A25). */
  readonly hidesType?: true;
  /** SCRIPT_NAME lacks the beginning of the path, at which the server has a context (A17). */
  readonly dropsContext?: true;
  /** SCRIPT_NAME ends with the query (A13). */
  readonly addsQuery?: true;
  /** A Location after Status makes the response a 302 (B1). */
  readonly needsLocationFirst?: true;
  /** A script's stderr goes to the client, before its response and in the middle (B19). */
  readonly showsStderr?: true;
  /**
   * A body without CONTENT_LENGTH does not arrive as the client sent it (A22). "announced": HTTP_TRANSFER_ENCODING or
   * HTTP_CONTENT_LENGTH shows that the client sent one. "hidden": no variable may show it.
   */
  readonly needsLength?: "announced" | "hidden";
  /** PATH_INFO may begin with SCRIPT_NAME (A17). */
  readonly repeatsScript?: true;
  /** An idle FastCGI connection on which bytes arrive is closed (C31). */
  readonly closesOnBytes?: true;
  /** A connection is not used again after a response that ends with FCGI_OVERLOADED (C31). */
  readonly leavesOverloaded?: true;
  /** Where connections are not kept, a close passes for the end of the response; an invalid record does not (B17). */
  readonly hidesClose?: true;
  /** FCGI_STDERR is dropped by default, and not handled well where it is not (C17). */
  readonly lacksStderr?: true;
  /** FCGI_END_REQUEST is not expected before the end of the input (C13). */
  readonly needsInputEnd?: true;
  /** FCGI_ABORT_REQUEST may follow a request at once though its response is expected (C21). */
  readonly abortsEarly?: true;
}

/** The web servers with quirks. docs/servers.md has a table of them. */
export const SERVERS: readonly ServerQuirks[] = [
  {
    software: "busybox httpd/",
    version: "1.35.0",
    decodesTarget: true,
    needsLength: "announced",
  },
  { software: "Caddy", version: "2.6.2", inventsType: true, repeatsScript: true },
  { software: "CivetWeb/", version: "1.15", decodesTarget: true },
  { software: "fossil version", version: "2.21", inventsEmpty: true, needsLength: "hidden" },
  {
    software: "HAProxy",
    version: "2.6.12",
    leavesOverloaded: true,
    lacksStderr: true,
    needsInputEnd: true,
    abortsEarly: true,
    needsLocationFirst: true,
  },
  {
    software: "inets/",
    version: "8.2.2",
    addsQuery: true,
    hidesType: true,
    needsLocationFirst: true,
  },
  { software: "merecat/", version: "2.32-rc4", showsStderr: true },
  { software: "Microsoft-IIS/", version: "documentation", repeatsScript: true },
  { software: "mini_httpd/", version: "1.30", needsLength: "hidden", showsStderr: true },
  { software: "nginx/", version: "1.22.1", closesOnBytes: true, hidesClose: true },
  {
    software: "SimpleHTTP/",
    version: "0.6 Python/3.11",
    inventsEmpty: true,
    needsLength: "hidden",
  },
  { software: "sthttpd/", version: "source", showsStderr: true },
  { software: "thttpd/", version: "source", showsStderr: true },
  { software: "TOMCAT", version: "10.1.60", dropsContext: true, needsLength: "hidden" },
  { software: "uWSGI/", version: "2.0.21", needsLength: "announced" },
  { software: "Yaws/", version: "2.1.1", needsLength: "hidden" },
];

/** The quirks of all other servers: none. */
export const NO_QUIRKS: ServerQuirks = { software: "", version: "" };
/** The last SERVER_SOFTWARE and its quirks: the next request usually comes from the same server. */
let last = "";
let found = NO_QUIRKS;

/** Returns the quirks of the web server that sent the variables. */
export function serverQuirks(variables: Variables): ServerQuirks {
  return quirksOf(variables.byteString("SERVER_SOFTWARE") ?? "");
}

/** Returns the quirks of the web server of a SERVER_SOFTWARE. */
export function quirksOf(software: string): ServerQuirks {
  if (software !== last) {
    found = SERVERS.find((server) => software.startsWith(server.software)) ?? NO_QUIRKS;
    last = software;
  }
  return found;
}
