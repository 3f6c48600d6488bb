/** docs/troubleshooting.md: each entry's fault logs its message in Apache's log, and its line fixes the fault. */
import { assert, assertEquals } from "@std/assert";
import { APACHE_FINDINGS } from "../../cli/doctor/apache.ts";
import { APACHE_SCRIPT_FINDINGS } from "../../cli/doctor/apache_script.ts";
import { FINDINGS } from "../../cli/doctor/findings.ts";
import { LIGHTTPD_FINDINGS } from "../../cli/doctor/lighttpd.ts";
import { NGINX_FINDINGS } from "../../cli/doctor/nginx.ts";
import { NGINX_SCRIPT_FINDINGS } from "../../cli/doctor/nginx_script.ts";
import { SELINUX_FINDINGS } from "../../cli/doctor/selinux.ts";
import { SITE_FINDINGS } from "../../cli/doctor/site.ts";
import { eventually } from "../servers/harness.ts";
import { ROOT } from "../testing/daemon.ts";
import { testWith } from "../testing/needs.ts";
import { startApache } from "./apache.ts";
import { Machine } from "./guide.ts";

const SOURCE = `import { serve } from "jsr:@gatehouse/cgi@0.3";
const app = () => new Response("Hello\\n");
await serve(app);
`;
const PAGE = Deno.readTextFileSync(`${ROOT}docs/troubleshooting.md`);
const SCRIPT = "public_html/cgi-bin/hello.js";

interface Entry {
  id: string;
  /** All that it explains. */
  ids: string[];
  /** The messages of each fault that it explains. */
  messages: string[][];
  commands: string | undefined;
}

function readEntries(): Entry[] {
  const [, scripts] = PAGE.split(/^## CGI scripts$/m);
  const [entries] = scripts.split(/^## /m);
  return entries.split(/^### /m).slice(1).map((text) => ({
    id: /<a id="([\w-]+)">/.exec(text)![1],
    ids: [...text.matchAll(/<a id="([\w-]+)">/g)].map(([, id]) => id),
    messages: [...text.matchAll(/^```text log\n(.*?)^```$/gms)]
      .map(([, messages]) => messages.trim().split("\n")),
    commands: /^```sh\n(.*?)^```$/ms.exec(text)?.[1],
  }));
}

type Fault = (bundle: string, first: string) => string;
/** A broken script for each message of an entry, by its id. */
type Faults = Record<string, Fault | Fault[]>;

const FAULTS: Faults = {
  "run-bit": (bundle, first) => first + bundle,
  "bom": (bundle, first) => `\ufeff${first}${bundle}`,
  "first-line": (bundle) => bundle,
  "crlf": [
    (bundle) => `#!/usr/bin/env deno\r\n${bundle}`,
    (bundle, first) => `#!${/\S+\/deno/.exec(first)![0]}\r\n${bundle}`,
  ],
  "env-s": (bundle, first) => first.replace("-S ", "") + bundle,
  "interpreter": [
    (bundle, first) => first.replace(/\S+\/deno/, "deno") + bundle,
    (bundle, first) => first.replace(/\S+\/deno/, "/home/ann/deno") + bundle,
    (bundle, first) => first.replace(/\S+\/deno/, "~/.deno/bin/deno") + bundle,
  ],
  "allow-env": (bundle, first) => first.replace(" --allow-env", "") + bundle,
  "permission": (bundle, first) => `${first}Deno.readTextFileSync("/etc/hostname");\n${bundle}`,
  "import": (_bundle, first) => first + SOURCE,
  "storage": (bundle, first) =>
    `${first.replace("--allow-env", "--allow-write --allow-env")}` +
    `Deno.writeTextFileSync("/etc/guestbook", "");\n${bundle}`,
  "memory": (bundle, first) => first + bundle,
  "listens": (bundle, first) => first + bundle.replace("await serve(app);", "Deno.serve(app);"),
  "syntax": (bundle, first) => `${first + bundle}const = 1;\n`,
  "throws": (bundle, first) => `${first}throw new Error("out of order");\n${bundle}`,
  "printed": (bundle, first) => `${first}console.log("Loading");\n${bundle}`,
  "no-serve": (bundle, first) => first + bundle.replace("await serve(app);", ""),
  "status": (bundle, first) => first + bundle.replace('new Response("Hello\\n")', "null"),
};
/** What Apache is configured with besides, in `.htaccess`. */
const CONFIGURATION: Record<string, string> = { "memory": "RLimitMEM 536870912\n" };
/** Further options of doctor. */
const OPTIONS: Record<string, string> = { "memory": "--memory 512m" };
/** Entries whose fix reveals another fault: without -S no permission can be granted. */
const NOT_THE_LAST = ["crlf"];

