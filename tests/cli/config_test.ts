import { assertEquals, assertStringIncludes } from "@std/assert";
import { fetchFastCGI } from "../../gateway.ts";
import { SPECIFIER } from "../../cli/version.ts";
import { PAGE, writeConfigurations } from "../../scripts/docs.ts";
import { callCommandLine, importMapFlags, runCommandLine } from "../testing/command_line.ts";
import { Program, ROOT } from "../testing/daemon.ts";
import { deadline } from "../testing/deadline.ts";
import { freePort } from "../testing/free_port.ts";
import { find, testWith } from "../testing/needs.ts";

async function config(...args: string[]): Promise<string> {
  const { code, stdout, stderr } = await callCommandLine("config", ...args);
  assertEquals([code, stderr], [0, ""]);
  return stdout;
}

const APACHE_MODULES = "/usr/lib/apache2/modules";

/** The check of a server's configuration: the surrounding text and the command. */
interface Check {
  needs: Record<string, string>;
  wrap?(config: string, directory: string): string;
  command(file: string, directory: string): string[];
}

const CHECKS: Record<string, Check> = {
  nginx: {
    needs: { nginx: "nginx-light", "/etc/nginx/fastcgi_params": "nginx-common" },
    wrap(config, directory) {
      for (const name of ["fastcgi_params", "scgi_params"]) {
        Deno.copyFileSync(`/etc/nginx/${name}`, `${directory}/${name}`);
      }
      return `pid ${directory}/nginx.pid;\nevents {}\nhttp {\n${config}\n}\n`;
    },
    command: (file, directory) => ["nginx", "-t", "-e", `${directory}/error.log`, "-c", file],
  },
  apache: {
    needs: { apache2: "apache2", [`${APACHE_MODULES}/mod_proxy_fcgi.so`]: "apache2-bin" },
    wrap: (config, directory) =>
      "authz_core mpm_event proxy proxy_fcgi proxy_scgi rewrite headers".split(" ").map((name) =>
        `LoadModule ${name}_module ${APACHE_MODULES}/mod_${name}.so\n`
      ).join("") + `ServerName localhost
ServerRoot ${directory}
DefaultRuntimeDir ${directory}
PidFile ${directory}/apache.pid
ErrorLog ${directory}/error.log
${config}`,
    command: (file) => ["apache2", "-t", "-f", file],
  },
  lighttpd: {
    needs: { lighttpd: "lighttpd" },
    wrap: (config, directory) =>
      `server.bind = "127.0.0.1"\nserver.port = ${freePort()}\nserver.document-root = "${directory}"\n${config}`,
    command: (file) => ["lighttpd", "-tt", "-f", file],
  },
  caddy: {
    needs: { caddy: "caddy" },
    command: (file) => ["caddy", "validate", "--adapter", "caddyfile", "--config", file],
  },
  haproxy: {
    needs: { haproxy: "haproxy" },
    command: (file) => ["haproxy", "-c", "-f", file],
  },
  h2o: {
    needs: { h2o: "h2o" },
    command: (file) => ["h2o", "-m", "test", "-c", file],
  },
};

/** Files in front of the app. tests/servers/files_test.ts has one folder that never changes, and HTTPS. */
const FILES = ["--root", "/srv/www", "--immutable", "/_app/immutable", "--immutable", "/assets"];

