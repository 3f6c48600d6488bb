/** docs/several-machines.md, run word for word on three machines in network namespaces. systemd-socket-activate replaces systemd. */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { Client } from "../servers/client.ts";
import { eventually, Program, type Rig, within } from "../servers/harness.ts";
import { Load } from "../servers/load.ts";
import { nginxCommand } from "../servers/nginx.ts";
import { ROOT } from "../testing/daemon.ts";
import { Network, testInNetwork } from "../testing/network.ts";
import { blocksOf, fileOf, Machine } from "./guide.ts";

const NEEDS = {
  "redis-server": "redis-server",
  "systemd-socket-activate": "systemd",
  "systemd-analyze": "systemd",
  pgrep: "procps",
};
const BLOCKS = blocksOf("several-machines.md");
const INSTALL = blocksOf("daemon.md").find(({ text }) => text.includes("deno install"))!.text;
const HOSTS = [2, 3];
/** How many clients there are, each with a session. */
const VISITORS = 6;

/** Returns the block of the page with an info, or undefined. */
const block = (info: string) => BLOCKS.find((block) => block.info === info)?.text;

/** A user with a session who alternates GET and POST. */
class Visitor {
  #host: string;
  #cookie = "";
  /** How many visits were counted, by the responses that the client got. */
  #visits = 0;
  /** How many more may have been counted, by POSTs that failed. */
  #unknown = 0;

  constructor(host: string) {
    this.#host = host;
  }

  /** Sends a request. @returns Its status, or "lost". */
  async send(method: "GET" | "POST"): Promise<number | "lost"> {
    try {
      using client = await Client.connect(this.#host, "example.org");
      const fields = [["Cookie", this.#cookie], ["Content-Length", "0"], ["Connection", "close"]];
      await client.sendHead(method, "/", fields.filter(([, value]) => value !== ""));
      const { status, text, head } = await client.readResponse();
      if (status !== 200) {
        this.#failed(method);
        return status;
      }
      this.#cookie = /session=[^;]+/.exec(head.get("set-cookie")!)![0];
      this.#counted(method, Number(/^(?:Visits|Count): (\d+)/.exec(text)![1]));
      return status;
    } catch (error) {
      if (!/connection|closed|reset/i.test((error as Error).message)) throw error;
      this.#failed(method);
      return "lost";
    }
  }

  #failed(method: string): void {
    if (method === "POST") this.#unknown++;
  }

  /** Compares a count with what is known: each POST counts once, and one that failed at most once. */
  #counted(method: string, visits: number): void {
    const least = this.#visits + (method === "POST" ? 1 : 0);
    assert(
      visits >= least && visits <= least + this.#unknown,
      `${method}: ${visits} visits, wanted ${least} to ${least + this.#unknown}`,
    );
    this.#unknown -= visits - least;
    this.#visits = visits;
  }
}

/** The requests that failed, by their method. */
type Failures = Record<"GET" | "POST", (number | "lost")[]>;

/** Sends requests of a visitor until the load is stopped. */
async function visit(load: Load, visitor: Visitor, failures: Failures): Promise<void> {
  while (!load.stopped) {
    for (const method of ["GET", "POST"] as const) {
      const status = await visitor.send(method);
      if (status === 200) load.responses++;
      else failures[method].push(status);
    }
  }
}

/** Returns the processes that a process has started. */
async function childrenOf(pid: number): Promise<string[]> {
  const { stdout } = await new Deno.Command("pgrep", { args: ["-P", String(pid)] }).output();
  return new TextDecoder().decode(stdout).split("\n").filter((line) => line !== "");
}

/** Returns the value of a line of a unit. */
function setting(unit: string, name: string): string {
  const found = unit.match(new RegExp(`^${name}=(.*)$`, "m"));
  assert(found !== null, name);
  return found[1];
}

/** A balancer: how to start it, and the signal of `systemctl reload`. */
interface Balancer {
  needs: Record<string, string>;
  config: string;
  reload: Deno.Signal;
  command(machine: Machine, config: string): [command: string, args: string[]];
}

const BALANCERS: Record<string, Balancer> = {
  nginx: {
    needs: { nginx: "nginx-light", "/etc/nginx/fastcgi_params": "nginx-common" },
    config: "etc/nginx/conf.d/app.conf",
    reload: "SIGHUP",
    command: (machine) => {
      const rig = {
        dir: machine.home,
        write: (name: string, text: string) => machine.write(name, text),
        logFile: (name: string) => `${machine.home}/${name}`,
      } as unknown as Rig;
      return nginxCommand(rig, [`include ${machine.home}/etc/nginx/conf.d/app.conf;`]);
    },
  },
  haproxy: {
    needs: { haproxy: "haproxy", socat: "socat" },
    config: "etc/haproxy/haproxy.cfg",
    reload: "SIGUSR2",
    command: (machine) => ["haproxy", ["-W", "-f", `${machine.home}/etc/haproxy/haproxy.cfg`]],
  },
};

/** The site of the page. */
class Site implements AsyncDisposable {
  readonly machine = new Machine();
  readonly #shell = this.machine.shell();
  readonly #programs = new AsyncDisposableStack();
  readonly #balancer: string;
  readonly #services = new Map<number, Program>();
  #network!: Network;
  #web!: Program;

