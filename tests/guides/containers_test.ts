/** docs/containers.md: its files are read, and its commands run, in a PID namespace instead of a container. */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { parse } from "yaml";
import { eventually, freePort, Program, type Rig } from "../servers/harness.ts";
import { nginxCommand } from "../servers/nginx.ts";
import { inNamespace, NAMESPACES, processOne } from "../testing/namespace.ts";
import { testWith } from "../testing/needs.ts";
import { blocksOf, fileOf, Machine } from "./guide.ts";

const BLOCKS = blocksOf("containers.md");
const fileNamed = (name: string) => BLOCKS.find(({ info }) => info === name)!.text;

/** The instructions of a Dockerfile, in order. */
function instructions(text: string): [name: string, value: string][] {
  const lines = text.replaceAll(/^#.*\n/gm, "").replaceAll("\\\n", "").trim().split("\n");
  return lines.map((line) => {
    const [, name, value] = /^([A-Z]+) +(.+)$/.exec(line)!;
    return [name, value];
  });
}

/** The command of an instruction that has a list. */
function commandOf(name: string): string[] {
  const [, value] = instructions(fileNamed("Dockerfile")).find(([found]) => found === name)!;
  return JSON.parse(value.replace(/^CMD /, ""));
}

Deno.test("docs/containers.md has a Dockerfile that copies files of the page alone", () => {
  const all = instructions(fileNamed("Dockerfile"));
  const names = ["FROM", "COPY", "RUN", "USER", "WORKDIR", "EXPOSE", "HEALTHCHECK", "CMD"];
  for (const [name] of all) assert(names.includes(name), name);
  const copied = all.filter(([name, value]) => name === "COPY" && !value.startsWith("--from="));
  for (const [, value] of copied) fileOf(BLOCKS, value.split(" ")[0]);
});

Deno.test("docs/containers.md has a compose file that gives the workers time to end", () => {
  const { services, networks } = parse(fileNamed("compose.yaml"));
  assertEquals(Object.keys(services), ["app", "nginx"]);
  assert(parseInt(services.app.stop_grace_period) > 11);
  for (const network of [...services.app.networks, ...services.nginx.networks]) {
    assert(network === "default" || network in networks, network);
  }
  const [file] = services.nginx.volumes[0].split(":");
  assertStringIncludes(
    BLOCKS.find(({ language }) => language === "sh")!.text,
    `> ${file.slice(2)}`,
  );
});

const NEEDS = { ...NAMESPACES, nginx: "nginx-light", "/etc/nginx/fastcgi_params": "nginx-common" };

testWith(NEEDS, "docs/containers.md works as written", async () => {
  await using machine = new Machine();
  await using shell = machine.shell();
  await using programs = new AsyncDisposableStack();
  const [back, front] = [freePort(), freePort()];
  const here = (text: string) =>
    text.replaceAll("0.0.0.0:9000", `127.0.0.1:${back}`)
      .replaceAll("127.0.0.1:9000", `127.0.0.1:${back}`)
      .replaceAll("app:9000", `127.0.0.1:${back}`)
      .replaceAll("/srv/app", machine.home)
      .replaceAll("/usr/local/bin/deno", Deno.execPath())
      .replaceAll("listen 80;", `listen 127.0.0.1:${front};`);
  machine.write("app.ts", fileOf(BLOCKS, "app.ts"));
  const runs = instructions(fileNamed("Dockerfile")).filter(([name]) => name === "RUN");
  for (const [, command] of runs) {
    if (command.startsWith("useradd")) continue;
    const { output, code } = await shell.run(command);
    assertEquals(code, 0, output);
  }
  const { output, code } = await shell.run(
    here(BLOCKS.find(({ language }) => language === "sh")!.text),
  );
  assertEquals(code, 0, output);

  const options = { cwd: machine.home, env: machine.env(), clearEnv: true };
  const [command, ...args] = inNamespace(commandOf("CMD").map(here));
  const container = new Program("the container", command, { ...options, args });
  programs.defer(() => container.stop());
  await eventually("the workers serve", () => {
    assertEquals(container.status, undefined, container.output);
    return container.output.includes("Workers: ");
  });
  const [program, ...health] = commandOf("HEALTHCHECK").map(here);
  const checked = await new Deno.Command(`${machine.home}/bin/${program}`, {
    ...options,
    args: health,
  })
    .output();
  assertEquals([new TextDecoder().decode(checked.stdout), checked.code], ["ok\n", 0]);

  const rig = {
    dir: machine.home,
    write: (name: string, text: string) => machine.write(name, text),
    logFile: (name: string) => `${machine.home}/${name}`,
  } as unknown as Rig;
  const config = here(Deno.readTextFileSync(`${machine.home}/nginx.conf`));
  const [nginx, nginxArgs] = nginxCommand(rig, [config]);
  const web = new Program("nginx", nginx, { args: nginxArgs });
  programs.defer(() => web.stop());
  let text = "";
  await eventually("nginx responds", async () => {
    assertEquals(web.status, undefined, web.output);
    text = await fetch(`http://127.0.0.1:${front}/`).then((response) => response.text(), () => "");
    return text !== "";
  });
  assertEquals(text, "Hello from a container\n");

  Deno.kill(await processOne(container.process), "SIGTERM");
  assertEquals((await container.process.status).code, 0, container.output);
});
