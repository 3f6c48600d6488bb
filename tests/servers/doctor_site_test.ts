/**
 * `doctor http://localhost/`: behind each web server it finds nothing with what `config` prints, and each fault that is made
 * in the real server, which what it says to write mends.
 */
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { SITE_FINDINGS } from "../../cli/doctor/site.ts";
import { User } from "../../cli/doctor/user.ts";
import { testWith } from "../testing/needs.ts";
import { MODULES } from "./apache.ts";
import { caddyCommand, caddyOptions, caddySite } from "./caddy.ts";
import { type Diagnosis, doctor } from "./doctor.ts";
import { configuration, freePort, Rig } from "./harness.ts";
import { nginxCommand } from "./nginx.ts";

const NEEDS: Record<string, Record<string, string>> = {
  nginx: { nginx: "nginx-light", "/etc/nginx/fastcgi_params": "nginx-common" },
  apache: { apache2: "apache2", [`${MODULES}/mod_proxy_fcgi.so`]: "apache2-bin" },
  lighttpd: { lighttpd: "lighttpd" },
  caddy: { caddy: "caddy" },
  haproxy: { haproxy: "haproxy" },
  h2o: { h2o: "h2o" },
};
/** The app may take longer than the timeouts of these tests. */
const LONGER = ["--timeout", "4"];
const tested = new Set<string>();

/** What a web server is configured with, for a port. */
type Config = (port: number) => string;

/** Writes a site, and returns the command line that serves it. */
const COMMANDS: Record<string, (rig: Rig, site: string, port: number) => [string, string[]]> = {
  nginx: (rig, site) => nginxCommand(rig, [site]),
  apache: (rig, site) => {
    const modules =
      "mpm_event authz_core alias mime headers proxy proxy_fcgi proxy_scgi proxy_http rewrite";
    const load = modules.split(" ")
      .map((name) => `LoadModule ${name}_module ${MODULES}/mod_${name}.so`).join("\n");
    const user = Deno.uid() === 0 ? "User www-data\nGroup www-data" : "";
    const file = rig.write(
      "apache.conf",
      `ServerName localhost\nServerRoot ${rig.dir}\nDefaultRuntimeDir ${rig.dir}
PidFile ${rig.dir}/apache.pid\nErrorLog ${rig.logFile("error.log")}
${user}\n${load}\nTypesConfig /dev/null\n${site}`,
    );
    return ["apache2", ["-DFOREGROUND", "-f", file]];
  },
  lighttpd: (rig, site, port) => {
    const file = rig.write(
      "lighttpd.conf",
      `server.bind = "127.0.0.1"\nserver.port = ${port}
server.document-root = "${rig.dir}/www"\n${site}`,
    );
    return ["lighttpd", ["-D", "-f", file]];
  },
  caddy: (rig, site) => caddyCommand(rig, [site]),
  haproxy: (rig, site) => ["haproxy", ["-db", "-f", rig.write("haproxy.cfg", site)]],
  h2o: (rig, site) => {
    const own = Deno.uid() === 0 ? site : site.replace(/^user: .*$/m, "");
    const file = rig.write("h2o.yaml", `error-log: ${rig.logFile("error.log")}\n${own}`);
    return ["h2o", ["-m", "worker", "-c", file]];
  },
};

/** Runs doctor with a site, in place of its daemon. */
async function examine(
  rig: Rig,
  server: string,
  config: Config,
  backend: string,
  ...args: string[]
): Promise<Diagnosis> {
  const { port } = await rig.serve(server, ["port"], ({ port }) => {
    return COMMANDS[server](rig, config(port), port);
  }, server === "caddy" ? caddyOptions(rig) : {});
  try {
    return await doctor(
      ...[`http://127.0.0.1:${port}/caf%C3%A9/x?id=7`, "--listen", backend],
      ...["--upload", "2m", ...args.includes("--timeout") ? [] : ["--timeout", "1"], ...args],
    );
  } finally {
    await rig.stop(rig.program(server));
  }
}

/** A configuration as `config` prints it. */
function printed(server: string, backend: string, ...args: string[]): Config {
  return (port) => {
    const all = ["--backend", backend, ...args];
    // lighttpd listens on the port by itself.
    if (server !== "lighttpd") all.push("--listen", `127.0.0.1:${port}`);
    return server === "caddy" ? caddySite(...all) : configuration(server, ...all);
  };
}

