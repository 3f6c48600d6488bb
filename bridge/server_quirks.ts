import type { Variables } from "../wire/variables.ts";

/** What a web server does that no rule but its own name can explain. */
export interface ServerQuirks {
  /** How SERVER_SOFTWARE begins. */
  readonly software: string;
  /** The version that it was seen in. */
  readonly version: string;
  /** REQUEST_URI is decoded, so that `?` and `%` in it are ambiguous: the path is SCRIPT_NAME and PATH_INFO (A13). */
  readonly decodesTarget?: true;
  /** CONTENT_TYPE is invented if the client sent no type: HTTP_CONTENT_TYPE is absent then (A25). */
  readonly inventsType?: true;
  /** SCRIPT_NAME ends with the query (A13). */
  readonly addsQuery?: true;
  /** PATH_INFO may begin with SCRIPT_NAME (A17). */
  readonly repeatsScript?: true;
}

/** The web servers with quirks. docs/servers.md has a table of them. */
export const SERVERS: readonly ServerQuirks[] = [
  { software: "busybox httpd/", version: "1.35.0", decodesTarget: true },
  { software: "CivetWeb/", version: "1.15", decodesTarget: true },
  { software: "Caddy", version: "2.6.2", inventsType: true, repeatsScript: true },
  { software: "Microsoft-IIS/", version: "documentation", repeatsScript: true },
  { software: "inets/", version: "8.2.2", addsQuery: true },
];

const NONE: ServerQuirks = { software: "", version: "" };
/** The last SERVER_SOFTWARE and its quirks: the next request usually comes from the same server. */
let last = "";
let found = NONE;

/** Returns the quirks of the web server that sent the variables. */
export function serverQuirks(variables: Variables): ServerQuirks {
  const software = variables.byteString("SERVER_SOFTWARE") ?? "";
  if (software !== last) {
    found = SERVERS.find((server) => software.startsWith(server.software)) ?? NONE;
    last = software;
  }
  return found;
}
