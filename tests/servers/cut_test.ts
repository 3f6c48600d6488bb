/**
 * What a client sees of a response that is cut, as the table of docs/servers.md has it: of one that the app fails, and of
 * one whose daemon is killed, with a web server's defaults and as `config` prints it.
 */
import { assertEquals, assertStringIncludes } from "@std/assert";
import { apacheConfig, MODULES } from "./apache.ts";
import { readFirst } from "./behaviours.ts";
import { Client, Witness } from "./client.ts";
import { configuration, type Rig, Suite } from "./harness.ts";
import { nginxCommand } from "./nginx.ts";

/** Whether the client sees an error, or a whole response. */
type Outcome = "error" | "whole";

/** A row of the table. */
interface Row {
  name: string;
  protocol: "fastcgi" | "scgi";
  needs: Record<string, string>;
  /** Starts the web server. @returns The ports of its default configuration and of the printed one. */
  start(rig: Rig, row: Row, backend: string): Promise<[byDefault: number, printed: number]>;
  /** A response without a Content-Length: by default, and as printed. */
  unknown: [Outcome, Outcome];
  /** A response with a Content-Length. */
  known: [Outcome, Outcome];
  /** Of the cells that differ if the daemon is killed, the outcomes then. */
  killed?: { unknown?: [Outcome, Outcome]; known?: [Outcome, Outcome] };
}

const print = (server: string, { protocol }: Row, port: number, backend: string) =>
  configuration(
    server,
    ...["--protocol", protocol, "--listen", `127.0.0.1:${port}`, "--backend", backend],
  );

async function startNginx(rig: Rig, row: Row, backend: string): Promise<[number, number]> {
  const { protocol } = row;
  const ports = await rig.serve(
    "nginx",
    ["byDefault", "printed"],
    ({ byDefault, printed }) =>
      nginxCommand(rig, [
        `keepalive_timeout 1;`,
        `server {
  listen 127.0.0.1:${byDefault};
  location / { include ${protocol}_params; ${protocol}_pass ${backend}; }
}`,
        print("nginx", row, printed, backend),
      ]),
  );
  return [ports.byDefault, ports.printed];
}

async function startApache(rig: Rig, row: Row, backend: string): Promise<[number, number]> {
  const scheme = row.protocol === "fastcgi" ? "fcgi" : "scgi";
  const ports = await rig.serve("apache2", ["byDefault", "printed"], ({ byDefault, printed }) => {
    const config = apacheConfig(rig, ["mpm_event", "proxy", `proxy_${scheme}`], {
      [byDefault]: `ProxyPass / ${scheme}://${backend}/`,
    });
    const text = `${config}\nKeepAliveTimeout 1\n${print("apache", row, printed, backend)}`;
    return ["apache2", ["-DFOREGROUND", "-f", rig.write("apache.conf", text)]];
  });
  return [ports.byDefault, ports.printed];
}

async function startLighttpd(rig: Rig, row: Row, backend: string): Promise<[number, number]> {
  const { protocol } = row;
  const [host, port] = backend.split(":");
  const start = async (name: string, config: string) => {
    const ports = await rig.serve(`lighttpd (${name})`, ["port"], ({ port }) => {
      const text = `
server.bind = "127.0.0.1"
server.port = ${port}
server.document-root = "${rig.dir}/www"
server.errorlog = "${rig.logFile("error.log")}"
server.max-keep-alive-idle = 1
${config}
`;
      return ["lighttpd", ["-D", "-f", rig.write(`${name}.conf`, text)]];
    });
    return ports.port;
  };
  const byDefault = await start(
    "default",
    `server.modules += ( "mod_${protocol}" )
${protocol}.server = ( "/" => (( "host" => "${host}", "port" => ${port}, "check-local" => "disable" )) )`,
  );
  return [
    byDefault,
    await start(
      "printed",
      configuration("lighttpd", "--protocol", protocol, "--backend", backend),
    ),
  ];
}

async function startCaddy(rig: Rig, row: Row, backend: string): Promise<[number, number]> {
  const env = { HOME: rig.dir, XDG_CONFIG_HOME: rig.dir, XDG_DATA_HOME: rig.dir };
  const ports = await rig.serve("caddy", ["byDefault", "printed"], ({ byDefault, printed }) => {
    // A Caddyfile has one block of global options.
    const text = print("caddy", row, printed, backend).replace(/^\{\n[^]*?^\}\n/m, "");
    const file = rig.write(
      "Caddyfile",
      `{
admin off
}
http://127.0.0.1:${byDefault} {
  reverse_proxy ${backend} {
    transport fastcgi
  }
}
${text}`,
    );
    return ["caddy", ["run", "--config", file, "--adapter", "caddyfile"]];
  }, { env });
  return [ports.byDefault, ports.printed];
}

async function startHAProxy(rig: Rig, row: Row, backend: string): Promise<[number, number]> {
  const ports = await rig.serve("haproxy", ["byDefault", "printed"], ({ byDefault, printed }) => {
    const plain = rig.write(
      "default.cfg",
      `
frontend plain
  bind 127.0.0.1:${byDefault}
  default_backend plain
backend plain
  use-fcgi-app plain
  server plain ${backend} proto fcgi
fcgi-app plain
  docroot /
`,
    );
    const file = rig.write("printed.cfg", print("haproxy", row, printed, backend));
    return ["haproxy", ["-db", "-f", file, "-f", plain]];
  });
  return [ports.byDefault, ports.printed];
}