for (
  const [server, ...args] of [
    ["nginx"],
    ["nginx", "--protocol", "scgi"],
    ["apache"],
    ["apache", "--protocol", "scgi"],
    ["lighttpd"],
    ["lighttpd", "--protocol", "scgi"],
    ["caddy"],
    ["haproxy"],
    ["h2o"],
  ]
) {
  const name = [server, ...args].join(" ");
  testWith(NEEDS[server], `doctor finds nothing behind config ${name}`, async () => {
    await using rig = new Rig();
    const backend = `127.0.0.1:${freePort()}`;
    const { code, stdout } = await examine(
      ...[rig, server, printed(server, backend, ...args), backend, ...args] as const,
    );
    assertEquals(code, 0, stdout);
    assertStringIncludes(stdout, "Nothing is wrong.");
  });
}

testWith(NEEDS.nginx, "doctor finds nothing behind nginx over a Unix socket", async () => {
  await using rig = new Rig();
  const backend = `unix:${rig.dir}/app.sock`;
  const { code, stdout } = await examine(rig, "nginx", printed("nginx", backend), backend);
  assertEquals(code, 0, stdout);
});

/** nginx's lines for each protocol, of which a test leaves one out. */
function nginxSite(
  protocol: "fastcgi" | "scgi" | "http",
  backend: string,
  { without = [], lines = "", http = "", server = "" }: {
    without?: string[];
    /** Further lines in the location, the block http and the block server. */
    lines?: string;
    http?: string;
    server?: string;
  },
): Config {
  const all: Record<string, string> = protocol === "http"
    ? { host: "proxy_set_header Host $http_host;", buffering: "proxy_buffering off;" }
    : {
      params: `include ${protocol}_params;`,
      host: `${protocol}_param HTTP_HOST $http_host;`,
      httpoxy: `${protocol}_param HTTP_PROXY "";`,
      buffering: protocol === "fastcgi" ? "fastcgi_keep_conn on;" : "scgi_buffering off;",
    };
  const pass = protocol === "http" ? "proxy_pass http://" : `${protocol}_pass `;
  const own = Object.entries(all).filter(([name]) => !without.includes(name))
    .map(([, line]) => line);
  const size = without.includes("body-limit") ? "" : "client_max_body_size 20m;";
  return (port) =>
    `${http}
server { listen 127.0.0.1:${port}; ${size} ${server}
location / { ${own.join("\n")}\n${lines}\n${pass}${backend}; } }`;
}

/** Returns what a finding says to write for nginx, by the block that it belongs to. */
function forNginx({ stdout }: Diagnosis): { lines?: string; http?: string; server?: string } {
  const [, http, more] =
    /Write in the block http: (.*) And where the app is: (.*)$/m.exec(stdout) ?? [];
  if (http !== undefined) return { http, lines: more };
  const [, server] = /Write in the block server: (.*)$/m.exec(stdout) ?? [];
  if (server !== undefined) return { server };
  const [, lines] = /Write where the app is: (.*)$/m.exec(stdout) ?? [];
  assert(lines !== undefined, stdout);
  return { lines };
}

const NGINX: [
  id: keyof typeof SITE_FINDINGS,
  protocol: "fastcgi" | "scgi" | "http",
  broken: { without?: string[]; lines?: string },
][] = [
  ["host", "fastcgi", { without: ["host"] }],
  ["host", "scgi", { without: ["host"], lines: "scgi_param HTTP_HOST $host;" }],
  ["host", "http", { without: ["host"] }],
  ["script-name", "fastcgi", { lines: "fastcgi_param PATH_INFO $document_uri;" }],
  ["httpoxy", "fastcgi", { without: ["httpoxy"] }],
  ["httpoxy", "scgi", { without: ["httpoxy"] }],
  ["buffering", "fastcgi", { without: ["buffering"] }],
  ["buffering", "scgi", { without: ["buffering"] }],
  ["buffering", "http", { without: ["buffering"] }],
  ["body-limit", "fastcgi", { without: ["body-limit"] }],
  ["app-timeout", "fastcgi", { lines: "fastcgi_read_timeout 2s;" }],
  ["app-timeout", "http", { lines: "proxy_read_timeout 2s;" }],
];
for (const [id, protocol, broken] of NGINX) {
  testWith(NEEDS.nginx, `doctor finds ${id} behind nginx over ${protocol}`, async () => {
    tested.add(id);
    await using rig = new Rig();
    const backend = `127.0.0.1:${freePort()}`;
    const options = ["--protocol", protocol, ...id === "app-timeout" ? LONGER : []];
    const site = nginxSite(protocol, backend, broken);
    const before = await examine(rig, "nginx", site, backend, ...options);
    assertEquals([before.code, before.ids], [1, [id]], before.stdout);
    const mend = forNginx(before);
    // A directive is written once.
    const lines = id === "app-timeout" || broken.lines?.includes("PATH_INFO")
      ? mend.lines
      : `${broken.lines ?? ""}\n${mend.lines ?? ""}`;
    const mended = nginxSite(protocol, backend, { ...broken, ...mend, lines });
    const after = await examine(rig, "nginx", mended, backend, ...options);
    assertEquals([after.code, after.ids], [0, []], after.stdout);
  });
}

