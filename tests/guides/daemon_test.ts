/** docs/daemon.md, followed word for word, but for systemd itself: its socket comes from systemd-socket-activate. */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { eventually, freePort, Program, type Rig } from "../servers/harness.ts";
import { nginxCommand } from "../servers/nginx.ts";
import { testWith } from "../testing/needs.ts";
import { type Block, blocksOf, fileOf, Machine } from "./guide.ts";

const NEEDS = {
  nginx: "nginx-light",
  "/etc/nginx/fastcgi_params": "nginx-common",
  curl: "curl",
  "systemd-socket-activate": "systemd",
  "systemd-analyze": "systemd",
};
const BLOCKS = blocksOf("daemon.md");

/** What the page is on this machine. */
function here(text: string, machine: Machine, port: number): string {
  return text.replaceAll("/srv/app", `${machine.home}/srv/app`)
    .replaceAll("/run/app.sock", `${machine.home}/app.sock`)
    .replaceAll("/usr/local/bin/deno", Deno.execPath())
    .replaceAll("http://example.org", `http://127.0.0.1:${port}`)
    .replaceAll("listen 80;", `listen 127.0.0.1:${port};`);
}

/** The value of a line of a unit. */
function setting(unit: string, name: string): string {
  const found = unit.match(new RegExp(`^${name}=(.*)$`, "m"));
  assert(found !== null, name);
  return found[1];
}

/** Starts the service of a unit as its socket unit would. */
function startService(machine: Machine, service: string, socket: string): Program {
  return new Program("the service", "systemd-socket-activate", {
    args: [
      "--listen",
      setting(socket, "ListenStream"),
      ...["JSR_URL", "NO_COLOR", "HOME"].map((name) => `--setenv=${name}`),
      `--setenv=${setting(service, "Environment")}`,
      // StandardInput=socket
      "sh",
      "-c",
      `exec ${setting(service, "ExecStart")} <&3`,
    ],
    clearEnv: true,
    env: machine.env(),
  });
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

testWith(NEEDS, "docs/daemon.md works as it is written", async () => {
  await using machine = new Machine();
  await using shell = machine.shell();
  await using programs = new AsyncDisposableStack();
  const port = freePort();
  const place = (text: string) => here(text, machine, port);
  Deno.mkdirSync(`${machine.home}/srv/app`, { recursive: true });
  const service = place(fileOf(BLOCKS, "app.service"));
  const socket = place(fileOf(BLOCKS, "app.socket"));
  let daemon: Program | undefined;

  for (const [i, { language, info, file, text }] of BLOCKS.entries()) {
    if (file === "app.ts") machine.write("srv/app/app.ts", place(text));
    if (language !== "sh" || info === "no-test") continue;
    if (info === "systemd") {
      const units = ["app.socket", "app.service"];
      units.forEach((name) => machine.write(name, name === "app.socket" ? socket : service));
      const { output } = await shell.run(`systemd-analyze verify ~/app.socket ~/app.service`);
      assertEquals(output.split("\n").filter((line) => /\bapp\.(socket|service)/.test(line)), []);
      daemon = startService(machine, service, socket);
      const started = daemon;
      programs.defer(() => started.stop());
    } else if (info === "nginx") {
      const nginx = startNginx(machine, place(fileOf(BLOCKS, "app.conf")));
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
      assertEquals([output, code], [expected(i), 0], `${text}${daemon?.output ?? ""}`);
    }
  }
  assertStringIncludes(Deno.readTextFileSync(`${machine.home}/error.log`), "hello to /");
  assertEquals(daemon!.status, undefined);
});

function expected(i: number): string {
  const next: Block | undefined = BLOCKS[i + 1];
  return next?.language === "text" ? next.text : "";
}

testWith(
  NEEDS,
  "docs/daemon.md: no request is lost when one of two back ends is killed",
  async () => {
    await using machine = new Machine();
    await using shell = machine.shell();
    await using programs = new AsyncDisposableStack();
    const port = freePort();
    const place = (text: string) => here(text, machine, port);
    Deno.mkdirSync(`${machine.home}/srv/app`, { recursive: true });
    machine.write("srv/app/app.ts", fileOf(BLOCKS, "app.ts"));
    const [prepare] = BLOCKS.filter(({ language }) => language === "sh");
    assertEquals((await shell.run(place(prepare.text))).code, 0);
    const addresses = [1, 2].map(() => `127.0.0.1:${freePort()}`);
    const daemons = addresses.map((address) => {
      const socket = fileOf(BLOCKS, "app.socket").replace("/run/app.sock", address);
      const daemon = startService(machine, place(fileOf(BLOCKS, "app.service")), socket);
      programs.defer(() => daemon.stop());
      return daemon;
    });
    const balanced = BLOCKS.find(({ info }) => info === "balanced")!;
    const nginx = startNginx(
      machine,
      place(balanced.text).replace("10.0.0.2:9000", addresses[0])
        .replace("10.0.0.3:9000", addresses[1]),
    );
    programs.defer(() => nginx.stop());
    await responds(`http://127.0.0.1:${port}/`, nginx);

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
