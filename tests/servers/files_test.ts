/** Sites with files in front of the app, as `config` prints them. */
import { assertEquals, assertMatch } from "@std/assert";
import { apacheConfig, MODULES } from "./apache.ts";
import { caddyOptions } from "./caddy.ts";
import { Certificate } from "./certificate.ts";
import { request } from "./client.ts";
import { configuration, type Rig, Suite } from "./harness.ts";
import { nginxCommand } from "./nginx.ts";

/** A web server whose sites are tested. */
interface WebServer {
  needs: Record<string, string>;
  /** What HTTPS needs besides. */
  needsTLS?: Record<string, string>;
  /** Returns the command line that runs a configuration of `config`. */
  command(rig: Rig, config: string, name: string): [command: string, args: string[]];
  /** Returns the configuration with another address for HTTP than port 80, of its own or that of the redirect. */
  port(config: string, port: number): string;
  options?(rig: Rig): Deno.CommandOptions;
  /** Whether it looks for the index.html of a folder, perhaps after a redirect to the path with a slash. */
  index: boolean | "redirect";
  /** Whether the app gets the paths that are never files. */
  passes: boolean;
  /** Cache-Control of files that never change. */
  immutable: string;
  /** How it redirects the path "/a%2Fb". Default: as it is. */
  slash?: string;
}

const IMMUTABLE = "public, max-age=31536000, immutable";

const SERVERS: Record<string, WebServer> = {
  nginx: {
    needs: { nginx: "nginx-light", "/etc/nginx/fastcgi_params": "nginx-common" },
    command: (rig, config) => nginxCommand(rig, [config]),
    port: (config, port) => config.replace("listen 80;", `listen 127.0.0.1:${port};`),
    index: true,
    passes: true,
    immutable: IMMUTABLE,
  },
  apache: {
    needs: { apache2: "apache2", [`${MODULES}/mod_proxy_fcgi.so`]: "apache2-bin" },
    command(rig, config, name) {
      const modules = "mpm_event mime proxy proxy_fcgi rewrite headers socache_shmcb ssl".split(
        " ",
      );
      const text = `${apacheConfig(rig, modules, {})}TypesConfig /etc/mime.types\n${config}`;
      return ["apache2", ["-DFOREGROUND", "-f", rig.write(`apache-${name}.conf`, text)]];
    },
    port: (config, port) =>
      config.replaceAll("*:80", `127.0.0.1:${port}`)
        .replace("<VirtualHost", `Listen 127.0.0.1:${port}\n<VirtualHost`),
    index: true,
    passes: true,
    immutable: IMMUTABLE,
  },
  lighttpd: {
    needs: { lighttpd: "lighttpd" },
    needsTLS: { "/usr/lib/lighttpd/mod_openssl.so": "lighttpd-mod-openssl" },
    command(rig, config, name) {
      // The server's own socket, which no test uses.
      const own = `server.bind = "${rig.dir}/${name}.sock"\nserver.document-root = "${rig.dir}/www"
server.errorlog = "${rig.logFile("error.log")}"\nserver.upload-dirs = ( "${rig.dir}/cache" )
index-file.names = ( "index.html" )\n`;
      return ["lighttpd", ["-D", "-f", rig.write(`lighttpd-${name}.conf`, own + config)]];
    },
    port: (config, port) => config.replace(`== ":80"`, `== "127.0.0.1:${port}"`),
    index: false,
    passes: true,
    immutable: "max-age=31536000",
    slash: "/a/b",
  },
  caddy: {
    needs: { caddy: "caddy" },
    command: (rig, config, name) => [
      "caddy",
      ["run", "--adapter", "caddyfile", "--config", rig.write(`Caddyfile-${name}`, config)],
    ],
    port: (config, port) =>
      // No authority gives the test a certificate.
      config.replace("{\n  servers", `{\n  admin off\n  http_port ${port}\n  servers`)
        .replace(
          /^(https?:\/\/)?localhost:.*\n/m,
          "$&  tls /etc/letsencrypt/live/localhost/fullchain.pem /etc/letsencrypt/live/localhost/privkey.pem\n",
        ),
    options: caddyOptions,
    index: true,
    passes: true,
    immutable: IMMUTABLE,
  },
  h2o: {
    needs: { h2o: "h2o" },
    command(rig, config, name) {
      const own = `error-log: ${rig.logFile("error.log")}\n`;
      const text = Deno.uid() === 0 ? config : config.replace(/^user: .*$/m, "");
      return ["h2o", ["-m", "worker", "-c", rig.write(`h2o-${name}.yaml`, own + text)]];
    },
    port: (config, port) =>
      config.replaceAll(':80"', `:${port}"`).replace(
        "port: 80\n",
        `host: "127.0.0.1"\n      port: ${port}\n`,
      ),
    index: "redirect",
    passes: false,
    immutable: "max-age=31536000",
    slash: "/a/b",
  },
};

