import type { Rig } from "./harness.ts";

/** The directory of Apache's modules on Debian. */
export const MODULES = "/usr/lib/apache2/modules";

/** Returns an Apache configuration with one virtual host per port. */
export function apacheConfig(rig: Rig, modules: string[], hosts: Record<number, string>): string {
  const load = ["authz_core", ...modules]
    .map((name) => `LoadModule ${name}_module ${MODULES}/mod_${name}.so`);
  const virtual = Object.entries(hosts).map(([port, text]) =>
    `Listen 127.0.0.1:${port}\n<VirtualHost 127.0.0.1:${port}>\n${text}\n</VirtualHost>`
  );
  return `
ServerName localhost
ServerRoot ${rig.dir}
DefaultRuntimeDir ${rig.dir}
PidFile ${rig.dir}/apache.pid
ErrorLog ${rig.logFile("error.log")}
User www-data
Group www-data
${load.join("\n")}
${virtual.join("\n")}
`;
}
