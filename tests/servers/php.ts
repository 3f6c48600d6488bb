import { eventually, type Rig } from "./harness.ts";

/** Finds PHP-FPM, whose file name contains its version. */
function findFPM(): string {
  const folder = "/usr/sbin";
  try {
    for (const { name } of Deno.readDirSync(folder)) {
      if (/^php-fpm[\d.]*$/.test(name)) return `${folder}/${name}`;
    }
  } catch {
    // PHP-FPM is not installed.
  }
  return `${folder}/php-fpm`;
}

/** The path of PHP-FPM. */
export const PHP_FPM: string = findFPM();

/** A pool of PHP-FPM. */
export interface Pool {
  /** An address, or the path of a Unix socket. */
  listen: string;
  /** The number of its processes. */
  children: number;
  /** Other lines of its configuration. */
  lines?: string;
}

/**
 * Returns the configuration of PHP-FPM.
 *
 * @param log The file of its log.
 */
export function fpmConfig(log: string, ...pools: Pool[]): string {
  const user = Deno.uid() === 0 ? "user = www-data\ngroup = www-data\nlisten.mode = 0666\n" : "";
  const texts = pools.map(({ listen, children, lines = "" }, i) =>
    `[pool${i}]
listen = ${listen}
${user}pm = static
pm.max_children = ${children}
${lines}`
  );
  return `[global]\nerror_log = ${log}\ndaemonize = no\n${texts.join("\n")}\n`;
}

/** Starts PHP-FPM, and waits until it is ready. */
export async function startFPM(rig: Rig, ...pools: Pool[]): Promise<void> {
  const config = rig.write("fpm.conf", fpmConfig(rig.logFile("fpm.log"), ...pools));
  rig.spawn("PHP-FPM", PHP_FPM, ["--nodaemonize", "--fpm-config", config]);
  await eventually("PHP-FPM is ready", () => rig.read("fpm.log").includes("ready to handle"));
}