  private constructor(balancer: string) {
    this.#balancer = balancer;
  }

  static async start(balancer: string): Promise<Site> {
    const site = new Site(balancer);
    try {
      await site.#start();
      return site;
    } catch (error) {
      await site[Symbol.asyncDispose]();
      throw error;
    }
  }

  /** Where the web server listens: this process is on none of the machines. */
  get host(): string {
    return `unix:${this.machine.home}/web.sock`;
  }

  /** Adapts a text of the page to this machine. */
  #here(text: string): string {
    const { home } = this.machine;
    return text.replaceAll("sudo ", "")
      .replaceAll("/srv/app", `${home}/srv/app`)
      .replaceAll("--root /usr/local", `--root ${home}`)
      .replaceAll("/etc/", `${home}/etc/`)
      .replaceAll("/run/haproxy/", `${home}/`)
      // The pattern of awk.
      .replace(`\\${home}/etc\\/`, "\\/etc\\/")
      .replace("file = $2", `file = "${home}" $2`);
  }

  async run(text: string): Promise<string> {
    const { output, code } = await this.#shell.run(this.#here(text));
    assertEquals(code, 0, `${text}: ${output}`);
    return output;
  }

  async #start(): Promise<void> {
    const { machine } = this;
    for (
      const folder of ["srv/app", "etc/systemd/system", "etc/nginx/conf.d", "etc/haproxy", "cache"]
    ) {
      Deno.mkdirSync(`${machine.home}/${folder}`, { recursive: true });
    }
    machine.write("srv/app/app.ts", fileOf(BLOCKS, "app.ts"));
    await this.run(INSTALL);
    this.#network = this.#programs.use(await Network.create(1 + HOSTS.length));

    const redis = machine.write(
      "redis.conf",
      `${fileOf(BLOCKS, "redis.conf")}\nsave ""\ndir ${machine.home}\n`,
    );
    this.#spawn("redis", 1, ["redis-server", redis]);

    await this.#writeUnits();
    for (const host of HOSTS) this.startService(host);

    await this.run(block(this.#balancer)!);
    this.#adaptWeb();
    const { command } = BALANCERS[this.#balancer];
    const [program, args] = command(machine, "");
    this.#web = this.#spawn(this.#balancer, 1, [program, ...args]);
    await eventually("the site responds", async () => {
      for (const { status, output, name } of [this.#web, ...this.#services.values()]) {
        assertEquals(status, undefined, `${name}: ${output}`);
      }
      const status = await new Visitor(this.host).send("GET").catch(() => 0);
      return status === 200;
    });
  }

  /** Has the web server listen on a Unix socket, which this process can connect to. */
  #adaptWeb(): void {
    const path = `${this.machine.home}/${BALANCERS[this.#balancer].config}`;
    const text = Deno.readTextFileSync(path);
    const socket = `${this.machine.home}/web.sock`;
    const adapted = text.replace("listen 80;", `listen unix:${socket};`)
      .replace("bind *:80", `bind unix@${socket}`);
    assert(adapted !== text);
    Deno.writeTextFileSync(path, adapted);
  }

  async #writeUnits(): Promise<void> {
    const blocks = BLOCKS.slice(
      BLOCKS.findIndex(({ info }) => info === "units"),
      BLOCKS.findIndex(({ info }) => info === "start"),
    );
    for (const { language, text } of blocks) if (language === "sh") await this.run(text);
    const units = ["socket", "service"].map((kind) =>
      `${this.machine.home}/etc/systemd/system/app.${kind}`
    );
    const { stderr } = await new Deno.Command("systemd-analyze", {
      args: ["verify", "--man=no", ...units],
    }).output();
    const faults = new TextDecoder().decode(stderr).split("\n")
      .filter((line) => /\bapp\.(socket|service)/.test(line));
    assertEquals(faults, []);
    // What the services download, they download before.
    const { output, code } = await this.#shell.run(
      `${this.#environment()[0]} ${setting(this.#unit("service"), "ExecStartPre")}`,
    );
    assertEquals(code, 0, output);
  }

