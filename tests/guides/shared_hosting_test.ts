/** docs/shared-hosting.md, run word for word on Apache, which runs scripts as another user. */
import { assertEquals, assertFalse, assertStringIncludes } from "@std/assert";
import { eventually } from "../servers/harness.ts";
import { testWith } from "../testing/needs.ts";
import { type Host, startApache } from "./apache.ts";
import { blocksOf, fileOf, Machine } from "./guide.ts";

const NEEDS = {
  apache2: "apache2",
  curl: "curl",
};

testWith(NEEDS, "docs/shared-hosting.md works as written", async () => {
  await using machine = new Machine();
  await using host = await startApache(machine);
  await using shell = machine.shell();
  const blocks = blocksOf("shared-hosting.md");
  const substitutions: [from: string, to: string][] = [
    // The rest of the internet may be unreachable.
    [
      "curl -fsSL https://deno.land/install.sh | sh -s -- --yes",
      `mkdir -p ~/.deno/bin; cp -l ${Deno.execPath()} ~/.deno/bin/deno || cp ${Deno.execPath()} ~/.deno/bin/deno`,
    ],
    ["https://example.org", host.url],
    // Root must name the web server's user.
    ["doctor hello.js", `doctor hello.js${Deno.uid() === 0 ? " --user www-data" : ""}`],
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
  await refusesOtherFiles(machine, host);
  await logsPlainText(machine, host);
});

/** Breaks the script of cgi-bin, and looks at the error of Deno in the log. */
async function logsPlainText(machine: Machine, host: Host): Promise<void> {
  const path = "public_html/cgi-bin/hello.js";
  const [firstLine] = Deno.readTextFileSync(`${machine.home}/${path}`).split("\n", 1);
  machine.write(path, `${firstLine}\nthrow new Error("no ink");\n`, 0o755);
  const response = await fetch(`${host.url}/cgi-bin/hello.js`);
  await response.body?.cancel();
  await eventually("the error is in the log", () => host.log().includes("Error: no ink"));
  // Apache escapes control characters.
  for (const code of ["\x1b", "\\x1b"]) assertFalse(host.log().includes(code), host.log());
}

/** Files that are not meant for browsers, whatever they are named. */
const PRIVATE = [
  "hello.ts",
  "HELLO.TS",
  "hello.ts~",
  "hello.js",
  "hello.cgi~",
  "hello.cgi.bak",
  "hello.html.orig",
  ".env",
  ".git/config",
  ".htaccess",
  "data.db",
  "data.db-wal",
  "data/page.sqlite",
  "deno.json",
  "notes",
];
const PUBLIC = ["page.html", "style.css", "images/logo.png"];

async function refusesOtherFiles(machine: Machine, host: Host): Promise<void> {
  for (const folder of [".git", "data", "images"]) {
    Deno.mkdirSync(`${machine.home}/public_html/app/${folder}`);
  }
  const names = [...PUBLIC, ...PRIVATE.filter((name) => name !== ".htaccess")];
  for (const name of names) machine.write(`public_html/app/${name}`, "the contents\n");
  for (const name of [...PRIVATE, "", "data/"]) {
    const response = await fetch(`${host.url}/app/${name}`);
    assertEquals(
      [response.status, (await response.text()).includes("contents")],
      [403, false],
      name,
    );
  }
  for (const name of PUBLIC) {
    assertEquals(await (await fetch(`${host.url}/app/${name}`)).text(), "the contents\n", name);
  }
}

/** The errors that the page warns about. */
async function servesSources(machine: Machine, host: Host): Promise<void> {
  machine.write("public_html/secret.ts", "const password = 'hush';\n", 0o755);
  assertStringIncludes(await (await fetch(`${host.url}/secret.ts`)).text(), "hush");
}
