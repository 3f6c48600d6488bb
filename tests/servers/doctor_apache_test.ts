/** `doctor apache`: each fault is made in a real Apache, which fails, and found; mended as it says, nothing is found. */
import { assert, assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { APACHE_FINDINGS } from "../../cli/doctor/apache.ts";
import { APACHE_SCRIPT_FINDINGS } from "../../cli/doctor/apache_script.ts";
import { readApacheConfig } from "../../cli/doctor/apache_config.ts";
import { User } from "../../cli/doctor/user.ts";
import { testWith } from "../testing/needs.ts";
import { MODULES } from "./apache.ts";
import { request } from "./client.ts";
import { type Diagnosis, doctor } from "./doctor.ts";
import { eventually, freePort, Rig } from "./harness.ts";

const APACHE = { apache2: "apache2", [`${MODULES}/mod_cgid.so`]: "apache2-bin" };
const USER = Deno.uid() === 0 ? "www-data" : User.find(undefined).name;
const HELLO =
  "#!/bin/sh\nprintf 'Content-Type: text/plain\\n\\nHello %s' \"$HTTP_AUTHORIZATION\"\n";
const tested = new Set<string>();

/** Returns the lines that load modules. */
function load(...names: string[]): string {
  return names.map((name) => `LoadModule ${name}_module ${MODULES}/mod_${name}.so`).join("\n");
}

const BASIC = load("mpm_event", "authz_core", "alias", "mime");
/** What most configurations begin with. */
const ROOT = "<Directory />\nRequire all granted\n</Directory>";

/** Writes a configuration. */
function write(rig: Rig, text: string, port = 1): string {
  rig.write("mime.types", "text/plain txt\n");
  return rig.write(
    "apache2.conf",
    `ServerRoot ${rig.dir}
ServerName localhost
DefaultRuntimeDir ${rig.dir}
PidFile ${rig.dir}/apache.pid
ErrorLog ${rig.logFile("error.log")}
${Deno.uid() === 0 ? `User ${USER}\nGroup ${USER}` : ""}
Listen 127.0.0.1:${port}
${text.replace(/mod_mime\.so/, "$&\nTypesConfig mime.types")}
`,
  );
}

/** Writes a script. */
function script(rig: Rig, name: string): string {
  const path = rig.write(name, HELLO);
  Deno.chmodSync(path, 0o755);
  return path;
}

/** Starts Apache with a configuration. @returns The status and text of its response, and its log. */
async function visit(
  rig: Rig,
  text: string,
  path: string,
): Promise<{ status: number; text: string; log: string }> {
  const { port } = await rig.serve("apache2", ["port"], ({ port }) => {
    return ["apache2", ["-DFOREGROUND", "-f", write(rig, text, port)]];
  });
  rig.takeLog();
  const fields = [["Authorization", "Basic YTpi"]];
  const response = await request(`127.0.0.1:${port}`, "GET", path, { fields });
  await rig.stop(rig.program("apache2"));
  return { status: response.status, text: response.text, log: rig.takeLog() };
}

/** Adds to a configuration what a finding says. */
function mendAs({ stdout }: Diagnosis, config: string): string {
  const [, folder, line] = /Write in <Directory "(.*)">: (.*)$/m.exec(stdout) ?? [];
  if (line !== undefined) {
    return `${config}\n<Directory "${folder}">\n${line}\n</Directory>`;
  }
  const [, section] = /Write: (<Location .*<\/Location>), on three lines$/m.exec(stdout) ?? [];
  if (section !== undefined) {
    return `${config}\n${section.replace("> ", ">\n").replace(" <", "\n<")}`;
  }
  const [, whole] = /Write: (.*)$/m.exec(stdout) ?? [];
  assert(whole !== undefined, stdout);
  return `${config}\n${whole.replace("modules/", `${MODULES}/`)}`;
}

type Id = keyof typeof APACHE_FINDINGS | keyof typeof APACHE_SCRIPT_FINDINGS;

/** Makes a fault and mends it as doctor says. */
async function check(
  rig: Rig,
  id: Id,
  { args, path, config, status, log, says, mend }: {
    /** Further arguments of doctor. */
    args: string[];
    /** What is requested. */
    path: string;
    config: string;
    status: number;
    /** A part of Apache's log. */
    log?: string;
    says?: string;
    /** Mends the fault. @returns The configuration. Default: what the finding says is added. */
    mend?: (diagnosis: Diagnosis) => string;
  },
): Promise<void> {
  tested.add(id);
  const broken = await visit(rig, config, path);
  assertEquals(broken.status, status, broken.log);
  assert(!broken.text.startsWith("Hello Basic"), broken.text);
  assertStringIncludes(broken.log, log ?? "");
  const conf = ["--conf", `${rig.dir}/apache2.conf`, ...args];
  const before = await doctor("apache", ...conf);
  assertEquals([before.code, before.ids], [1, [id]], before.stdout);
  assertStringIncludes(before.stdout, says ?? "");
  const mended = mend?.(before) ?? mendAs(before, config);
  const after = await visit(rig, mended, path);
  assertEquals([after.status, after.text.slice(0, 5)], [200, "Hello"], after.log + after.text);
  const healthy = await doctor("apache", ...conf);
  assertEquals([healthy.code, healthy.ids], [0, []], healthy.stdout);
}

/** Registers a test of a script that Apache does not run. */
function testScript(
  name: string,
  id: keyof typeof APACHE_SCRIPT_FINDINGS,
  options: {
    /** The script below the rig. */
    file?: string;
    path?: string;
    config: (dir: string) => string;
    htaccess?: string;
    status: number;
    log?: string;
    says?: string;
    needs?: Record<string, string>;
    mend?: (diagnosis: Diagnosis, config: string, rig: Rig) => string;
    prepare?: (rig: Rig) => void;
  },
): void {
  const { file = "www/hello.cgi", needs = {}, mend } = options;
  testWith({ ...APACHE, ...needs }, `doctor apache finds ${name}`, async () => {
    await using rig = new Rig();
    const path = script(rig, file);
    options.prepare?.(rig);
    if (options.htaccess !== undefined) rig.write("www/.htaccess", options.htaccess);
    const config = options.config(rig.dir);
    await check(rig, id, {
      args: ["--script", path],
      path: options.path ?? "/hello.cgi",
      config,
      status: options.status,
      log: options.log,
      says: options.says,
      mend: mend && ((diagnosis) => mend(diagnosis, config, rig)),
    });
  });
}

const CGI = `${BASIC}\n${load("cgid")}\n${ROOT}\nScriptSock cgisock`;
const docroot = (dir: string) => `DocumentRoot ${dir}/www`;

testScript("a module of CGI that is not enabled, as on Debian", "cgi-module", {
  file: "lib/cgi-bin/hello.cgi",
  path: "/cgi-bin/hello.cgi",
  needs: { a2enmod: "apache2" },
  prepare(rig) {
    for (const name of ["cgid.load", "cgid.conf"]) {
      const text = name === "cgid.load" ? load("cgid") : "ScriptSock cgisock";
      rig.write(`mods-available/${name}`, `${text}\n`);
    }
    rig.write("mods-enabled/.empty", "");
  },
  config: (dir) =>
    `${BASIC}
IncludeOptional mods-enabled/*.load
IncludeOptional mods-enabled/*.conf
DocumentRoot ${dir}/www
${ROOT}
<IfModule mod_cgi.c>
  Define ENABLE_CGI_BIN
</IfModule>
<IfModule mod_cgid.c>
  Define ENABLE_CGI_BIN
</IfModule>
<IfDefine ENABLE_CGI_BIN>
  ScriptAlias /cgi-bin/ ${dir}/lib/cgi-bin/
</IfDefine>`,
  status: 404,
  says: "sudo a2enmod cgid && sudo systemctl restart apache2",
  mend(_diagnosis, config, rig) {
    const { success, stdout } = new Deno.Command("a2enmod", {
      args: ["cgid"],
      env: { APACHE_CONFDIR: rig.dir, APACHE_ENVVARS: "/dev/null" },
    }).outputSync();
    assert(success, new TextDecoder().decode(stdout));
    return config;
  },
});

testScript("a module of CGI whose line is a comment", "cgi-module", {
  prepare: (rig) => rig.write("modules.d/01-cgi.conf", `# CGI\n#${load("cgid")}\n`),
  config: (dir) =>
    `${BASIC}
Include modules.d/*.conf
<IfModule cgid_module>
ScriptSock cgisock
</IfModule>
${ROOT}
ScriptAlias / ${dir}/www/`,
  status: 200,
  says: "as line 2 of ",
  mend({ line }, config) {
    assert(line !== undefined);
    assert(new Deno.Command("sh", { args: ["-c", line] }).outputSync().success, line);
    return config;
  },
});

testScript("a module of CGI that nothing loads", "cgi-module", {
  config: (dir) => `${BASIC}\n${ROOT}\nScriptAlias / ${dir}/www/`,
  status: 200,
  mend: (diagnosis, config) => `${mendAs(diagnosis, config)}\nScriptSock cgisock`,
});

testScript("a missing mod_fcgid", "fcgid-module", {
  file: "www/hello.fcgi",
  path: "/hello.fcgi",
  needs: { [`${MODULES}/mod_fcgid.so`]: "libapache2-mod-fcgid" },
  config: (dir) =>
    `${CGI}\n${docroot(dir)}
<Directory ${dir}/www>
Options +ExecCGI
AddHandler fcgid-script .fcgi
</Directory>`,
  status: 200,
  says: "libapache2-mod-fcgid",
  mend(_diagnosis, config, rig) {
    Deno.writeTextFileSync(
      `${rig.dir}/www/hello.fcgi`,
      `#!/usr/bin/env -S ${rig.bin}/deno run --no-prompt --no-config --allow-env
import { serve } from "${rig.root}/mod.ts";
await serve(() => new Response("Hello"));
`,
    );
    return `${config}\n${load("fcgid")}
FcgidIPCDir ${rig.dir}/cache
FcgidProcessTableFile ${rig.dir}/cache/fcgid_shm
FcgidInitialEnv DENO_DIR ${rig.dir}/cache`;
  },
});

testScript("a script that no URL leads to", "no-alias", {
  file: "elsewhere/hello.cgi",
  path: "/cgi-bin/hello.cgi",
  config: (dir) => `${CGI}\n${docroot(dir)}`,
  status: 404,
});

testScript("a script that no URL leads to, where /cgi-bin/ is another folder", "no-alias", {
  file: "elsewhere/hello.cgi",
  path: "/elsewhere/hello.cgi",
  config: (dir) => `${CGI}\n${docroot(dir)}\nScriptAlias /cgi-bin/ ${dir}/www/`,
  status: 404,
});

testScript("a folder that is not granted", "not-granted", {
  path: "/cgi-bin/hello.cgi",
  config: (dir) =>
    `${BASIC}\n${load("cgid")}\nScriptSock cgisock
<Directory />
Require all denied
</Directory>
ScriptAlias /cgi-bin/ ${dir}/www/`,
  status: 403,
  log: "AH01630: client denied by server configuration",
});

testScript("a name without a handler", "no-handler", {
  config: (dir) =>
    `${CGI}\n${docroot(dir)}
<Directory ${dir}/www>
Options +ExecCGI
AddHandler cgi-script .pl
</Directory>`,
  status: 200,
});

testScript("a folder without ExecCGI", "no-exec", {
  config: (dir) =>
    `${CGI}\n${docroot(dir)}
<Directory ${dir}>
Options +ExecCGI
</Directory>
<Directory ${dir}/www>
Options FollowSymLinks
AddHandler cgi-script .cgi
</Directory>`,
  status: 403,
  log: "Options ExecCGI is off in this directory",
});

testScript("a .htaccess that Apache ignores", "override", {
  htaccess: "Options +ExecCGI\nAddHandler cgi-script .cgi\n",
  config: (dir) =>
    `${CGI}\n${docroot(dir)}\n<Directory "${dir}/">\nAllowOverride None\n</Directory>`,
  status: 200,
  says: "AllowOverride FileInfo Options=ExecCGI",
});

testScript("a .htaccess where AllowOverride is not set", "override", {
  htaccess: "Options +ExecCGI\nAddHandler cgi-script .cgi\n",
  config: (dir) => `${CGI}\n${docroot(dir)}`,
  status: 500,
  log: "not allowed here",
});

testScript("a .htaccess with more than it may have", "override", {
  htaccess: "Options +ExecCGI\nAddHandler cgi-script .cgi\n",
  config: (dir) =>
    `${CGI}\n${docroot(dir)}\n<Directory ${dir}/www>\nAllowOverride FileInfo\n</Directory>`,
  status: 500,
  log: "Options not allowed here",
});

testWith(APACHE, "doctor apache: one site that runs a script is enough", async () => {
  await using rig = new Rig();
  const path = script(rig, "www/hello.cgi");
  const port = freePort();
  const config = `${CGI}
<VirtualHost *:1>
DocumentRoot ${rig.dir}/none
</VirtualHost>
<VirtualHost 127.0.0.1:${port}>
${docroot(rig.dir)}
<Directory "${rig.dir}/ww?">
  <Files *.cgi>
    SetHandler cgi-script
  </Files>
  Options -Indexes \\
    +ExecCGI
</Directory>
</VirtualHost>
Listen 127.0.0.1:${port}`;
  const { code, stdout } = await doctor(
    ...["apache", "--conf", write(rig, config), "--script", path],
  );
  assertEquals(code, 0, stdout);
  assertStringIncludes(stdout, `doctor ${path} --user ${USER}`);
  const program = await rig.serve("apache2", [], () => {
    return ["apache2", ["-DFOREGROUND", "-f", write(rig, config, freePort())]];
  });
  assert(program);
  await untilListens(port);
  const { status, text } = await request(`127.0.0.1:${port}`, "GET", "/hello.cgi");
  assertEquals([status, text], [200, "Hello "]);
});

async function untilListens(port: number): Promise<void> {
  await eventually(`Apache listens on port ${port}`, async () => {
    try {
      (await Deno.connect({ hostname: "127.0.0.1", port })).close();
      return true;
    } catch {
      return false;
    }
  });
}

const PROXY = { ...APACHE, [`${MODULES}/mod_proxy_fcgi.so`]: "apache2-bin" };
const PROXIES = `${BASIC}\n${load("proxy", "proxy_fcgi", "proxy_scgi", "proxy_http")}\n${ROOT}`;
const AUTH = '<Location "/">\nCGIPassAuth On\n</Location>';

/** Makes a fault of a daemon. */
async function checkDaemon(
  rig: Rig,
  id: keyof typeof APACHE_FINDINGS,
  options: { config: string; status: number; log?: string; says?: string; mended?: string },
  mend?: (diagnosis: Diagnosis) => void,
): Promise<void> {
  tested.add(id);
  const { config, status, log, says, mended } = options;
  const broken = await visit(rig, config, "/");
  assertEquals(broken.status, status, broken.log);
  assertStringIncludes(broken.log, log ?? "");
  const conf = ["apache", "--conf", `${rig.dir}/apache2.conf`];
  const before = await doctor(...conf);
  assertEquals([before.code, before.ids], [1, [id]], before.stdout);
  assertStringIncludes(before.stdout, says ?? "");
  mend?.(before);
  const after = await visit(rig, mended ?? (mend ? config : mendAs(before, config)), "/");
  assertEquals(after.status, 200, after.log);
  const healthy = await doctor(...conf);
  assertEquals([healthy.code, healthy.ids], [0, []], healthy.stdout);
}

testWith(PROXY, "doctor apache finds a module of proxies that is not loaded", async () => {
  await using rig = new Rig();
  const address = await rig.daemon("fastcgi", "127.0.0.1:0");
  await checkDaemon(rig, "proxy-module", {
    config: `${BASIC}\n${load("proxy")}\n${ROOT}\nProxyPass / fcgi://${address}/\n${AUTH}`,
    status: 500,
    log: "AH01144: No protocol handler was valid for the URL",
  });
});

testWith(PROXY, "doctor apache finds nothing that listens, no socket, and its mode", async () => {
  await using rig = new Rig();
  const address = await rig.daemon("fastcgi", "127.0.0.1:0");
  const site = (target: string) => `${PROXIES}\nProxyPass / ${target}\n${AUTH}`;
  await checkDaemon(rig, "refused", {
    config: site(`fcgi://127.0.0.1:${freePort()}/`),
    status: 503,
    log: "Connection refused",
    mended: site(`fcgi://${address}/`),
  });
  await rig.daemon("fastcgi", `unix:${rig.dir}/app.sock`);
  Deno.chmodSync(`${rig.dir}/app.sock`, 0o777);
  await checkDaemon(rig, "no-socket", {
    config: site(`unix:${rig.dir}/none.sock|fcgi://localhost/`),
    status: 503,
    log: "No such file or directory",
    mended: site(`unix:${rig.dir}/app.sock|fcgi://localhost/`),
  });
  Deno.chmodSync(`${rig.dir}/app.sock`, 0o000);
  await checkDaemon(rig, "socket-denied", {
    config: site(`unix:${rig.dir}/app.sock|fcgi://localhost/`),
    status: 503,
    log: "Permission denied",
  }, () => Deno.chmodSync(`${rig.dir}/app.sock`, 0o777));
});

testWith(PROXY, "doctor apache finds a folder of files that Apache may not enter", async () => {
  await using rig = new Rig();
  const address = await rig.daemon("fastcgi", "127.0.0.1:0");
  tested.add("files-denied");
  const [home, folder] = [`${rig.dir}/home`, `${rig.dir}/home/project/public`];
  rig.write("home/project/public/style.css", "h1 {}");
  const config = `${PROXIES}\n${load("rewrite")}
RewriteEngine On
RewriteCond "${folder}%{REQUEST_URI}" -f
RewriteRule ^ "${folder}%{REQUEST_URI}" [E=no-proxy:1,END]
<Directory ${folder}>
Require all granted
</Directory>
ProxyPass / fcgi://${address}/
${AUTH}`;
  const conf = ["apache", "--conf", `${rig.dir}/apache2.conf`];
  Deno.chmodSync(home, 0o600);
  try {
    assert((await visit(rig, config, "/style.css")).text !== "h1 {}");
    const before = await doctor(...conf);
    assertEquals([before.code, before.ids], [1, ["files-denied"]], before.stdout);
    assertStringIncludes(before.stdout, `${USER} may not enter ${home}, so that no file of`);
  } finally {
    Deno.chmodSync(home, 0o755);
  }
  assertEquals((await visit(rig, config, "/style.css")).text, "h1 {}");
  const after = await doctor(...conf);
  assertEquals([after.code, after.ids], [0, []], after.stdout);
});

testWith(PROXY, "doctor apache finds another protocol, of a balancer's member, too", async () => {
  await using rig = new Rig();
  const scgi = await rig.daemon("scgi", "127.0.0.1:0");
  await checkDaemon(rig, "protocol", {
    config: `${PROXIES}\n${load("proxy_balancer", "lbmethod_byrequests", "slotmem_shm")}\n${AUTH}
<Proxy balancer://app>
BalancerMember fcgi://${scgi}
</Proxy>
ProxyPass / balancer://app/`,
    status: 503,
    log: "AH01068: Got bogus version 83",
    says: `ProxyPass / scgi://${scgi}/`,
    mended: `${PROXIES}\n${AUTH}\nProxyPass / scgi://${scgi}/`,
  });
});

testWith(PROXY, "doctor apache finds that Authorization is not passed on", async () => {
  await using rig = new Rig();
  const address = await rig.daemon("fastcgi", "127.0.0.1:0");
  const config = `${PROXIES}\nProxyPass /app fcgi://${address}/app`;
  tested.add("authorization");
  const seen = async (config: string) => {
    const { text } = await visit(rig, config, "/app/see");
    return JSON.parse(text).headers.authorization;
  };
  assertEquals(await seen(config), undefined);
  const before = await doctor("apache", "--conf", `${rig.dir}/apache2.conf`);
  assertEquals([before.code, before.ids], [1, ["authorization"]], before.stdout);
  assertEquals(await seen(mendAs(before, config)), "Basic YTpi");
  const after = await doctor("apache", "--conf", `${rig.dir}/apache2.conf`);
  assertEquals([after.code, after.ids], [0, []], after.stdout);
});

for (
  const [name, text, message] of [
    ["a section that does not end", "<Directory />\n", "<directory> does not end"],
    ["a section that did not begin", "</Directory>\n", "</directory> without <directory>"],
    ["sections that overlap", "<Directory />\n<Files a>\n</Directory>\n</Files>", "</directory>"],
  ]
) {
  Deno.test(`doctor apache reports ${name}`, async () => {
    const file = await Deno.makeTempFile();
    await Deno.writeTextFile(file, text);
    try {
      assertThrows(() => readApacheConfig(file), Error, message);
    } finally {
      await Deno.remove(file);
    }
  });
}

testWith(
  { ...PROXY, [`${MODULES}/mod_fcgid.so`]: "libapache2-mod-fcgid" },
  "doctor apache: each kind of finding has a test",
  () => {
    const ids = [...Object.keys(APACHE_FINDINGS), ...Object.keys(APACHE_SCRIPT_FINDINGS)];
    assertEquals(ids.filter((id) => !tested.has(id)), []);
  },
);