/** Files that every site sends. */
const FILES = [
  "robots.txt",
  "page.html",
  "_app/version.json",
  "_app/immutable/chunk.D3adBeef.js",
  "types/mp4.mp4",
];
/** Files that no site sends. */
const NEVER = [
  ".env",
  ".git/config",
  "data/.htpasswd",
  "_app/immutable/.map",
  "src/app.ts",
  "SRC.TS",
  "a.mts",
  "App.svelte",
  "index.php",
  "data.db",
  "data.db-wal",
  "data.sqlite3",
  "page.html~",
  "page.html.bak",
  "error.log",
  "package.json",
  "package-lock.json",
  "deno.jsonc",
  "deno.lock",
];

function writeFiles(rig: Rig): void {
  for (const name of [...FILES, ...NEVER, "folder/index.html", ".well-known/security.txt"]) {
    rig.write(`files/${name}`, `the file ${name}\n`);
  }
}

for (const [name, server] of Object.entries(SERVERS)) {
  for (const path of ["", "/shop"]) {
    const suite = new Suite(
      `files of ${name}${path && ` at ${path}`}`,
      server.needs,
      async (rig) => {
        writeFiles(rig);
        const backend = await rig.daemon("fastcgi", "127.0.0.1:0", path);
        const { port } = await rig.serve(name, ["port"], ({ port }) => {
          const config = configuration(
            ...[name, "--listen", `127.0.0.1:${port}`, "--backend", backend],
            ...["--root", `${rig.dir}/files`, "--immutable", "/_app/immutable"],
            ...(path === "" ? [] : ["--path", path]),
          );
          return server.command(rig, config, "files");
        }, server.options?.(rig));
        return `127.0.0.1:${port}`;
      },
    );
    const get = (host: string, target: string, method = "GET") =>
      request(host, method, path + target);
    const seen = async (host: string, target: string) => {
      const { status, text, head } = await get(host, target);
      assertEquals([target, status, head.get("cache-control")], [target, 200, undefined], text);
      return JSON.parse(text);
    };

    suite.test("sends files, and lets clients keep those that never change", async (host) => {
      for (const file of FILES) {
        const { status, text, head } = await get(host, `/${file}`);
        assertEquals([status, text], [200, `the file ${file}\n`]);
        assertEquals(
          head.get("cache-control"),
          file.startsWith("_app/immutable/") ? server.immutable : undefined,
        );
      }
      const { status, head } = await get(host, "/robots.txt?a=b", "HEAD");
      assertEquals([status, head.get("content-length")], [200, "20"]);
      if (path === "") {
        const { text } = await get(host, "/.well-known/security.txt");
        assertEquals(text, "the file .well-known/security.txt\n");
      }
    });

    suite.test("sends no names that are not meant for browsers", async (host) => {
      const hidden = ["/%2egit/config", "//.git/config", "/.well-known/../.env", "/src/app%2ets"];
      if (path !== "") hidden.push("/.well-known/security.txt");
      for (const target of [...NEVER.map((file) => `/${file}`), ...hidden]) {
        const { status, text, head } = await get(host, target);
        assertEquals([target, text.includes("the file")], [target, false]);
        assertEquals([target, status], [target, server.passes ? 200 : 404]);
        if (server.passes) assertEquals(new URL(JSON.parse(text).url).host, host);
        assertEquals(head.get("cache-control"), undefined);
      }
    });

    suite.test("passes what is no file to the app", async (host) => {
      for (
        const target of [
          "/",
          "/cafe/x?q=1&r=2",
          "/_app/other.js",
          "/caf%C3%A9/%20x",
          "/wellknown/",
          ...(server.index === "redirect" ? [] : ["/types"]),
          "/types/",
        ]
      ) {
        const { url, scriptName } = await seen(host, target);
        assertEquals(url, `http://${host}${target}`);
        if (name !== "lighttpd" && name !== "apache") assertEquals(scriptName, path);
      }
      const { status, text } = await request(host, "POST", `${path}/echo`, {
        body: new TextEncoder().encode("posted"),
      });
      assertEquals([status, text], [200, "posted"]);
    });

    suite.test("a file that never changes and is missing is not kept", async (host) => {
      const { text, head } = await get(host, "/_app/immutable/missing.js");
      assertMatch(text, /"url":/);
      assertEquals(
        head.get("cache-control"),
        name === "h2o" ? server.immutable : undefined,
      );
    });

    suite.test("a folder shows its index.html", async (host) => {
      for (const target of ["/folder", "/folder/"]) {
        const { text, status } = await get(host, target);
        if (server.index === "redirect" && !target.endsWith("/")) assertEquals(status, 301);
        else if (server.index) assertEquals(text, "the file folder/index.html\n");
        else assertMatch(text, /"url":/);
      }
    });
  }

  testHTTPS(name, server, ["--root", "FILES"]);
}

