/** One set-up of each web server with an app on Node and on Bun. */
import { assertEquals, assertStringIncludes } from "@std/assert";
import { find } from "../testing/needs.ts";
import { bytes } from "../testing/bytes.ts";
import { type OtherRuntime, testOn } from "../testing/runtimes.ts";
import { apacheConfig, MODULES } from "./apache.ts";
import { see, type Site } from "./behaviours.ts";
import { request } from "./client.ts";
import { configuration, eventually, Rig, snippet } from "./harness.ts";
import { nginxCommand } from "./nginx.ts";

/** Starts each web server, and returns where the app is. */
const SERVERS: Record<string, {
  needs: string[];
  start(rig: Rig, runtime: OtherRuntime): Promise<Site>;
}> = {
  nginx: {
    needs: ["nginx"],
    async start(rig, runtime) {
      const program = rig.spawn(`daemon on ${runtime.name}`, `${rig.bin}/${programOf(runtime)}`, [
        rig.write("daemon.mjs", daemon(rig)),
        `unix:${rig.dir}/app.sock`,
      ]);
      await eventually("the daemon listens", () => {
        assertEquals(program.status, undefined, program.output);
        return program.output.includes("listening");
      });
      const { port } = await rig.serve("nginx", ["port"], ({ port }) => {
        const backend = `unix:${rig.dir}/app.sock`;
        return nginxCommand(rig, [
          configuration(
            "nginx",
            "--name",
            "app",
            "--listen",
            `127.0.0.1:${port}`,
            "--backend",
            backend,
          ),
        ]);
      });
      return { host: `127.0.0.1:${port}` };
    },
  },
  "Apache's mod_cgid": {
    needs: ["apache2"],
    async start(rig, runtime) {
      script(rig, runtime, "cgi-bin/app.mjs");
      const { port } = await rig.serve("apache2", ["port"], ({ port }) => {
        const cgi = snippet("apache", "cgi", {
          "/srv/cgi-bin": `${rig.dir}/cgi-bin`,
          "/var/cache/deno": `${rig.dir}/cache`,
        });
        const config = apacheConfig(rig, ["mpm_event", "alias", "env", "cgid"], { [port]: cgi });
        return apache(rig, `${config}ScriptSock ${rig.dir}/cgid.sock\n`);
      });
      return { host: `127.0.0.1:${port}`, base: "/cgi-bin/app.mjs", protocol: "cgi" };
    },
  },
  mod_fcgid: {
    needs: ["apache2", `${MODULES}/mod_fcgid.so`],
    async start(rig, runtime) {
      script(rig, runtime, "app/app.mjs");
      const { port } = await rig.serve("apache2 (fcgid)", ["port"], ({ port }) => {
        const fcgid = snippet("apache", "fcgid", {
          "/usr/local/bin:": `${rig.bin}:/usr/local/bin:`,
          "/var/cache/deno": `${rig.dir}/cache`,
          "/srv/app": `${rig.dir}/app`,
        }).replaceAll("fcgid-script .fcgi", "fcgid-script .mjs").replace("\\.fcgi$", "\\.mjs$");
        const config = apacheConfig(rig, ["mpm_event", "alias", "mime", "fcgid"], {
          [port]: fcgid,
        });
        return apache(
          rig,
          `${config}TypesConfig /dev/null\nFcgidIPCDir ${rig.dir}/fcgid\n` +
            `FcgidProcessTableFile ${rig.dir}/fcgid_shm\n`,
        );
      });
      return { host: `127.0.0.1:${port}`, base: "/app/app.mjs" };
    },
  },
  lighttpd: {
    needs: ["lighttpd"],
    async start(rig, runtime) {
      const path = script(rig, runtime, "app.mjs");
      const { port } = await rig.serve("lighttpd", ["port"], ({ port }) => {
        const spawned = snippet("lighttpd", "spawned", {
          "/srv/app/app.fcgi": path,
          "/run/app.sock": `${rig.dir}/spawned.sock`,
        });
        const config = `
server.bind = "127.0.0.1"
server.port = ${port}
server.document-root = "${rig.dir}/www"
server.errorlog = "${rig.logFile("lighttpd.log")}"
server.upload-dirs = ( "${rig.dir}/cache" )
${spawned}
`;
        return ["lighttpd", ["-D", "-f", rig.write("lighttpd.conf", config)]];
      });
      return { host: `127.0.0.1:${port}`, base: "/app" };
    },
  },
};

function apache(rig: Rig, config: string): [command: string, args: string[]] {
  return ["apache2", ["-DFOREGROUND", "-f", rig.write("apache.conf", config)]];
}

function programOf({ name }: OtherRuntime): string {
  return name.toLowerCase();
}

/** Writes an app with the first line that runs it, and returns its path. */
function script(rig: Rig, runtime: OtherRuntime, name: string): string {
  const path = rig.write(
    name,
    `#!${rig.bin}/${programOf(runtime)}
import { serve } from "${rig.root}/mod.ts";
import app from "${rig.root}/tests/servers/app.ts";

await serve(app, { basePath: "auto" });
`,
  );
  Deno.chmodSync(path, 0o755);
  return path;
}

function daemon(rig: Rig): string {
  return `
import { listen, serveFastCGI } from "${rig.root}/fastcgi.ts";
import app from "${rig.root}/tests/servers/app.ts";

const listener = await listen(process.argv[2], { mode: 0o666 });
const server = serveFastCGI(app, listener, { basePath: "auto" });
console.log("listening");
process.on("SIGTERM", () => server.shutdown());
`;
}

for (const [name, { needs, start }] of Object.entries(SERVERS)) {
  testOn(`an app behind ${name}`, async (runtime, t) => {
    const missing = needs.filter((program) => find(program) === undefined);
    if (missing.length > 0) {
      assertEquals(Deno.env.get("GATEHOUSE_REQUIRE_SERVERS"), undefined, missing.join());
      await t.step({ name: `${missing} missing: see .ci/run`, ignore: true, fn() {} });
      return;
    }
    await using rig = new Rig();
    const program = `${rig.bin}/${programOf(runtime)}`;
    try {
      Deno.linkSync(runtime.path, program);
    } catch {
      Deno.copyFileSync(runtime.path, program);
    }
    try {
      const site = await start(rig, runtime);
      const { host, base = "" } = site;
      const hello = await request(host, "GET", `${base}/hello`);
      assertEquals([hello.status, hello.text], [200, "Hello\n"]);
      const body = bytes("x".repeat(300_000));
      const echo = await request(host, "POST", `${base}/echo`, { body });
      assertEquals([echo.status, echo.text.length], [200, body.length]);
      const { url, protocol, variables } = await see(site, "/caf%C3%A9?a=b");
      assertStringIncludes(url, "/caf%C3%A9?a=b");
      assertEquals(protocol, site.protocol ?? "fastcgi");
      assertEquals(variables.REQUEST_METHOD, "GET");
      const { status, text } = await request(host, "GET", `${base}/throw?mark=1`);
      assertEquals([status, text.includes("secret")], [500, false]);
    } catch (error) {
      console.error(rig.takeLog());
      throw error;
    }
  });
}