async function startH2O(rig: Rig, row: Row, backend: string): Promise<[number, number]> {
  // The printed configuration has nothing but what h2o needs.
  const { port } = await rig.serve("h2o", ["port"], ({ port }) => {
    const config = print("h2o", row, port, backend);
    const file = rig.write(
      "h2o.yaml",
      `error-log: ${rig.logFile("error.log")}
${Deno.uid() === 0 ? config.replace("www-data", "root") : config.replace(/^user: .*$/m, "")}`,
    );
    return ["h2o", ["-m", "worker", "-c", file]];
  });
  return [port, port];
}

const NGINX = { nginx: "nginx-light", "/etc/nginx/fastcgi_params": "nginx-common" };
const APACHE = { apache2: "apache2", [`${MODULES}/mod_proxy_fcgi.so`]: "apache2-bin" };
const ERROR: [Outcome, Outcome] = ["error", "error"];
const WHOLE: [Outcome, Outcome] = ["whole", "whole"];

const ROWS: Row[] = [
  {
    name: "nginx",
    protocol: "fastcgi",
    needs: NGINX,
    start: startNginx,
    unknown: ERROR,
    known: ERROR,
    killed: { unknown: ["whole", "error"] },
  },
  {
    name: "nginx, SCGI",
    protocol: "scgi",
    needs: NGINX,
    start: startNginx,
    unknown: WHOLE,
    known: ERROR,
  },
  {
    name: "Apache",
    protocol: "fastcgi",
    needs: APACHE,
    start: startApache,
    unknown: ERROR,
    known: ERROR,
  },
  {
    name: "Apache, SCGI",
    protocol: "scgi",
    needs: APACHE,
    start: startApache,
    unknown: WHOLE,
    known: WHOLE,
  },
  {
    name: "lighttpd",
    protocol: "fastcgi",
    needs: { lighttpd: "lighttpd" },
    start: startLighttpd,
    unknown: ["whole", "error"],
    known: ERROR,
  },
  {
    name: "lighttpd, SCGI",
    protocol: "scgi",
    needs: { lighttpd: "lighttpd" },
    start: startLighttpd,
    unknown: WHOLE,
    known: ERROR,
  },
  {
    name: "Caddy",
    protocol: "fastcgi",
    needs: { caddy: "caddy" },
    start: startCaddy,
    unknown: WHOLE,
    known: ERROR,
  },
  {
    name: "HAProxy",
    protocol: "fastcgi",
    needs: { haproxy: "haproxy" },
    start: startHAProxy,
    unknown: ERROR,
    known: ERROR,
  },
  {
    name: "h2o",
    protocol: "fastcgi",
    needs: { h2o: "h2o" },
    start: startH2O,
    unknown: WHOLE,
    known: ERROR,
  },
];

/** Returns the cells of a row as the page has them. */
function cells({ name, unknown, known, killed = {} }: Row): string[] {
  const columns = ([["unknown", unknown], ["known", known]] as const).flatMap(([which, outcomes]) =>
    outcomes.map((outcome, i) => {
      const other = killed[which]?.[i] ?? outcome;
      return outcome === other ? outcome : `${outcome}, of a killed daemon ${other}`;
    })
  );
  return [name, ...columns];
}

/**
 * Reads a response that is cut.
 *
 * @param streams Whether the server has passed on a part of it before.
 */
async function see(
  port: number,
  length: string,
  streams: boolean,
  cut: (witness: Witness) => Promise<unknown>,
): Promise<Outcome> {
  using witness = new Witness();
  using client = await Client.connect(`127.0.0.1:${port}`);
  await client.sendHead("GET", `/fail?witness=${witness.port}${length}`);
  assertEquals(await witness.next("the app streams"), "ready");
  if (!streams) await cut(witness);
  let head;
  try {
    head = await client.readHead();
  } catch (error) {
    // nginx may send nothing of a short response that fails.
    assertStringIncludes((error as Error).message, 'the connection ended after ""');
    return "error";
  }
  assertEquals(head.status, 200);
  const parts = client.readParts(head);
  assertEquals(await readFirst(parts), "first\n");
  if (streams) await cut(witness);
  return (await client.readCut(head, parts)).outcome;
}

for (const row of ROWS) {
  const { name, protocol, needs } = row;
  const suite = new Suite(`${name}: a cut response`, needs, async (rig) => {
    const daemon = await rig.daemon(protocol, "127.0.0.1:0");
    return { daemon, ports: await row.start(rig, row, daemon) };
  });
  const lengths = [["unknown", ""], ["known", "&length=100"]] as const;

  suite.test("that the app fails, by default and as printed", async ({ ports }) => {
    for (const [which, length] of lengths) {
      for (const [i, port] of ports.entries()) {
        const outcome = await see(port, length, i === 1, (witness) => witness.write("fail"));
        assertEquals(outcome, row[which][i], `${which} length, ${i}`);
      }
    }
  });

  suite.test(
    "whose daemon is killed, by default and as printed",
    async ({ daemon, ports }, rig) => {
      for (const [which, length] of lengths) {
        for (const [i, port] of ports.entries()) {
          const { process } = rig.daemonAt(daemon);
          const outcome = await see(port, length, i === 1, () => {
            process.kill("SIGKILL");
            return process.status;
          });
          const expected = row.killed?.[which] ?? row[which];
          assertEquals(outcome, expected[i], `${which} length, ${i}`);
          await rig.daemon(protocol, daemon);
        }
      }
    },
  );
}

Deno.test("docs/servers.md has the table of cut responses", async () => {
  const page = await Deno.readTextFile(new URL("../../docs/servers.md", import.meta.url));
  const lines = page.split("\n").map((line) => line.replaceAll(/ +/g, " "));
  for (const row of ROWS) {
    const line = `| ${cells(row).join(" | ")} |`;
    assertEquals(lines.filter((other) => other === line).length, 1, line);
  }
});