  #unit(kind: "socket" | "service"): string {
    return Deno.readTextFileSync(`${this.machine.home}/etc/systemd/system/app.${kind}`);
  }

  #environment(): string[] {
    const service = this.#unit("service");
    const file = Deno.readTextFileSync(setting(service, "EnvironmentFile"));
    return [
      setting(service, "Environment").replace("%C", `${this.machine.home}/cache`),
      ...file.trim().split("\n"),
    ];
  }

  #spawn(name: string, host: number, command: string[], env?: Record<string, string>): Program {
    const [program, ...args] = this.#network.command(host, command);
    const started = new Program(`${name} on 10.0.0.${host}`, program, {
      args,
      ...(env === undefined ? {} : { clearEnv: true, env }),
    });
    this.#programs.defer(() => started.stop());
    return started;
  }

  /** Starts the service of a machine as its socket unit would. */
  startService(host: number): void {
    const { machine } = this;
    const address = setting(this.#unit("socket"), "ListenStream").replace(
      "10.0.0.2",
      `10.0.0.${host}`,
    );
    const command = [
      "systemd-socket-activate",
      ...["--listen", address],
      ...["JSR_URL", "NO_COLOR", "HOME"].map((name) => `--setenv=${name}`),
      ...this.#environment().map((variable) => `--setenv=${variable}`),
      // StandardInput=socket
      ...["sh", "-c", `exec ${setting(this.#unit("service"), "ExecStart")} <&3`],
    ];
    const service = this.#spawn("the service", host, command, machine.env());
    this.#services.set(host, service);
  }

  /** Resolves when the app of a machine responds to the web server's machine. */
  async serves(host: number): Promise<void> {
    await eventually(`10.0.0.${host} serves`, async () => {
      const { status, output, name } = this.#services.get(host)!;
      assertEquals(status, undefined, `${name}: ${output}`);
      return (await this.health(host, 1)).code === 0;
    });
  }

  /** Runs the health check of the page. @param from The machine to run it on. */
  async health(host: number, from: number): Promise<{ code: number; output: string }> {
    const command = this.#here(block("health")!).trim().replace("10.0.0.2", `10.0.0.${host}`);
    return await this.#shell.run(
      this.#network.command(from, ["sh", "-c", `'${command}'`]).join(" "),
    );
  }

  /** Stops the service of a machine, as `systemctl stop` does. */
  async stopService(host: number): Promise<void> {
    const { process } = this.#services.get(host)!;
    process.kill("SIGTERM");
    assertEquals((await within(`the service of ${host} ends`, process.status)).code, 0);
  }

  /** Kills all that runs for the service of a machine. */
  async kill(host: number): Promise<void> {
    const { process } = this.#services.get(host)!;
    Deno.kill(-process.pid, "SIGKILL");
    await process.status;
  }

  cut(host: number): void {
    this.#network.cut(host);
  }

  reloadServices(): void {
    for (const { process } of this.#services.values()) process.kill("SIGHUP");
  }

  /** Runs a block of the page for the web server. Its last line may reload it. */
  async configure(info: string, host: number): Promise<void> {
    const lines = block(`${this.#balancer} ${info}`)!.replaceAll("10.0.0.2", `10.0.0.${host}`)
      .replaceAll("app/app1", `app/app${host - 1}`).trim().split("\n");
    const reload = lines.findIndex((line) => line.includes("systemctl reload"));
    const output = await this.run(lines.slice(0, reload < 0 ? undefined : reload).join("\n"));
    assertEquals(output.trim(), "");
    if (reload >= 0) await this.#reload();
  }

  /** Has the web server load its configuration, and resolves when none of its processes has the old one. */
  async #reload(): Promise<void> {
    const { process } = this.#web;
    const old = await childrenOf(process.pid);
    process.kill(BALANCERS[this.#balancer].reload);
    await eventually(`${this.#balancer} reloads`, async () => {
      const children = await childrenOf(process.pid);
      return children.length > 0 && !children.some((pid) => old.includes(pid));
    });
  }

  /** Changes the web server's configuration, and has it loaded. */
  async replaceInConfiguration(from: RegExp, to: string): Promise<void> {
    const path = `${this.machine.home}/${BALANCERS[this.#balancer].config}`;
    const text = Deno.readTextFileSync(path);
    assertMatch(text, from);
    Deno.writeTextFileSync(path, text.replace(from, to));
    await this.#reload();
  }

  /** What all programs have written. */
  get log(): string {
    return [this.#web, ...this.#services.values()].map(({ name, output }) =>
      `--- ${name}\n${output.slice(-3000)}`
    ).join("\n");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#programs.disposeAsync();
    await this.#shell[Symbol.asyncDispose]();
    await this.machine[Symbol.asyncDispose]();
  }
}

Deno.test("docs/several-machines.md has examples/visits.ts", async () => {
  const example = await Deno.readTextFile(`${ROOT}examples/visits.ts`);
  const app = (text: string) =>
    text.slice(text.indexOf("const ONE_DAY"), text.indexOf("\nexport default"));
  const normal = (text: string) => app(text).replaceAll(/\s+/g, "");
  assertEquals(normal(fileOf(BLOCKS, "app.ts")), normal(example));
});

for (const balancer of Object.keys(BALANCERS)) {
  testInNetwork(
    { ...NEEDS, ...BALANCERS[balancer].needs },
    `docs/several-machines.md works as written, with ${balancer}`,
    async (t) => {
      await using site = await Site.start(balancer);
      const visitors = Array.from({ length: VISITORS }, () => new Visitor(site.host));
      const under = async (use: (load: Load) => Promise<void>): Promise<Failures> => {
        const failures: Failures = { GET: [], POST: [] };
        const load = new Load(
          visitors.map((visitor) => (load) => visit(load, visitor, failures)),
        );
        await load.more(50);
        await use(load);
        await load.more(100);
        await load.stop();
        return failures;
      };

      await t.step("only the web server's machine is served", async () => {
        for (const host of HOSTS) {
          assertEquals(await site.health(host, 1), { code: 0, output: "ok\n" });
          assertEquals((await site.health(host, host)).code, 1);
        }
      });

      for (const host of HOSTS) {
        await t.step(`10.0.0.${host} is killed under load: no GET is lost`, async () => {
          const { GET } = await under((load) => site.kill(host).then(() => load.more(200)));
          assertEquals(GET, [], site.log);
          site.startService(host);
          await site.serves(host);
        });
      }

      await t.step("a reload loses no request", async () => {
        const failures = await under(async (load) => {
          site.reloadServices();
          await load.more(200);
        });
        assertEquals(failures, { GET: [], POST: [] }, site.log);
      });

      await t.step("a new version loses no request", async () => {
        const path = `${site.machine.home}/srv/app/app.ts`;
        const text = Deno.readTextFileSync(path);
        Deno.writeTextFileSync(path, text.replace("Visits: ", "Count: "));
        const failures = await under(async (load) => {
          for (const host of HOSTS) {
            await site.configure("drain", host);
            await load.more(50);
            await site.stopService(host);
            site.startService(host);
            await site.serves(host);
            await site.configure("back", host);
            await load.more(50);
          }
        });
        assertEquals(failures, { GET: [], POST: [] }, site.log);
      });

      await t.step("10.0.0.2 vanishes under load: no GET is lost", async () => {
        await site.configure("vanish", 2);
        await site.replaceInConfiguration(/(fastcgi_read_timeout|timeout server) 10s/, "$1 2s");
        const { GET } = await under((load) => {
          site.cut(2);
          return load.more(200);
        });
        assertEquals(GET, [], site.log);
        // It waits for Redis, which it cannot reach.
        await site.kill(2);
      });
    },
  );
}
