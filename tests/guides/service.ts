/** Runs a service of systemd without systemd. */
import { assert } from "@std/assert";
import { Program } from "../servers/harness.ts";
import type { Machine } from "./guide.ts";

/** Returns the values of all lines of a unit with a name. */
function settings(unit: string, name: string): string[] {
  return [...unit.matchAll(new RegExp(`^${name}=(.*)$`, "gm"))].map(([, value]) => value);
}

/** Returns the value of the first line of a unit with a name. */
export function setting(unit: string, name: string): string {
  const [found] = settings(unit, name);
  assert(found !== undefined, name);
  return found;
}

/**
 * Starts a service as its socket would: with its environment, in its folder, after what is to run before.
 *
 * @param unit The unit of the service.
 * @param socket The unit of the socket.
 */
export function startService(machine: Machine, unit: string, socket: string): Program {
  const cache = `${machine.home}/cache`;
  Deno.mkdirSync(`${cache}/${setting(unit, "CacheDirectory")}`, { recursive: true });
  const service = unit.replaceAll("%C", cache);
  return new Program("the service", "systemd-socket-activate", {
    args: [
      "--listen",
      setting(socket, "ListenStream"),
      ...[
        "JSR_URL",
        "NO_COLOR",
        "HOME",
        "DENO_TLS_CA_STORE",
        "SSL_CERT_FILE",
        "NPM_CONFIG_REGISTRY",
      ]
        .map((name) => `--setenv=${name}`),
      ...settings(service, "Environment").map((variable) => `--setenv=${variable}`),
      // StandardInput=socket
      "sh",
      "-c",
      [
        `cd ${setting(service, "WorkingDirectory")}`,
        ...settings(service, "ExecStartPre"),
        `exec ${setting(service, "ExecStart")} <&3`,
      ].join(" && "),
    ],
    clearEnv: true,
    env: machine.env(),
  });
}