const HAPROXY: Pick<WebServer, "needs" | "command" | "port"> = {
  needs: { haproxy: "haproxy" },
  command(rig, config) {
    const pem = ["fullchain", "privkey"]
      .map((name) => Deno.readTextFileSync(`${rig.dir}/live/${name}.pem`)).join("");
    const text = config.replaceAll("/etc/haproxy/localhost.pem", rig.write("localhost.pem", pem));
    return ["haproxy", ["-db", "-f", rig.write("haproxy.cfg", text)]];
  },
  port: (config, port) => config.replace("bind *:80", `bind 127.0.0.1:${port}`),
};
testHTTPS("haproxy", HAPROXY);

/** Tests HTTPS, with the options of `config` for it. */
function testHTTPS(
  name: string,
  server: Pick<WebServer, "needs" | "needsTLS" | "command" | "port" | "options" | "slash">,
  more: string[] = [],
): void {
  const secure = new Suite(
    `HTTPS of ${name}`,
    { ...server.needs, ...server.needsTLS, openssl: "openssl" },
    async (rig) => {
      writeFiles(rig);
      const certificate = new Certificate(rig);
      const backend = await rig.daemon("fastcgi", "127.0.0.1:0", "");
      const ports = await rig.serve(name, ["http", "https"], ({ http, https }) => {
        const config = configuration(
          ...[name, "--listen", `127.0.0.1:${https}`, "--backend", backend],
          ...["--server-name", "localhost", "--redirect-https"],
          ...more.map((text) => text.replace("FILES", `${rig.dir}/files`)),
        );
        return server.command(
          rig,
          server.port(config, http)
            .replaceAll("/etc/letsencrypt/live/localhost", certificate.folder)
            .replaceAll("/var/www/html", `${rig.dir}/proof`),
          "https",
        );
      }, server.options?.(rig));
      return { ...ports, certificate };
    },
  );

  secure.test(
    "the app sees HTTPS, and HTTP redirects to it",
    async ({ http, https, certificate }, rig) => {
      using client = certificate.client();
      const { url, variables } = await (await fetch(`https://localhost:${https}/a?b`, { client }))
        .json();
      assertEquals([url, variables.HTTPS], [`https://localhost:${https}/a?b`, "on"]);
      if (more.length > 0) {
        const file = await fetch(`https://localhost:${https}/robots.txt`, { client });
        assertEquals(await file.text(), "the file robots.txt\n");
      }

      const { status, head } = await request(
        `127.0.0.1:${http}`,
        "POST",
        "/caf%C3%A9/a%2Fb?c=%20",
        {
          name: "localhost",
          body: new Uint8Array(1),
        },
      );
      assertEquals(
        [status, head.get("location")],
        [308, `https://localhost:${https}/caf%C3%A9${server.slash ?? "/a%2Fb"}?c=%20`],
      );
      // Caddy proves the name by itself, and with HAProxy certbot needs a port of its own.
      if (name === "caddy" || name === "haproxy") return;
      rig.write("proof/.well-known/acme-challenge/token", "proof");
      const proof = await request(
        `127.0.0.1:${http}`,
        "GET",
        "/.well-known/acme-challenge/token",
        { name: "localhost" },
      );
      assertEquals(proof.text, "proof");
    },
  );
}