testWith({ apache2: "apache2" }, "docs/troubleshooting.md: messages and what to do", async () => {
  await using machine = new Machine();
  await using host = await startApache(machine);
  await using shell = machine.shell();
  machine.write("source.js", SOURCE);
  const deno = `${machine.home}/.deno/bin/deno`;
  const { code, output } = await shell.run(`mkdir -p ~/.deno/bin
cp -l ${Deno.execPath()} ${deno} || cp ${Deno.execPath()} ${deno}
${deno} bundle --quiet --output bundle.js source.js
cd ~/public_html/cgi-bin`);
  assertEquals(code, 0, output);
  const bundle = await Deno.readTextFile(`${machine.home}/bundle.js`);
  const first = `#!/usr/bin/env -S ${deno} run --no-prompt --allow-env\n`;
  // The user and environment of Apache's scripts here.
  const user = Deno.uid() === 0 ? "--user www-data" : "";
  const doctor = `${
    /^```sh doctor\n(.*?)\n```$/ms.exec(PAGE)![1]
  } ${user} --env PATH=/usr/sbin --env JSR_URL=${machine.registry}`;
  const entries = readEntries();
  assertEquals(entries.map(({ id }) => id).sort(), Object.keys(FAULTS).sort());
  const faults = entries.flatMap(({ messages, ...entry }) => {
    const made = [FAULTS[entry.id]].flat();
    assertEquals(made.length, messages.length, entry.id);
    return made.map((fault, i) => ({ ...entry, fault, messages: messages[i] }));
  });
  for (const { id, ids, fault, messages, commands } of faults) {
    machine.write(SCRIPT, fault(bundle, first), id === "run-bit" ? 0o644 : 0o755);
    machine.write("public_html/cgi-bin/.htaccess", CONFIGURATION[id] ?? "");
    const { status, added } = await request();
    assertEquals(status, 500, id);
    await eventually(`the log has the message of ${id}: ${added()}`, () => {
      return messages.every((message) => added().includes(message));
    });
    const diagnosis = await shell.run(`${doctor} ${OPTIONS[id] ?? ""}`);
    const found = /\[([\w-]+)\]$/m.exec(diagnosis.output)?.[1];
    assert(ids.includes(found ?? ""), `${id}: ${diagnosis.output}`);
    assertEquals(diagnosis.code, 1);
    if (commands === undefined) continue;
    const { output, code } = await shell.run(commands);
    assertEquals([output, code], ["", 0], id);
    const after = await request();
    if (NOT_THE_LAST.includes(id)) assert(!after.added().includes(messages[0]), id);
    else assertEquals([after.status, after.text], [200, "Hello\n"], `${id}: ${after.added()}`);
  }

  /** Requests the script. Removes colors from Deno's log. */
  async function request(): Promise<{ status: number; text: string; added: () => string }> {
    const before = host.log().length;
    const response = await fetch(`${host.url}/cgi-bin/hello.js`);
    // deno-lint-ignore no-control-regex
    const added = () => host.log().slice(before).replace(/\x1b\[[\d;]*m/g, "");
    return { status: response.status, text: await response.text(), added };
  }
});

/** Findings without an entry: their own text is enough. */
const PLAIN = [
  "compiles",
  "node-name",
  "node-version",
  "missing",
  "folder",
  "foreign-link",
  "unreadable",
  "writable",
  "interpreter-denied",
  "extension",
  "module",
  "telemetry",
  "slow",
  "left-open",
  "silent",
  "invalid",
];

Deno.test("docs/troubleshooting.md has what doctor finds", () => {
  const anchors = [...PAGE.matchAll(/<a id="([\w-]+)">/g)].map(([, id]) => id);
  const scripts = Object.keys(FINDINGS).filter((id) => !PLAIN.includes(id));
  const servers = [
    NGINX_FINDINGS,
    NGINX_SCRIPT_FINDINGS,
    APACHE_FINDINGS,
    APACHE_SCRIPT_FINDINGS,
    LIGHTTPD_FINDINGS,
    SITE_FINDINGS,
    SELINUX_FINDINGS,
  ].flatMap(Object.keys);
  assertEquals(anchors.sort(), [...new Set([...scripts, ...servers])].sort());
});
