/** An app of Hono: in code, and by the command lines that people deploy it with. */

import {
  denoServe,
  type Peer,
  PEERS,
  type Setting,
  startServer,
  throughNginx,
  withOptions,
} from "./peers.ts";
import { output } from "./process.ts";

/** Serves Hono in place of the load's app. */
function withHono(peer: Peer): Peer {
  return { ...peer, start: (setting) => peer.start({ ...setting, app: "hono" }) };
}

export const honoHTTP: Peer = withHono(withOptions("http", "serveHTTP()", {}));
export const honoDeno: Peer = withHono(denoServe);

/** Two processes with all that people turn on, and an access log in a file. */
function served(): Peer {
  let importMap = "";
  let log = "";
  return {
    name: "gatehouse serve",
    short: "serve",
    async prepare(directory) {
      const script = `${import.meta.dirname}/../scripts/import_map.ts`;
      importMap = (await output([Deno.execPath(), "run", "-q", "--allow-all", script])).trim();
      log = `${directory}/served.log`;
    },
    start: (setting: Setting) =>
      startServer("fastcgi", setting, (port) => [
        Deno.execPath(),
        "run",
        "--quiet",
        "--no-config",
        "--allow-all",
        `--import-map=${importMap}`,
        `${import.meta.dirname}/../cli.ts`,
        "serve",
        `${PEERS}/hono.ts`,
        ...["--listen", `127.0.0.1:${port}`],
        ...["--workers", "2"],
        "--access-log=json",
        `--access-log-file=${log}`,
        "--trust-forwarded",
        "--base-path=auto",
      ]),
  };
}

/** `deno serve` with two threads, and the same log. */
function parallel(): Peer {
  let log = "";
  return {
    name: "deno serve --parallel",
    short: "deno serve",
    prepare(directory) {
      log = `${directory}/parallel.log`;
      return Promise.resolve();
    },
    start: (setting: Setting) =>
      startServer("http", setting, (port) => {
        const deno = `${Deno.execPath()} serve --quiet --no-config --allow-all --parallel`;
        const command = `exec ${deno} --host 127.0.0.1 --port ${port} ${PEERS}/hono_logged.ts`;
        return ["env", "DENO_JOBS=2", "NO_COLOR=1", "sh", "-c", `${command} >> ${log}`];
      }),
  };
}

export const deployedServe: Peer = throughNginx(
  served(),
  "gatehouse serve (fastcgi_pass)",
  "serve",
);
export const deployedDeno: Peer = throughNginx(
  parallel(),
  "deno serve --parallel (proxy_pass)",
  "deno serve",
);
