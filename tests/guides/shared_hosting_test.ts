/** docs/shared-hosting.md, followed word for word behind Apache, whose scripts run as another user. */
import { assertEquals, assertStringIncludes } from "@std/assert";
import { testWith } from "../testing/needs.ts";
import { apacheConfig } from "../servers/apache.ts";
import { eventually, freePort, Program, type Rig } from "../servers/harness.ts";
import { blocksOf, fileOf, Machine } from "./guide.ts";

const NEEDS = {
  apache2: "apache2",
  curl: "curl",
  npm: "npm",
};

testWith(NEEDS, "docs/shared-hosting.md works as it is written", async () => {
  await using machine = new Machine();
  await using host = await startApache(machine);
  await using shell = machine.shell();
  const blocks = blocksOf("shared-hosting.md");
  const substitutions: [from: string, to: string][] = [
    // The rest of the internet may be out of reach.
    [
      "curl -fsSL https://deno.land/install.sh | sh -s -- --yes",
      `mkdir -p ~/.deno/bin; cp -l ${Deno.execPath()} ~/.deno/bin/deno || cp ${Deno.execPath()} ~/.deno/bin/deno`,
    ],
    ["https://example.org", host.url],
  ];
  for (const [i, { language, file, text }] of blocks.entries()) {
    if (file === "hello.ts") machine.write("site/hello.ts", text);
    if (language !== "sh") continue;
    const commands = substitutions.reduce((text, [from, to]) => text.replaceAll(from, to), text);
    if (commands.includes(".htaccess")) {
      machine.write("site/.htaccess", fileOf(blocks, ".htaccess"));
      await servesSources(machine, host);
    }
    const { output, code } = await shell.run(commands);
    assertEquals(code, 0, `${commands}\n${output}\n${host.program.output}${host.log()}`);
    const next = blocks[i + 1];
    if (next?.language === "text") {
      assertEquals(output.replaceAll("\r", ""), next.text, `${commands}\n${host.log()}`);
    }
  }
  const { status } = await fetch(`${host.url}/app/hello.js`);
  assertEquals(status, 403);
});

/** What the page warns of. */
async function servesSources(machine: Machine, host: Host): Promise<void> {
  machine.write("public_html/secret.ts", "const password = 'hush';\n", 0o755);
  assertStringIncludes(await (await fetch(`${host.url}/secret.ts`)).text(), "hush");
}

interface Host extends AsyncDisposable {
  url: string;
  program: Program;
  log(): string;
}

/** Starts Apache as hosts configure it: with a cgi-bin, and `.htaccess` files. */
async function startApache({ home, registry }: Machine): Promise<Host> {
  const port = freePort();
  const directory = Deno.makeTempDirSync();
  Deno.chmodSync(directory, 0o755);
  const log = `${directory}/error.log`;
  const rig = { dir: directory, logFile: () => log } as unknown as Rig;
  Deno.mkdirSync(`${home}/public_html/cgi-bin`, { recursive: true });
  const modules = ["mpm_event", "mime", "alias", "env", "cgid"];
  const config = apacheConfig(rig, modules, {
    // Elsewhere the packages come from jsr.io.
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
    env: { PATH: "/usr/local/bin:/usr/bin:/bin" },
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
