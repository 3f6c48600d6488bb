/**
 * What doctor examines of a web server, and the result.
 *
 * @module
 */

import type { Protocol } from "./connection.ts";
import type { FindingOf } from "./finding.ts";
import type { User } from "./user.ts";

/** What is examined of a web server. */
export interface Examined {
  /** Its configuration. */
  file: string;
  /** Its user, if the configuration does not say it. */
  userName: string | undefined;
  /** The script that it does not run; undefined to examine the daemons. */
  script: string | undefined;
  /** How long a daemon may take to respond, in milliseconds. */
  ms: number;
}

/** The result. */
export interface Report {
  /** The user of the web server. */
  user: User;
  /** How many directives pass requests to a daemon. */
  passes: number;
  /** The addresses of the daemons, each once. */
  addresses: { protocol: Protocol; address: string }[];
  findings: FindingOf[];
}