for (const path of ["", "/shop"]) {
  const suite = new Suite(
    `.htaccess of apache${path && ` at ${path}`}`,
    { apache2: "apache2", [`${MODULES}/mod_cgid.so`]: "apache2-bin" },
    async (rig) => {
      writeFiles(rig);
      const mount = path === "" ? [] : ["--path", path];
      const script = rig.write(
        "files/app.cgi",
        `#!/usr/bin/env -S ${rig.bin}/deno run --no-prompt --no-config --ext=ts --allow-env
import { serve } from "${rig.root}/mod.ts";
import app from "${rig.root}/tests/servers/app.ts";

await serve(app${path === "" ? "" : `, { basePath: "${path}" }`});
`,
      );
      Deno.chmodSync(script, 0o755);
      const htaccess = (...args: string[]) =>
        configuration("apache", "--htaccess", ...mount, ...args);
      rig.write("files/.htaccess", htaccess("--immutable", "/_app/immutable"));
      rig.write("secure/.htaccess", htaccess("--server-name", "example.org", "--redirect-https"));
      const modules = "mpm_event mime dir alias env cgid rewrite headers".split(" ");
      return await rig.serve("apache2", ["files", "secure"], (ports) => {
        const host = (folder: string) =>
          `SetEnv DENO_DIR ${rig.dir}/cache
${path === "" ? `DocumentRoot ${folder}` : `Alias ${path} ${folder}`}
<Directory ${folder}>
  AllowOverride All
</Directory>`;
        const config = apacheConfig(rig, modules, {
          [ports.files]: host(`${rig.dir}/files`),
          [ports.secure]: host(`${rig.dir}/secure`),
        }) + `ScriptSock ${rig.dir}/cgid.sock\nTypesConfig /etc/mime.types\n`;
        return ["apache2", ["-DFOREGROUND", "-f", rig.write("apache.conf", config)]];
      });
    },
  );
  const get = (port: number, target: string) => request(`127.0.0.1:${port}`, "GET", path + target);

  suite.test("sends files of the kinds that are meant for browsers", async ({ files }) => {
    for (const file of FILES) {
      const { status, text, head } = await get(files, `/${file}`);
      assertEquals([status, text], [200, `the file ${file}\n`]);
      const cached = file.startsWith("_app/immutable/");
      assertEquals(head.get("cache-control"), cached ? IMMUTABLE : undefined);
    }
    assertEquals((await get(files, "/folder/")).text, "the file folder/index.html\n");
  });

  suite.test("sends no other file", async ({ files }, rig) => {
    const others = ["app.cgi~", "app.cgi.orig", "notes", "data.csv", ".git/page.html", "deno.json"];
    for (const name of others) rig.write(`files/${name}`, "the file\n");
    for (const name of [...NEVER, ...others, "%2egit/config", ".htaccess"]) {
      const { status, text } = await get(files, `/${name}`);
      assertEquals([name, text.includes("the file") || text.includes("Rewrite")], [name, false]);
      // Paths below a hidden folder are those of the app.
      assertEquals([name, status], [name, name.includes(".git/page") ? 200 : 403]);
    }
  });

  suite.test("what is no file is a path of the app", async ({ files }) => {
    for (const target of ["/", "/about?q=1", "/caf%C3%A9/%20x", "/_app/other.js"]) {
      const { text } = await get(files, target);
      const { url, protocol } = JSON.parse(text);
      assertEquals([url, protocol], [`http://127.0.0.1:${files}${target}`, "cgi"]);
    }
    const { text, head } = await get(files, "/_app/immutable/missing.js");
    assertMatch(text, /"url":/);
    assertEquals(head.get("cache-control"), undefined);
    const fields = [["Authorization", "Bearer token"]];
    const seen = await request(`127.0.0.1:${files}`, "GET", `${path}/`, { fields });
    assertEquals(JSON.parse(seen.text).headers.authorization, "Bearer token");
  });

  suite.test("redirects to HTTPS", async ({ secure }) => {
    const target = "/about/%20x?q=%20";
    const { status, head } = await get(secure, target);
    assertEquals([status, head.get("location")], [308, `https://example.org${path}${target}`]);
  });
}