const VARIANTS: Record<string, string[][]> = {
  nginx: [
    [...FILES, "--protocol", "scgi", "--name", "1-app.org"],
    [...FILES, "--path", "/app", "--server-name", "a.example", "--server-name", "b.example"],
    [],
    ["--path", "/app", "--backend", "unix:/run/app.sock"],
    ["--path", "/app", "--name", "1-app.org"],
    ["--server-name", "example.org", "--server-name", "www.example.org"],
    ["--backend", "10.0.0.5:9000", "--backend", "10.0.0.6:9000", "--backend", "[::1]:9000"],
    ["--protocol", "scgi"],
    ["--protocol", "scgi", "--backend", "10.0.0.5:4000", "--backend", "unix:/run/app.sock"],
  ],
  apache: [
    [...FILES, "--protocol", "scgi", "--name", "1-app.org"],
    [...FILES, "--path", "/app", "--server-name", "a.example", "--server-name", "b.example"],
    [],
    ["--path", "/app", "--backend", "unix:/run/app.sock"],
    ["--protocol", "scgi", "--backend", "[::1]:4000"],
  ],
  lighttpd: [
    [...FILES, "--protocol", "scgi", "--name", "1-app.org"],
    [...FILES, "--path", "/app", "--server-name", "a.example", "--server-name", "b.example"],
    [],
    ["--path", "/app", "--backend", "unix:/run/app.sock"],
    ["--protocol", "scgi"],
    ["--backend", "127.0.0.1:9000", "--backend", "10.0.0.6:9000"],
  ],
  caddy: [
    [...FILES, "--path", "/app", "--server-name", "a.example", "--server-name", "b.example"],
    [],
    ["--path", "/app", "--backend", "unix:/run/app.sock"],
    ["--backend", "10.0.0.5:9000", "--backend", "10.0.0.6:9000"],
  ],
  haproxy: [
    [],
    ["--server-name", "example.org", "--server-name", "www.example.org", "--path", "/app"],
    ["--path", "/app", "--backend", "unix:/run/app.sock"],
    ["--backend", "10.0.0.5:9000", "--backend", "10.0.0.6:9000", "--backend", "[::1]:9000"],
  ],
  h2o: [
    [],
    ["--path", "/app", "--backend", "unix:/run/app.sock"],
    [...FILES, "--path", "/app", "--server-name", "a.example", "--server-name", "b.example"],
  ],
};

for (const [server, { needs, wrap, command }] of Object.entries(CHECKS)) {
  for (const variant of VARIANTS[server]) {
    testWith(
      needs,
      `config ${[server, ...variant].join(" ")} passes the server's check`,
      async () => {
        const directory = await Deno.makeTempDir();
        const text = await config(server, "--listen", `127.0.0.1:${freePort()}`, ...variant);
        const file = `${directory}/config`;
        await Deno.writeTextFile(file, wrap?.(text, directory) ?? text);
        const [program, ...args] = command(file, directory);
        const env = { HOME: directory, XDG_CONFIG_HOME: directory, XDG_DATA_HOME: directory };
        const { code, stdout, stderr } = await new Deno.Command(find(program)!, { args, env })
          .output();
        const output = new TextDecoder().decode(new Uint8Array([...stdout, ...stderr]));
        assertEquals(code, 0, `${output}\n${text}`);
        await Deno.remove(directory, { recursive: true });
      },
    );
  }
}

