/** Follows docs/frameworks.md word for word, but for the addresses and folders of the system. */
import { assert, assertEquals } from "@std/assert";
import { eventually, freePort, Program, type Rig } from "../servers/harness.ts";
import { nginxCommand } from "../servers/nginx.ts";
import { ROOT } from "../testing/daemon.ts";
import { startApache } from "./apache.ts";
import { type Block, blocksIn, Machine } from "./guide.ts";
import { startService } from "./service.ts";

const PAGE = Deno.readTextFileSync(`${ROOT}docs/frameworks.md`);
/** The sections of the page by their headings. */
const SECTIONS = new Map(
  PAGE.split(/^## /m).map((text) => [text.split("\n")[0], blocksIn(text)] as const),
);
const [INTRODUCTION] = SECTIONS.values();
const NGINX = SECTIONS.get("nginx")!;
const SHARED = SECTIONS.get("Shared hosting")!;
/** Downloads and builds everything. */
const BUILD = 300_000;
const STARTS = 5;

/** The frameworks of the page. */
export const FRAMEWORKS: string[] = [...SECTIONS].filter(([, blocks]) =>
  blocks.some(({ info }) => info === "variables")
).map(([name]) => name);

/** Returns the status of a form that another site sends, which the table of the page has for each framework. */
function statusOfForeignForms(name: string): number {
  const line = PAGE.split("\n").find((line) => line.startsWith(`| [${name}](`));
  assert(line !== undefined, `The table must have a row of ${name}`);
  return parseInt(line.split("|")[3]);
}

/** Returns the commands of a block. */
function commandsOf(blocks: Block[], info: string): string {
  const found = blocks.filter((block) => block.language === "sh" && block.info === info);
  assertEquals(found.length, 1, `There must be one block "sh ${info}"`);
  return found[0].text;
}

/** The result of a framework. */
export interface Result {
  /** The time of its installation and build, in seconds. */
  build: number;
  /** The processor time of a start as a CGI script, in seconds: the least of some. */
  start: number;
  /** The size of the script, in MiB. */
  size: number;
}

/** Builds the project of a framework, and sends requests to it through nginx, and as a CGI script through Apache. */
export async function follow(name: string): Promise<Result> {
  const blocks = SECTIONS.get(name)!;
  await using machine = new Machine();
  await using programs = new AsyncDisposableStack();
  const { home } = machine;
  // The user of the web server starts Deno too.
  for (const folder of ["project", "nginx/conf.d", ".deno/bin"]) {
    Deno.mkdirSync(`${home}/${folder}`, { recursive: true });
  }
  Deno.copyFileSync(Deno.execPath(), `${home}/.deno/bin/deno`);
  await using shell = machine.shell();
  const [web, app] = [freePort(), freePort()];
  const place = (text: string) =>
    text.replaceAll("sudo ", "").replaceAll("/usr/local", home)
      .replaceAll("/etc/nginx", `${home}/nginx`).replaceAll("127.0.0.1:9000", `127.0.0.1:${app}`)
      .replace("config nginx", `config nginx --backend 127.0.0.1:${app}`);
  const run = async (commands: string, ms?: number) => {
    const { output, code } = await shell.run(place(commands), ms);
    assertEquals(code, 0, `${commands}\n${output}`);
    return output;
  };

  await run(commandsOf(INTRODUCTION, "install"));
  await run("cd ~/project");
  for (const { file, text } of blocks) {
    if (file === undefined) continue;
    const path = `${home}/project/${file}`;
    Deno.mkdirSync(path.slice(0, path.lastIndexOf("/")), { recursive: true });
    Deno.writeTextFileSync(path, text);
  }
  const began = performance.now();
  await run(commandsOf(blocks, "build"), BUILD);
  const build = (performance.now() - began) / 1000;
  await run(commandsOf(blocks, "variables"));
  const [root, immutable] = (await run(`echo "$root $immutable"`)).trim().split(" ");
  const asset = assetIn(`${home}/project/${root}`, immutable);
  const foreign = statusOfForeignForms(name);

  await run(`{ ${commandsOf(NGINX, "serve").trim()}; } > ~/serve.log 2>&1 &`);
  await run(commandsOf(NGINX, "nginx"));
  const rig = {
    dir: home,
    write: (name: string, text: string) => machine.write(name, text),
    logFile: (name: string) => `${home}/${name}`,
  } as unknown as Rig;
  const site = Deno.readTextFileSync(`${home}/nginx/conf.d/app.conf`)
    .replace("listen 80;", `listen 127.0.0.1:${web};`);
  const [command, args] = nginxCommand(rig, ["include /etc/nginx/mime.types;", site]);
  const nginx = new Program("nginx", command, { args });
  programs.defer(() => nginx.stop());
  const log = () => Deno.readTextFileSync(`${home}/serve.log`) + nginx.output;
  await eventually("nginx and the app respond", () => {
    assert(nginx.status === undefined, nginx.output);
    return respondsWith(200, `http://127.0.0.1:${web}/`);
  }).catch((error) => assert(false, `${error}\n${log()}`));
  await checkSite(`http://127.0.0.1:${web}`, asset, foreign, log);

  const units = await run(commandsOf(NGINX, "systemd"));
  const address = `127.0.0.1:${freePort()}`;
  const service = startService(machine, units, `ListenStream=${address}`);
  programs.defer(() => service.stop());
  const secure = "--header Host:example.org --variable HTTPS=on";
  await run(`gatehouse fetch ${address} / ${secure} | grep -F https://example.org/`);

  await run(commandsOf(SHARED, "bundle"));
  await run(commandsOf(SHARED, "cgi"));
  await run(commandsOf(SHARED, "warm"));
  // The folder of the project is not there on the host.
  await run("mv ~/project ~/elsewhere");
  const host = await startApache(machine, "/usr/bin:/bin");
  programs.defer(() => host[Symbol.asyncDispose]());
  await checkSite(host.url, asset, foreign, host.log);
  const script = `${home}/public_html/app.cgi`;
  return { build, start: await timeOf(script), size: Deno.statSync(script).size / 2 ** 20 };
}

async function respondsWith(status: number, url: string): Promise<boolean> {
  try {
    const response = await fetch(url);
    await response.body?.cancel();
    return response.status === status;
  } catch {
    return false;
  }
}

/** Returns the path of a file that never changes. */
function assetIn(root: string, immutable: string): { path: string; text: string } {
  const file = [...Deno.readDirSync(root + immutable)].find(({ isFile }) => isFile);
  if (file !== undefined) {
    const path = `${immutable}/${file.name}`;
    return { path, text: Deno.readTextFileSync(root + path) };
  }
  const folder = [...Deno.readDirSync(root + immutable)].find(({ isDirectory }) => isDirectory);
  assert(folder !== undefined, `${root}${immutable} must have a file`);
  return assetIn(root, `${immutable}/${folder.name}`);
}

/** Checks a page, an asset, forms and a path without a route. */
async function checkSite(
  origin: string,
  asset: { path: string; text: string },
  foreign: number,
  log: () => string,
): Promise<void> {
  const page = await fetch(`${origin}/`);
  // React puts comments between texts.
  const html = (await page.text()).replaceAll(/<!--.*?-->/g, "");
  assert(page.ok && html.includes(`Hello from ${origin}/`), `${page.status} ${html}\n${log()}`);

  const file = await fetch(origin + asset.path);
  assertEquals([file.status, await file.text()], [200, asset.text]);
  assertEquals(file.headers.get("cache-control"), "public, max-age=31536000, immutable");

  const send = async (from: string) => {
    const body = new URLSearchParams({ name: "Ann" });
    const response = await fetch(`${origin}/greet`, {
      method: "POST",
      headers: { Origin: from },
      body,
    });
    return [response.status, await response.text()] as const;
  };
  assertEquals(await send(origin), [201, "Ann was here"], log());
  assertEquals((await send("http://other.example"))[0], foreign, log());

  const missing = await fetch(`${origin}/missing`, { headers: { Accept: "text/html" } });
  assertEquals(missing.status, 404, `${await missing.text()}\n${log()}`);
  assertEquals(missing.headers.get("cache-control")?.includes("immutable") ?? false, false);
}

/** Returns the least processor time of some starts of a script, in seconds. */
async function timeOf(script: string): Promise<number> {
  const times: number[] = [];
  for (let i = 0; i < STARTS; i++) {
    const { stderr, success } = await new Deno.Command("bash", {
      args: ["-c", `TIMEFORMAT='%U %S'; time ${script} > /dev/null`],
      clearEnv: true,
      env: {
        PATH: "/usr/bin:/bin",
        GATEWAY_INTERFACE: "CGI/1.1",
        REQUEST_METHOD: "GET",
        REQUEST_URI: "/",
        HTTP_HOST: "localhost",
        SCRIPT_NAME: "/app.cgi",
      },
    }).output();
    const text = new TextDecoder().decode(stderr);
    assert(success, text);
    const [user, system] = text.trim().split("\n").at(-1)!.split(" ").map(Number);
    times.push(user + system);
  }
  return Math.min(...times);
}
