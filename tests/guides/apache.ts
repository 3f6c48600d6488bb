/** Apache with the configuration of web hosts. */
import { apacheConfig } from "../servers/apache.ts";
import { eventually, freePort, Program, type Rig } from "../servers/harness.ts";
import type { Machine } from "./guide.ts";

/** A web host. */
export interface Host extends AsyncDisposable {
  /** Its address. */
  readonly url: string;
  readonly program: Program;
  /** Returns the error log. */
  log(): string;
}

/**
 * Starts Apache as hosts configure it: with a cgi-bin, and `.htaccess` files.
 *
 * @param path Its PATH. Default: one on which Deno is not installed.
 */
export async function startApache(
  { home, registry }: Machine,
  path = "/usr/sbin",
): Promise<Host> {
  const port = freePort();
  const directory = Deno.makeTempDirSync();
  Deno.chmodSync(directory, 0o755);
  const log = `${directory}/error.log`;
  const rig = { dir: directory, logFile: () => log } as unknown as Rig;
  Deno.mkdirSync(`${home}/public_html/cgi-bin`, { recursive: true });
  const modules = "mpm_event mime alias env cgid dir rewrite headers".split(" ");
  const config = apacheConfig(rig, modules, {
    // Without a registry on loopback, packages come from jsr.io.
    [port]: `SetEnv JSR_URL ${registry}
DocumentRoot ${home}/public_html
ScriptAlias /cgi-bin/ ${home}/public_html/cgi-bin/
<Directory ${home}/public_html>
  Require all granted
  AllowOverride All
</Directory>`,
  }) + `ScriptSock ${directory}/cgid.sock\nTypesConfig /dev/null\n`;
  Deno.writeTextFileSync(`${directory}/apache.conf`, config);
  const program = new Program("Apache", "apache2", {
    args: ["-f", `${directory}/apache.conf`, "-DFOREGROUND"],
    clearEnv: true,
    env: { PATH: path },
  });
  const url = `http://127.0.0.1:${port}`;
  await eventually("Apache listens", async () => {
    if (program.status) throw new Error(program.output + Deno.readTextFileSync(log));
    return await fetch(url).then((response) => response.body?.cancel()).then(
      () => true,
      () => false,
    );
  });
  return {
    url,
    program,
    log: () => Deno.readTextFileSync(log),
    async [Symbol.asyncDispose]() {
      await program.stop();
      await Deno.remove(directory, { recursive: true });
    },
  };
}