/** Splits the output of `config systemd` into units by name. */
function unitsOf(text: string): Record<string, string> {
  const parts = text.split(/^# \/etc\/systemd\/system\/(.+)\n/m).slice(1);
  return { [parts[0]]: parts[1], [parts[2]]: parts[3] };
}

for (
  const variant of [
    [],
    ["--workers", "2"],
    ["--listen", "unix:/run/app.sock", "--path", "/app"],
    ["--data", "--env-file", "/etc/app.env", "--app", "/home/ann/app/main.ts"],
  ]
) {
  testWith(
    { "systemd-analyze": "systemd" },
    `config ${["systemd", ...variant].join(" ")} passes systemd-analyze verify`,
    async () => {
      const directory = await Deno.makeTempDir();
      const units = unitsOf(await config("systemd", "--name", "site", ...variant));
      assertEquals(Object.keys(units), ["site.socket", "site.service"]);
      const files = Object.entries(units).map(([name, text]) => {
        Deno.writeTextFileSync(`${directory}/${name}`, text);
        return `${directory}/${name}`;
      });
      const { code, stderr } = await new Deno.Command("systemd-analyze", {
        args: ["verify", "--man=no", ...files],
      }).output();
      const output = new TextDecoder().decode(stderr).split("\n")
        .filter((line) => line.includes(directory) || line.includes("site."));
      assertEquals([code, output], [0, []]);
      await Deno.remove(directory, { recursive: true });
    },
  );
}

testWith(
  { "systemd-analyze": "systemd" },
  "config systemd names the config and a copy of the lock file of the app",
  async () => {
    const folder = await Deno.makeTempDir();
    await Deno.mkdir(`${folder}/src`);
    await Deno.writeTextFile(`${folder}/deno.json`, "{}");
    await Deno.writeTextFile(`${folder}/deno.lock`, "{}");
    const args = ["config", "systemd", "--app", `${folder}/src/app.ts`];
    const { stdout } = await runCommandLine(args, [`--allow-read=${folder}`]);
    const { "app.socket": socket, "app.service": service } = unitsOf(stdout);
    const lines = (name: string) =>
      [...service.matchAll(new RegExp(`^${name}=(.*)$`, "gm"))].map(([, value]) => value);
    assertEquals(lines("WorkingDirectory"), [folder]);
    const [copy, cache] = lines("ExecStartPre");
    assertEquals(copy, `cp ${folder}/deno.lock %C/app/deno.lock`);
    const flags = `--config=${folder}/deno.json --lock=%C/app/deno.lock --frozen=false`;
    assertStringIncludes(cache, ` cache ${flags} `);
    assertStringIncludes(lines("ExecStart")[0], ` ${flags} --allow-env --allow-read=${folder} `);
    await Deno.writeTextFile(`${folder}/app.socket`, socket);
    await Deno.writeTextFile(`${folder}/app.service`, service);
    const verify = ["verify", "--man=no", `${folder}/app.socket`, `${folder}/app.service`];
    const { stderr } = await new Deno.Command("systemd-analyze", { args: verify }).output();
    const complaints = new TextDecoder().decode(stderr).split("\n")
      .filter((line) => line.includes(folder) || line.includes("app."));
    assertEquals(complaints, []);
    await Deno.remove(folder, { recursive: true });
  },
);

Deno.test("config systemd rejects a lock file whose name has a meaning in units", async () => {
  const folder = await Deno.makeTempDir();
  await Deno.writeTextFile(`${folder}/deno.json`, `{ "lock": "./a\\nExecStart=b" }`);
  await Deno.writeTextFile(`${folder}/a\nExecStart=b`, "");
  const args = ["config", "systemd", "--app", `${folder}/app.ts`];
  const { code, stderr } = await runCommandLine(args, [`--allow-read=${folder}`]);
  assertStringIncludes(stderr, "The app's lock file must be an absolute path without spaces");
  assertEquals(code, 2);
  await Deno.remove(folder, { recursive: true });
});

for (const workers of [[], ["--workers", "2"]]) {
  testWith(
    { "systemd-socket-activate": "systemd" },
    `config ${["systemd", ...workers].join(" ")} runs under systemd-socket-activate`,
    async () => {
      const app = `${ROOT}examples/hello.ts`;
      // In a process of its own, as the unit has the flags of the command line's.
      const { stdout } = await runCommandLine(["config", "systemd", "--app", app, ...workers]);
      const units = unitsOf(stdout);
      const [, line] = /^ExecStart=(.*)$/m.exec(units["app.service"])!;
      // examples/hello.ts imports mod.ts, which is outside of its folder.
      const words = line.replace(`${ROOT}examples`, ROOT).split(" ")
        .flatMap((word) => word === SPECIFIER ? [...importMapFlags(), `${ROOT}cli.ts`] : [word]);
      assertStringIncludes(line, SPECIFIER);
      const address = `127.0.0.1:${freePort()}`;
      await using program = new Program("systemd-socket-activate", {
        args: [
          "-l",
          address,
          ...["PATH", "HOME"].flatMap((name) => ["-E", name]),
          // Same as StandardInput=socket.
          ...(workers.length > 0 ? ["/bin/sh", "-c", `exec "$@" <&3 3<&-`, "sh"] : []),
          ...words,
        ],
      });
      await program.says("Listening on");
      const response = await deadline(fetchFastCGI("http://localhost/", address), "the response");
      assertEquals(await response.text(), "Hello from Gatehouse\n");
    },
  );
}

Deno.test("docs/servers.md shows what config prints; if not, run: deno task docs", async () => {
  const page = await Deno.readTextFile(PAGE);
  assertEquals(page, writeConfigurations(page));
});

Deno.test("config explains in its first lines how to start the app", async () => {
  const text = await config(
    ...["nginx", "--backend", "10.0.0.5:9000", "--backend", "unix:/run/b.sock"],
    ...["--path", "/app", "--app", "/srv/shop/main.ts", "--workers", "4"],
  );
  assertStringIncludes(
    text,
    `# The app. On Fedora with --group nginx:
#   gatehouse serve /srv/shop/main.ts --protocol fastcgi --listen 10.0.0.5:9000 --base-path /app --workers 4 --allow-remote
#   gatehouse serve /srv/shop/main.ts --protocol fastcgi --listen unix:/run/b.sock --group www-data --base-path /app --workers 4
`,
  );
});

for (
  const [name, ...names] of [
    ["nginx", "/etc/nginx/conf.d/app.conf", "On Fedora with --group nginx"],
    ["apache", "/etc/httpd/conf.d/app.conf", "reload httpd", "On Fedora with --group apache"],
    ["lighttpd", "/etc/lighttpd/conf.d/app.conf", "On Fedora with --group lighttpd"],
    ["caddy", "--group caddy"],
    ["haproxy", "--group haproxy"],
    ["h2o", "On Fedora: nobody", "On Fedora with --group nobody"],
    ["systemd", "On Fedora: apache, nginx or lighttpd"],
  ]
) {
  Deno.test(`config ${name} names Fedora's paths and groups beside Debian's`, async () => {
    const text = await config(name, "--backend", "unix:/run/app.sock");
    for (const name of names) assertStringIncludes(text, name);
  });
}

const MISTAKES: [args: string[], message: string][] = [
  [[], "Name what to configure, as in: config nginx"],
  [["ngnix"], `There is no configuration of "ngnix". Did you mean nginx?`],
  [["iis"], "There are nginx, apache, lighttpd, caddy, haproxy, h2o, systemd, busybox"],
  [["busybox", "-b", ":1"], "systemd: busybox does not take it."],
  [["uwsgi", "--workers", "2"], "systemd: uwsgi does not take it."],
  [["mini_httpd", "--app", "/srv/app/app.ts"], "--app must be a script in a folder cgi-bin"],
  [["busybox", "--app", "/cgi-bin/app.ts"], "--app must be a script in a folder cgi-bin"],
  [["nginx", "apache"], "One configuration is printed"],
  [["caddy", "-p", "scgi"], "caddy does not support SCGI: use --protocol fastcgi."],
  [["apache", "-b", ":1", "-b", ":2"], "apache takes one --backend here"],
  [["nginx", "-l", "unix:/run/web.sock"], "--listen must be host:port"],
  [["nginx", "--path", "app"], "--path must be such as /app"],
  [["nginx", "--path", "/a;b"], "--path must be such as /app"],
  [["nginx", "--name", "a b"], "--name must be letters"],
  [["nginx", "--server-name", "a;b"], "--server-name must be a name such as example.org"],
  [["haproxy", "--server-name", "a", "--server-name=-i"], `current value is "-i"`],
  [
    ["systemd", "--server-name", "a"],
    "--server-name is for nginx, apache, lighttpd, caddy, haproxy",
  ],
  [
    ["haproxy", "--root", "/srv"],
    "--root is for nginx, apache, lighttpd, caddy, h2o: haproxy does",
  ],
  [["nginx", "--htaccess"], "--htaccess is for apache: nginx does not take it."],
  [["nginx", "--data"], "--data is for systemd: nginx does not take it."],
  [["nginx", "--root", "public"], "--root must be an absolute path without spaces"],
  [["nginx", "--immutable", "/assets"], "--immutable is a folder in --root: add that."],
  [
    ["nginx", "--root", "/srv", "--immutable", "assets"],
    "--immutable must be such as /_app/immutable",
  ],
  [["nginx", "--redirect-https"], "--redirect-https needs the name of the certificate"],
  [["nginx", "--domain", "example.org"], "Use --server-name example.org"],
  [["nginx", "-b", "unix:app.sock"], "unix: and an absolute path without spaces"],
  [["nginx", "-b", "unix:/run/a;b"], "unix: and an absolute path without spaces"],
  [["systemd", "--app", "app.ts"], "--app must be an absolute path"],
  [["systemd", "--workers", "many"], "--workers must be a number from 1"],
];
for (const [args, message] of MISTAKES) {
  Deno.test(`config explains how to correct: ${args.join(" ")}`, async () => {
    const { code, stderr } = await callCommandLine("config", ...args);
    assertStringIncludes(stderr, message);
    assertEquals(code, 2);
  });
}