testWith(NEEDS.nginx, "doctor finds Authorization that nginx drops", async () => {
  await using rig = new Rig();
  const backend = `127.0.0.1:${freePort()}`;
  const site = nginxSite("fastcgi", backend, { lines: 'fastcgi_param HTTP_AUTHORIZATION "";' });
  const { code, ids, stdout } = await examine(rig, "nginx", site, backend);
  assertEquals([code, ids], [1, ["authorization"]], stdout);
  assertStringIncludes(stdout, "Remove the line that sets HTTP_AUTHORIZATION");
});

testWith(NEEDS.nginx, "doctor finds another protocol, and a site without requests", async () => {
  await using rig = new Rig();
  const backend = `127.0.0.1:${freePort()}`;
  for (const [spoken, meant] of [["http", "fastcgi"], ["fastcgi", "scgi"], ["scgi", "http"]]) {
    tested.add("protocol");
    const site = nginxSite(spoken as "http", backend, {});
    const { code, ids, stdout } = await examine(
      ...[rig, "nginx", site, backend, "--protocol", meant] as const,
    );
    assertEquals([code, ids], [1, ["protocol"]], stdout);
    assertStringIncludes(stdout, `with --protocol ${spoken}`);
  }
  tested.add("not-passed");
  const elsewhere = nginxSite("fastcgi", `127.0.0.1:${freePort()}`, {});
  const { code, ids, stdout } = await examine(rig, "nginx", elsewhere, backend);
  assertEquals([code, ids], [1, ["not-passed"]], stdout);
  assertMatch(
    stdout,
    /nginx\/\S+ responds to .* with 502 Bad Gateway, and sends no request to 127\.0\.0\.1/,
  );
});

