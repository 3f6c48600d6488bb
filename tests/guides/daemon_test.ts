/** docs/daemon.md, run word for word, except that systemd-socket-activate replaces systemd. */
import { assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { eventually, freePort, Program, type Rig } from "../servers/harness.ts";
import { nginxCommand } from "../servers/nginx.ts";
import { testWith } from "../testing/needs.ts";
import { type Block, blocksOf, fileOf, Machine } from "./guide.ts";
import { setting, startService } from "./service.ts";

const NEEDS = {
  nginx: "nginx-light",
  "/etc/nginx/fastcgi_params": "nginx-common",
  curl: "curl",
  "systemd-socket-activate": "systemd",
  "systemd-analyze": "systemd",
};
const BLOCKS = blocksOf("daemon.md");

/** Blocks that are not run: Deno is installed here, and other tests run the rest. */
const SKIPPED = ["install", "balanced", "remote"];

/** Replacements that adapt the page to this machine. */
function here(text: string, machine: Machine, port: number): string {
  return text.replaceAll("sudo ", "")
    .replaceAll("/srv/app", `${machine.home}/srv/app`)
    .replaceAll("/run/app.sock", `${machine.home}/app.sock`)
    .replaceAll("--root /usr/local", `--root ${machine.home}`)
    .replaceAll("/etc/nginx", `${machine.home}/nginx`)
    // The folder of the printed units does not exist here.
    .replaceAll("file = $2", `file = "${machine.home}" $2`)
    .replaceAll("/etc/systemd/system/app", `${machine.home}/etc/systemd/system/app`)
    .replaceAll("http://example.org", `http://127.0.0.1:${port}`)
    .replaceAll("listen 80;", `listen 127.0.0.1:${port};`);
}

/** Creates a machine with the folders of the page. */
function newMachine(): Machine {
  const machine = new Machine();
  for (const folder of ["srv/app", "etc/systemd/system", "nginx/conf.d", "cache"]) {
    Deno.mkdirSync(`${machine.home}/${folder}`, { recursive: true });
  }
  return machine;
}

function startNginx(machine: Machine, server: string): Program {
  const rig = {
    dir: machine.home,
    write: (name: string, text: string) => machine.write(name, text),
    logFile: (name: string) => `${machine.home}/${name}`,
  } as unknown as Rig;
  const [command, args] = nginxCommand(rig, [server]);
  return new Program("nginx", command, { args });
}

async function responds(url: string, nginx: Program): Promise<void> {
  await eventually("nginx listens", () => {
    if (nginx.status) throw new Error(nginx.output);
    return fetch(url).then((response) => response.body?.cancel()).then(() => true, () => false);
  });
}

testWith(NEEDS, "docs/daemon.md works as written", async () => {
  await using machine = newMachine();
  await using shell = machine.shell();
  await using programs = new AsyncDisposableStack();
  const port = freePort();
  const place = (text: string) => here(text, machine, port);
  const read = (file: string) => Deno.readTextFileSync(`${machine.home}/${file}`);
  let service = "";
  let daemon: Program | undefined;

  for (const [i, { language, info, file, text }] of BLOCKS.entries()) {
    if (file === "app.ts") machine.write("srv/app/app.ts", text);
    if (language !== "sh" || SKIPPED.includes(info)) continue;
    if (info === "systemd") {
      service = read("etc/systemd/system/app.service");
      const { output } = await shell.run(place(text.split("\n")[0]));
      assertEquals(output.split("\n").filter((line) => /\bapp\.(socket|service)/.test(line)), []);
      const started = startService(machine, service, read("etc/systemd/system/app.socket"));
      programs.defer(() => started.stop());
      daemon = started;
    } else if (info === "nginx") {
      const nginx = startNginx(machine, place(read("nginx/conf.d/app.conf")));
      programs.defer(() => nginx.stop());
      await responds(`http://127.0.0.1:${port}/health`, nginx);
    } else if (info === "systemd reload") {
      assertStringIncludes(setting(service, "ExecReload"), "kill -HUP");
      daemon!.process.kill("SIGHUP");
    } else if (info === "until") {
      await eventually("both workers are new", async () => {
        for (let n = 0; n < 8; n++) {
          const { output } = await shell.run(place(text));
          if (output !== expected(i)) return false;
        }
        return true;
      });
    } else {
      const { output, code } = await shell.run(place(text));
      assertEquals([output, code], [place(expected(i)), 0], `${text}${daemon?.output ?? ""}`);
    }
  }
  assertStringIncludes(read("error.log"), "hello to /");
  assertEquals(daemon!.status, undefined);
});

function expected(i: number): string {
  const next: Block | undefined = BLOCKS[i + 1];
  return next?.language === "text" ? next.text : "";
}

/** The command of each web server in front of two back ends. */
const BALANCERS: Record<string, (machine: Machine, config: string) => Program> = {
  nginx: startNginx,
  haproxy: (machine, config) =>
    new Program("haproxy", "haproxy", {
      args: ["-db", "-f", machine.write("haproxy.cfg", config)],
    }),
};

for (const [name, startBalancer] of Object.entries(BALANCERS)) {
  testWith(
    { ...NEEDS, [name]: name },
    `docs/daemon.md: ${name} loses no request when one of two back ends is killed`,
    async () => {
      await using machine = newMachine();
      await using shell = machine.shell();
      await using programs = new AsyncDisposableStack();
      const port = freePort();
      const place = (text: string) => here(text, machine, port);
      const run = async (commands: string) => {
        const { output, code } = await shell.run(place(commands));
        assertEquals(code, 0, output);
        return output;
      };
      machine.write("srv/app/app.ts", fileOf(BLOCKS, "app.ts"));
      await run(BLOCKS.find(({ text }) => text.includes("deno install"))!.text);
      const remote = BLOCKS.find(({ info }) => info === "remote")!.text;
      assertMatch(await run(remote), /^ExecStart=.* --allow-remote$/m);
      const addresses = [1, 2].map(() => `127.0.0.1:${freePort()}`);
      const daemons: Program[] = [];
      for (const address of addresses) {
        const units = await run(remote.replace("10.0.0.2:9000", address));
        const daemon = startService(machine, units, units);
        programs.defer(() => daemon.stop());
        daemons.push(daemon);
      }
      const balanced = BLOCKS.find(({ info, text }) => info === "balanced" && text.includes(name))!;
      const config = await run(
        balanced.text.replace("10.0.0.2:9000", addresses[0])
          .replace("10.0.0.3:9000", addresses[1]),
      );
      const balancer = startBalancer(
        machine,
        place(config).replace("bind *:80", `bind 127.0.0.1:${port}`),
      );
      programs.defer(() => balancer.stop());
      await responds(`http://127.0.0.1:${port}/`, balancer);

      let responses = 0;
      let stopped = false;
      const load = Promise.all([1, 2, 3, 4].map(async () => {
        while (!stopped) {
          const response = await fetch(`http://127.0.0.1:${port}/`);
          assertEquals([response.status, await response.text()], [200, "Hello from version 1\n"]);
          responses++;
        }
      }));
      load.catch(() => {});
      const more = (count: number) => {
        const target = responses + count;
        return Promise.race([eventually("responses", () => responses >= target), load]);
      };
      await more(100);
      Deno.kill(-daemons[0].process.pid, "SIGKILL");
      await more(200);
      stopped = true;
      await load;
    },
  );
}
