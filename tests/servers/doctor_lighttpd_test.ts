/** `doctor lighttpd`: each fault is made in a real lighttpd, which fails, and found; mended as it says, nothing is found. */
import { assert, assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { LIGHTTPD_FINDINGS } from "../../cli/doctor/lighttpd.ts";
import { readLighttpdConfig } from "../../cli/doctor/lighttpd_config.ts";
import { User } from "../../cli/doctor/user.ts";
import { testWith } from "../testing/needs.ts";
import { request } from "./client.ts";
import { type Diagnosis, doctor } from "./doctor.ts";
import { freePort, Rig } from "./harness.ts";

const LIGHTTPD = { lighttpd: "lighttpd" };
const USER = Deno.uid() === 0 ? "www-data" : User.find(undefined).name;
const HELLO = "#!/bin/sh\nprintf 'Content-Type: text/plain\\n\\nHello'\n";
const tested = new Set<string>();

/** Writes a configuration. */
function write(rig: Rig, text: string, port = 1): string {
  Deno.mkdirSync(`${rig.dir}/www`, { recursive: true });
  return rig.write(
    "lighttpd.conf",
    `# It's a "comment" }
server.bind = "127.0.0.1"
server.port = ${port}
server.document-root = "${rig.dir}/www"
${Deno.uid() === 0 ? `server.username = "${USER}"\nserver.groupname = "${USER}"` : ""}
server.modules = ( "mod_access", "mod_alias" )
url.access-deny = ( "~", ".inc" )
${text}
`,
  );
}

/** Starts lighttpd with a configuration. */
async function ask(
  rig: Rig,
  text: string,
  path: string,
): Promise<{ status: number; text: string; log: string }> {
  const { port } = await rig.serve("lighttpd", ["port"], ({ port }) => {
    return ["lighttpd", ["-D", "-f", write(rig, text, port)]];
  });
  const response = await request(`127.0.0.1:${port}`, "GET", path);
  const program = rig.program("lighttpd");
  await rig.stop(program);
  return { status: response.status, text: response.text, log: program.output };
}

/** Adds to a configuration what a finding says. */
function mendAs({ stdout }: Diagnosis, config: string): string {
  const [, line] = /Write: (.*)$/m.exec(stdout) ?? [];
  assert(line !== undefined, stdout);
  return `${config}\n${line}`;
}

interface Fault {
  /** Further arguments of doctor. */
  args?: string[];
  path?: string;
  config: string;
  status: number;
  log?: string;
  says?: string;
  /** Mends the fault. @returns The configuration. Default: what the finding says is added. */
  mend?: (diagnosis: Diagnosis) => string;
}

/** Makes a fault and mends it as doctor says. */
async function check(rig: Rig, id: keyof typeof LIGHTTPD_FINDINGS, fault: Fault): Promise<void> {
  tested.add(id);
  const { args = [], path = "/", config } = fault;
  const broken = await ask(rig, config, path);
  assertEquals(broken.status, fault.status, broken.log + broken.text);
  assert(!broken.text.startsWith("Hello"), broken.text);
  assertStringIncludes(broken.log, fault.log ?? "");
  const conf = ["lighttpd", "--conf", `${rig.dir}/lighttpd.conf`, ...args];
  const before = await doctor(...conf);
  assertEquals([before.code, before.ids], [1, [id]], before.stdout);
  assertStringIncludes(before.stdout, fault.says ?? "");
  const after = await ask(rig, fault.mend?.(before) ?? mendAs(before, config), path);
  assertEquals(after.status, 200, after.log + after.text);
  if (args.length > 0) assertEquals(after.text, "Hello");
  const healthy = await doctor(...conf);
  assertEquals([healthy.code, healthy.ids], [0, []], healthy.stdout);
}

/** Makes a fault of a script. */
async function checkScript(
  rig: Rig,
  id: keyof typeof LIGHTTPD_FINDINGS,
  { file = "www/cgi-bin/hello.cgi", ...fault }: Fault & { file?: string },
): Promise<void> {
  const script = rig.write(file, HELLO);
  Deno.chmodSync(script, 0o755);
  await check(rig, id, { path: "/cgi-bin/hello.cgi", args: ["--script", script], ...fault });
}

const CGI = 'server.modules += ( "mod_cgi" )\n';
const ASSIGN = '$HTTP["url"] =~ "^/cgi-bin/" {\n  cgi.assign = ( "" => "" )\n}';

testWith(LIGHTTPD, "doctor lighttpd finds a module of CGI that is not loaded", async () => {
  await using rig = new Rig();
  await checkScript(rig, "cgi-module", { config: ASSIGN, status: 200 });
});

testWith(LIGHTTPD, "doctor lighttpd finds that CGI is not enabled, as on Debian", async () => {
  await using rig = new Rig();
  const enabled = `${rig.dir}/conf-enabled`;
  Deno.mkdirSync(enabled);
  const available = rig.write(
    "conf-available/10-cgi.conf",
    `${CGI}$HTTP["url"] =~ "^/cgi-bin/" {
	cgi.assign = ( "" => "" )
	alias.url += ( "/cgi-bin/" => "${rig.dir}/lib/cgi-bin/" )
}`,
  );
  const config = `include "${enabled}/*.conf"`;
  await checkScript(rig, "cgi-module", {
    file: "lib/cgi-bin/hello.cgi",
    config,
    status: 404,
    says: "sudo lighttpd-enable-mod cgi && sudo systemctl restart lighttpd",
    mend() {
      Deno.symlinkSync(available, `${enabled}/10-cgi.conf`);
      return config;
    },
  });
});

testWith(LIGHTTPD, "doctor lighttpd finds a script that no URL leads to", async () => {
  await using rig = new Rig();
  await checkScript(rig, "no-alias", {
    file: "elsewhere/hello.cgi",
    config: CGI + ASSIGN,
    status: 404,
  });
});

testWith(LIGHTTPD, "doctor lighttpd finds a script that is not assigned", async () => {
  await using rig = new Rig();
  await checkScript(rig, "no-handler", {
    config: `${CGI}cgi.assign = ( ".pl" => "/usr/bin/perl" )
$HTTP["url"] =~ "^/else" { cgi.assign = ( ".cgi" => "" ) }
mimetype.assign = ( "" => "text/plain" )`,
    status: 200,
  });
});

testWith(LIGHTTPD, "doctor lighttpd finds a name that is denied", async () => {
  await using rig = new Rig();
  await checkScript(rig, "not-granted", {
    file: "www/cgi-bin/hello.inc",
    path: "/cgi-bin/hello.inc",
    config: CGI + ASSIGN,
    status: 403,
  });
});

const app = (server: string, host: string, more = "") =>
  `server.modules += ( "mod_fastcgi", "mod_scgi" )
${more}
${server}.server = ( "/" => ((${host}, "check-local" => "disable", "fix-root-scriptname" => "enable")) )`;
const tcp = (address: string) => {
  const [host, port] = address.split(":");
  return `"host" => "${host}", "port" => ${port}`;
};

testWith(LIGHTTPD, "doctor lighttpd finds a module of daemons that is not loaded", async () => {
  await using rig = new Rig();
  const address = await rig.daemon("fastcgi", "127.0.0.1:0");
  await check(rig, "server-module", {
    config: app("fastcgi", tcp(address)).replace('"mod_fastcgi", ', ""),
    status: 403,
    log: "unknown config-key: fastcgi.server (ignored)",
    says: '( "mod_fastcgi" )',
  });
});

testWith(
  LIGHTTPD,
  "doctor lighttpd finds nothing that listens, no socket, and its mode",
  async () => {
    await using rig = new Rig();
    const address = await rig.daemon("fastcgi", "127.0.0.1:0");
    await check(rig, "refused", {
      config: app("fastcgi", tcp(`127.0.0.1:${freePort()}`)),
      status: 503,
      log: "Connection refused",
      mend: () => app("fastcgi", tcp(address)),
    });
    await rig.daemon("fastcgi", `unix:${rig.dir}/app.sock`);
    Deno.chmodSync(`${rig.dir}/app.sock`, 0o777);
    const socket = app("fastcgi", `"socket" => var.folder + "/app.sock"`, `folder = "${rig.dir}"`);
    await check(rig, "no-socket", {
      config: app("fastcgi", `"socket" => "${rig.dir}/none.sock"`),
      status: 503,
      log: "No such file or directory",
      mend: () => socket,
    });
    Deno.chmodSync(`${rig.dir}/app.sock`, 0o000);
    await check(rig, "socket-denied", {
      config: socket,
      status: 503,
      log: "Permission denied",
      mend() {
        Deno.chmodSync(`${rig.dir}/app.sock`, 0o777);
        return socket;
      },
    });
  },
);

testWith(LIGHTTPD, "doctor lighttpd finds another protocol", async () => {
  await using rig = new Rig();
  const scgi = await rig.daemon("scgi", "127.0.0.1:0");
  await check(rig, "protocol", {
    config: app("fastcgi", tcp(scgi)),
    status: 500,
    says: `scgi.server = ( "/" => ((`,
    mend: () => app("scgi", tcp(scgi)),
  });
});

for (
  const [name, text, message] of [
    ["a block that does not end", '$HTTP["url"] == "/" {\n', "a block does not end"],
    ["a brace too many", "}\n", '"}" without "{"'],
    ["a list that does not end", "server.modules = ( 1, 2\n", '")" is missing'],
    ["a name without a value", "server.port\n", 'server.port without "="'],
    ["a quote that does not end", 'server.tag = "a\n', "line 1 cannot be read"],
    ["a mark in place of a value", "server.tag = => 1\n", '"=>" in place of a value'],
  ]
) {
  Deno.test(`doctor lighttpd reports ${name}`, async () => {
    const file = await Deno.makeTempFile();
    await Deno.writeTextFile(file, text);
    try {
      assertThrows(() => readLighttpdConfig(file), Error, message);
    } finally {
      await Deno.remove(file);
    }
  });
}

testWith(
  { "/etc/lighttpd/lighttpd.conf": "lighttpd" },
  "doctor lighttpd reads Debian's configuration",
  () => {
    const settings = readLighttpdConfig("/etc/lighttpd/lighttpd.conf");
    const { value } = settings.findLast(({ name }) => name === "server.username")!;
    assertEquals(value, "www-data");
  },
);

testWith(LIGHTTPD, "doctor lighttpd: each kind of finding has a test", () => {
  assertEquals(Object.keys(LIGHTTPD_FINDINGS).filter((id) => !tested.has(id)), []);
});