/** Faults of other servers: what is replaced in the printed configuration, and what mends it. */
const OTHERS: [
  server: string,
  id: keyof typeof SITE_FINDINGS,
  from: RegExp,
  to: string,
  mend: (config: string, line: string) => string,
][] = [
  ["apache", "authorization", /CGIPassAuth On/, "", (config, line) => {
    const section = line.replace("> ", ">\n").replace(" <", "\n<");
    return config.replace("</VirtualHost>", `${section}\n$&`);
  }],
  ["apache", "buffering", / flushpackets=on/, "", (config, line) => {
    return config.replace(/ProxyPass .*$/m, `$& ${line}`);
  }],
  ["apache", "app-timeout", /$/, "Timeout 2\n", (config, line) => `${config}\n${line}\n`],
  ["lighttpd", "buffering", /server.stream-response-body = 2/, "", (config, line) => {
    return `${line}\n${config}`;
  }],
  ["lighttpd", "body-limit", /^/, "server.max-request-size = 1\n", (config, line) => {
    return config.replace(/server.max-request-size = .*/, line);
  }],
  ["caddy", "httpoxy", /header_up -Proxy/, "", (config, line) => {
    return config.replace(/reverse_proxy .*$/m, `$&\n${line}`);
  }],
  ["caddy", "app-timeout", /transport fastcgi \{/, "$&\nread_timeout 2s", (config, line) => {
    return config.replace(/read_timeout .*/, line);
  }],
  ["haproxy", "authorization", /pass-header Authorization/, "", (config, line) => {
    return `${config}\n  ${line}\n`;
  }],
  ["haproxy", "app-timeout", /timeout server .*/, "timeout server 2s", (config, line) => {
    return config.replace(/timeout server .*/, line);
  }],
  ["h2o", "body-limit", /^/, "limit-request-body: 1000\n", (config, line) => {
    return config.replace(/limit-request-body: .*/, line);
  }],
  ["h2o", "app-timeout", /^/, "fastcgi.timeout.io: 2000\n", (config, line) => {
    return config.replace(/fastcgi.timeout.io: .*/, line);
  }],
];
for (const [server, id, from, to, mend] of OTHERS) {
  testWith(NEEDS[server], `doctor finds ${id} behind ${server}`, async () => {
    tested.add(id);
    await using rig = new Rig();
    const backend = `127.0.0.1:${freePort()}`;
    const config = printed(server, backend);
    const broken: Config = (port) => config(port).replace(from, to);
    const args = id === "app-timeout" ? LONGER : [];
    const before = await examine(rig, server, broken, backend, ...args);
    assertEquals([before.code, before.ids], [1, [id]], before.stdout);
    const [, line] = /^ {2}(?:Write|Add to)[^:]*: (.*?)(?:, on three lines)?$/m
      .exec(before.stdout) ?? [];
    assert(line !== undefined, before.stdout);
    const after = await examine(rig, server, (port) => mend(broken(port), line), backend, ...args);
    assertEquals([after.code, after.ids], [0, []], after.stdout);
  });
}

for (const server of ["nginx", "apache", "lighttpd"]) {
  testWith(NEEDS[server], `doctor requests a site and its daemon behind ${server}`, async () => {
    await using rig = new Rig();
    const user = Deno.uid() === 0 ? "www-data" : User.find(undefined).name;
    const running = await rig.daemon("fastcgi", "127.0.0.1:0");
    const examineSite = async (backend: string) => {
      const { port } = await rig.serve(server, ["port"], ({ port }) => {
        return COMMANDS[server](rig, printed(server, backend)(port), port);
      });
      const file = `${rig.dir}/${server}.conf`;
      const found = await doctor(`http://127.0.0.1:${port}/`, "--conf", file, "--user", user);
      await rig.stop(rig.program(server));
      return found;
    };
    const healthy = await examineSite(running);
    assertEquals(healthy.code, 0, healthy.stdout);
    assertMatch(healthy.stdout, new RegExp(`: 200, by ${server}`, "i"));
    assertStringIncludes(healthy.stdout, `${running}, over FastCGI: 200`);
    assertStringIncludes(healthy.stdout, `stop that, and add --listen ${running}\n`);
    const broken = await examineSite(`127.0.0.1:${freePort()}`);
    assertEquals([broken.code, broken.ids], [1, ["refused"]], broken.stdout);
    assertMatch(broken.stdout, new RegExp(`: 50[23], by ${server}`, "i"));
  });
}

Deno.test("doctor finds that nothing responds, or an error without a reason", async () => {
  tested.add("unreachable");
  const none = await doctor(`http://127.0.0.1:${freePort()}/`);
  assertEquals([none.code, none.ids], [1, ["unreachable"]], none.stdout);
  tested.add("server-error");
  await using server = Deno.serve(
    { hostname: "127.0.0.1", port: 0, onListen() {} },
    () => new Response("", { status: 503 }),
  );
  const failing = await doctor(`http://127.0.0.1:${server.addr.port}/`);
  assertEquals([failing.code, failing.ids], [1, ["server-error"]], failing.stdout);
});

Deno.test("doctor of an error names what else to examine if the configuration names no daemon", async () => {
  tested.add("no-daemon");
  await using server = Deno.serve(
    { hostname: "127.0.0.1", port: 0, onListen() {} },
    () => new Response("", { status: 500, headers: { server: "nginx/1.22.1" } }),
  );
  const file = await Deno.makeTempFile();
  await Deno.writeTextFile(file, "events {}\nhttp { server { listen 80; } }\n");
  const url = `http://127.0.0.1:${server.addr.port}`;
  const user = Deno.uid() === 0 ? "www-data" : User.find(undefined).name;
  const failing = await doctor(url, "--conf", file, "--user", user);
  assertEquals([failing.code, failing.ids], [1, ["no-daemon"]], failing.stdout);
  assertStringIncludes(failing.stdout, `${file} names no daemon`);
  assertStringIncludes(failing.stdout, "If a CGI script responds: gatehouse doctor nginx --script");
  await Deno.remove(file);
});

Deno.test("doctor does not take the place of a daemon that runs", async () => {
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const address = `127.0.0.1:${listener.addr.port}`;
  const { error } = console;
  let stderr = "";
  console.error = (text) => stderr += text;
  try {
    assertEquals((await doctor("http://127.0.0.1:1/", "--listen", address)).code, 1);
  } finally {
    console.error = error;
  }
  assertStringIncludes(stderr, `Cannot listen on ${address}: it is in use. Stop the daemon`);
});

testWith(
  Object.assign({}, ...Object.values(NEEDS)),
  "doctor of sites: each kind of finding has a test",
  () => {
    assertEquals(Object.keys(SITE_FINDINGS).filter((id) => !tested.has(id)), []);
  },
);
