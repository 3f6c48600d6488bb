/** The site that `deno task operate` operates: nginx as `config` prints it, and workers behind it. */
import { Arguments } from "../../cli/arguments.ts";
import { createConfiguration, usage } from "../../cli/config.ts";
import { stockParameters } from "../../tests/servers/nginx.ts";
import { importMapFlags } from "../../tests/testing/command_line.ts";
import { ROOT } from "../../tests/testing/daemon.ts";
import { deadline } from "../../tests/testing/deadline.ts";
import { childrenOf, Operated } from "./processes.ts";

/** How many workers there are. */
export const WORKERS = 2;
/** The memory beyond which a worker is replaced, in MiB. */
export const MAX_MEMORY = 110;
/** How long a worker may loop, in seconds. */
export const WORKER_TIMEOUT = 20;
/** After how many requests a worker is replaced. */
const MAX_REQUESTS = 1000;
/** How long the parts of the site may take to start and to end, in milliseconds. */
const PATIENCE = 60_000;

/** The logs: those of nginx, and the access log of the app. */
const LOGS = ["access", "error", "app"] as const;

/** nginx and workers in a directory of their own. */
export class Site {
  readonly directory: string = Deno.makeTempDirSync({ prefix: "gatehouse-operate-" });
  readonly port: number = freePort();
  readonly app: Operated;
  nginx: Operated;
  /** How often the logs were rotated. */
  rotations = 0;

  constructor() {
    // nginx's workers are perhaps another user's.
    Deno.chmodSync(this.directory, 0o755);
    const socket = `unix:${this.directory}/app.sock`;
    this.#writeConfiguration(socket);
    const { directory } = this;
    this.app = new Operated(Deno.execPath(), [
      ...["run", "--no-prompt", ...importMapFlags(), "--allow-env", "--allow-run"],
      ...[`--allow-read=${ROOT},${directory}`, `--allow-write=${directory}`],
      `--allow-net=${socket},${socket}.new`,
      ...[`${ROOT}cli.ts`, "serve", `${ROOT}scripts/operate/app.ts`, "--listen", socket],
      ...["--mode", "666", "--workers", String(WORKERS)],
      ...["--worker-timeout", String(WORKER_TIMEOUT), "--max-memory", `${MAX_MEMORY}m`],
      ...["--max-requests", String(MAX_REQUESTS)],
      ...["--access-log=json", "--access-log-file", `${directory}/app.log`],
    ], { OPERATE_DIRECTORY: directory });
    this.nginx = this.#startNginx();
  }

  #writeConfiguration(socket: string): void {
    const listen = `127.0.0.1:${this.port}`;
    const args = ["nginx", "--listen", listen, "--backend", socket, "--workers", String(WORKERS)];
    const { directory } = this;
    Deno.writeTextFileSync(`${directory}/fastcgi_params`, stockParameters("fastcgi_params"));
    Deno.writeTextFileSync(
      `${directory}/nginx.conf`,
      `
${Deno.uid() === 0 ? "user root;" : ""}
daemon off;
worker_processes 2;
pid ${directory}/nginx.pid;
error_log ${directory}/error.log warn;
events {}
http {
# With the time that each try took.
log_format tries '$request $status tries=$upstream_status times=$upstream_response_time';
access_log ${directory}/access.log tries;
client_body_temp_path ${directory}/nginx-body;
fastcgi_temp_path ${directory}/nginx-fastcgi;
${
        ["scgi", "proxy", "uwsgi"].map((name) => `${name}_temp_path ${directory}/nginx-${name};`)
          .join("\n")
      }
${createConfiguration(Arguments.parse(usage, args))}
}
`,
    );
  }

  #startNginx(): Operated {
    return new Operated("nginx", [
      ...["-e", `${this.directory}/error.log`, "-c", `${this.directory}/nginx.conf`],
    ]);
  }

  /** Resolves when nginx and a worker serve. */
  async ready(): Promise<void> {
    const tryOnce = async () => {
      for (;;) {
        for (const { status, lines } of [this.app, this.nginx]) {
          if (status === undefined) continue;
          throw new Error(`It ended with ${status.code}: ${lines.map(({ text }) => text)}`);
        }
        const response = await fetch(`http://127.0.0.1:${this.port}/hello`).catch(() => undefined);
        await response?.body?.cancel();
        if (response?.ok) return;
        await new Promise((resolve) => setTimeout(resolve, 100));
      }
    };
    await deadline(tryOnce(), "the site", PATIENCE);
  }

  /** The process of the supervisor. */
  get supervisor(): number | undefined {
    return childrenOf(this.app.child.pid)[0];
  }

  /** The processes of the workers, also of those that start or end. */
  get workers(): number[] {
    return this.supervisor === undefined ? [] : childrenOf(this.supervisor);
  }

  /** The process of the worker that looped last. */
  get looping(): number | undefined {
    try {
      return Number(Deno.readTextFileSync(`${this.directory}/looping`));
    } catch {
      return undefined;
    }
  }

  /** Ends nginx as a service manager does, and starts it again. */
  async restartNginx(): Promise<void> {
    await this.nginx.stop("SIGQUIT", PATIENCE);
    this.nginx = this.#startNginx();
  }

  /** Renames the logs and has new ones opened, as logrotate does. */
  rotate(): void {
    this.rotations++;
    for (const name of LOGS) {
      Deno.renameSync(
        `${this.directory}/${name}.log`,
        `${this.directory}/${name}.log.${this.rotations}`,
      );
    }
    this.nginx.child.kill("SIGUSR1");
    this.app.child.kill("SIGHUP");
  }

  /** Returns the lines of a log, from all its files. */
  readLog(name: typeof LOGS[number]): string[] {
    const files = [...Deno.readDirSync(this.directory)].map((entry) => entry.name)
      .filter((file) => file.startsWith(`${name}.log`));
    return files.flatMap((file) =>
      Deno.readTextFileSync(`${this.directory}/${file}`).split("\n").filter((line) => line !== "")
    );
  }

  /** Returns the processes of the workers that have begun each request, by its number. */
  begun(): Map<number, number[]> {
    const begun = new Map<number, number[]>();
    for (const line of Deno.readTextFileSync(`${this.directory}/begun.log`).split("\n")) {
      const [number, pid] = line.split(" ").map(Number);
      if (pid === undefined) continue;
      const pids = begun.get(number);
      if (pids === undefined) begun.set(number, [pid]);
      else pids.push(pid);
    }
    return begun;
  }

  /** Stops all. @returns The exit code of the workers' supervisor. */
  async stop(): Promise<number> {
    await this.nginx.stop("SIGQUIT", PATIENCE);
    await this.app.stop("SIGTERM", PATIENCE);
    return this.app.status!.code;
  }
}

function freePort(): number {
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  return listener.addr.port;
}
