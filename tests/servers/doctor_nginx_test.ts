/** `doctor nginx`: each fault is made behind a real nginx, which fails, and found; mended, nothing is found. */
import {
  assert,
  assertEquals,
  assertNotEquals,
  assertStringIncludes,
  assertThrows,
} from "@std/assert";
import { serveFastCGI } from "../../fastcgi.ts";
import { NGINX_FINDINGS } from "../../cli/doctor/nginx.ts";
import { readNginxConfig } from "../../cli/doctor/nginx_config.ts";
import { NGINX_SCRIPT_FINDINGS } from "../../cli/doctor/nginx_script.ts";
import { stat, User } from "../../cli/doctor/user.ts";
import { testWith } from "../testing/needs.ts";
import { request } from "./client.ts";
import { doctor as run } from "./doctor.ts";
import { eventually, freePort, Rig } from "./harness.ts";
import { stockParameters } from "./nginx.ts";

const NGINX = { nginx: "nginx-light", "/etc/nginx/fastcgi_params": "nginx-common" };
const USER = Deno.uid() === 0 ? "www-data" : User.find(undefined).name;
/** The package's file passes the host without the port. */
const PARAMETERS = "include fastcgi_params; fastcgi_param HTTP_HOST $host:$server_port;";
const tested = new Set<string>();

/** Runs doctor for nginx. */
const doctor = (...args: string[]) => run("nginx", ...args);

/** Writes a configuration whose server is in an included file. */
function write(rig: Rig, name: string, blocks: string, port = 1): string {
  rig.write("fastcgi_params", stockParameters("fastcgi_params"));
  rig.write(
    `sites-${name}/site.conf`,
    `# It's a "comment" }\n${blocks.replace("PORT", `127.0.0.1:${port}`)}`,
  );
  const temp = ["client_body", "fastcgi", "scgi", "proxy", "uwsgi"]
    .map((path) => `${path}_temp_path ${rig.dir}/${name}-${path};`).join("\n");
  return rig.write(
    `${name}.conf`,
    `${Deno.uid() === 0 ? `user ${USER};` : ""}
daemon off;
pid ${rig.dir}/${name}.pid;
events {}
http {
access_log off;
log_format x '{"a": "$uri;"}';
${temp}
include sites-${name}/*.conf;
}
`,
  );
}

/** Starts nginx with a configuration. @returns The status of its response, and its log. */
async function visit(
  rig: Rig,
  name: string,
  blocks: string,
  path = "/",
): Promise<[number, string]> {
  const log = rig.logFile(`${name}.log`);
  const { port } = await rig.serve("nginx", ["port"], ({ port }) => {
    const file = write(rig, name, blocks, port);
    return ["nginx", ["-e", log, "-c", file]];
  });
  const { status } = await request(`127.0.0.1:${port}`, "GET", path);
  await rig.stop(rig.program("nginx"));
  return [status, rig.read(`${name}.log`)];
}

/** Returns a server that passes all requests on. */
function server(pass: string, parameters = PARAMETERS): string {
  return `server { listen PORT; location / { ${parameters} ${pass}; } }`;
}

/** Makes a fault and mends it. */
async function check(
  rig: Rig,
  id: keyof typeof NGINX_FINDINGS,
  { broken, status, log, mended, mend }: {
    broken: string;
    status: number;
    log: string;
    mended: string;
    /** Mends what is not in the configuration. */
    mend?: (stdout: string) => void;
  },
): Promise<string> {
  tested.add(id);
  const [seen, logged] = await visit(rig, `${id}-broken`, broken);
  assertEquals(seen, status, logged);
  assertStringIncludes(logged, log);
  const before = await doctor("--conf", `${rig.dir}/${id}-broken.conf`);
  assertEquals([before.code, before.ids], [1, [id]], before.stdout);
  mend?.(before.stdout);
  const [now, nothing] = await visit(rig, `${id}-mended`, mended);
  assertEquals(now, 200, nothing);
  const after = await doctor("--conf", `${rig.dir}/${id}-mended.conf`);
  assertEquals([after.code, after.ids], [0, []], after.stdout);
  return before.stdout;
}

testWith(NGINX, "doctor nginx finds a socket that does not exist", async () => {
  await using rig = new Rig();
  const address = await rig.daemon("fastcgi", `unix:${rig.dir}/app.sock`);
  Deno.chmodSync(`${rig.dir}/app.sock`, 0o777);
  const path = address.replace(/^unix:/, "");
  const stdout = await check(rig, "no-socket", {
    broken: `upstream app { server unix:${rig.dir}/none.sock; }\n${server("fastcgi_pass app")}`,
    status: 502,
    log: "failed (2: No such file or directory)",
    mended: `upstream app { server unix:${path}; }\n${server("fastcgi_pass app")}`,
  });
  assertStringIncludes(stdout, `--listen unix:${rig.dir}/none.sock`);
});

testWith(NGINX, "doctor nginx finds a socket that nginx may not write to", async () => {
  await using rig = new Rig();
  await rig.daemon("fastcgi", `unix:${rig.dir}/app.sock`);
  Deno.chmodSync(`${rig.dir}/app.sock`, 0o000);
  const pass = server(`fastcgi_pass unix:${rig.dir}/app.sock`);
  const stdout = await check(rig, "socket-denied", {
    broken: pass,
    status: 502,
    log: "failed (13: Permission denied)",
    mended: pass,
    mend: () => Deno.chmodSync(`${rig.dir}/app.sock`, 0o777),
  });
  assertStringIncludes(stdout, `${USER} may not connect`);
  assertStringIncludes(stdout, `--group ${User.find(USER).groupName}\n`);
});

testWith(NGINX, "doctor nginx finds a folder of a socket that nginx may not enter", async () => {
  await using rig = new Rig();
  const folder = `${rig.dir}/run`;
  Deno.mkdirSync(folder);
  await rig.daemon("fastcgi", `unix:${folder}/app.sock`);
  Deno.chmodSync(`${folder}/app.sock`, 0o777);
  Deno.chmodSync(folder, 0o600);
  const pass = server(`fastcgi_pass unix:${folder}/app.sock`);
  try {
    await check(rig, "socket-denied", {
      broken: pass,
      status: 502,
      log: "failed (13: Permission denied)",
      mended: pass,
      mend: (stdout) => {
        const [, line] = /^ {4}(.+)$/m.exec(stdout) ?? [];
        assert(line !== undefined, stdout);
        assert(new Deno.Command("sh", { args: ["-c", line] }).outputSync().success, line);
      },
    });
  } finally {
    Deno.chmodSync(folder, 0o755);
  }
});

testWith(NGINX, "doctor nginx finds a folder of files that nginx may not enter", async () => {
  await using rig = new Rig();
  const address = await rig.daemon("fastcgi", "127.0.0.1:0");
  tested.add("files-denied");
  const [home, folder] = [`${rig.dir}/home`, `${rig.dir}/home/project/public`];
  rig.write("home/project/public/style.css", "h1 {}");
  const site = `server { listen PORT; root ${folder};
    location / { try_files $uri @app; } location @app { ${PARAMETERS} fastcgi_pass ${address}; } }`;
  const sent = async (name: string) => {
    const log = rig.logFile(`${name}.log`);
    const { port } = await rig.serve("nginx", ["port"], ({ port }) => {
      return ["nginx", ["-e", log, "-c", write(rig, name, site, port)]];
    });
    const response = await request(`127.0.0.1:${port}`, "GET", "/style.css");
    await rig.stop(rig.program("nginx"));
    return response.text === "h1 {}";
  };
  Deno.chmodSync(home, 0o600);
  try {
    assertEquals(await sent("closed"), false);
    const before = await doctor("--conf", `${rig.dir}/closed.conf`);
    assertEquals([before.code, before.ids], [1, ["files-denied"]], before.stdout);
    assertStringIncludes(before.stdout, `${USER} may not enter ${home}, so that no file of`);
  } finally {
    Deno.chmodSync(home, 0o755);
  }
  assertEquals(await sent("open"), true);
  const after = await doctor("--conf", `${rig.dir}/open.conf`);
  assertEquals([after.code, after.ids], [0, []], after.stdout);
});

testWith(NGINX, "doctor nginx finds that nothing listens", async () => {
  await using rig = new Rig();
  const address = await rig.daemon("fastcgi", "127.0.0.1:0");
  await check(rig, "refused", {
    broken: server(`fastcgi_pass 127.0.0.1:${freePort()}`),
    status: 502,
    log: "failed (111: Connection refused)",
    mended: server(`fastcgi_pass ${address}`),
  });
});

testWith(NGINX, "doctor nginx finds HTTP where FastCGI is meant", async () => {
  await using rig = new Rig();
  const options = { hostname: "127.0.0.1", port: 0, onListen() {} };
  await using http = Deno.serve(options, () => new Response("Hello"));
  const address = `127.0.0.1:${http.addr.port}`;
  await check(rig, "protocol", {
    broken: server(`fastcgi_pass ${address}`),
    status: 502,
    log: "upstream sent unsupported FastCGI protocol version",
    mended: server(`proxy_pass http://${address}`, "proxy_set_header Host $host:$server_port;"),
  });
});

testWith(NGINX, "doctor nginx finds FastCGI where HTTP is meant", async () => {
  await using rig = new Rig();
  const address = await rig.daemon("fastcgi", "127.0.0.1:0");
  const stdout = await check(rig, "protocol", {
    broken: server(`proxy_pass http://${address}`, "proxy_set_header Host $host:$server_port;"),
    status: 400,
    log: "",
    mended: server(`fastcgi_pass ${address}`),
  });
  assertStringIncludes(stdout, `fastcgi_pass ${address};`);
});

testWith(
  NGINX,
  "doctor nginx finds SCGI where FastCGI is meant, and FastCGI where SCGI is",
  async () => {
    await using rig = new Rig();
    const scgi = await rig.daemon("scgi", "127.0.0.1:0");
    const fastcgi = await rig.daemon("fastcgi", "127.0.0.1:0");
    const own = "include scgi_params; scgi_param HTTP_HOST $host:$server_port;";
    rig.write("scgi_params", stockParameters("scgi_params"));
    await check(rig, "protocol", {
      broken: server(`fastcgi_pass ${scgi}`),
      status: 502,
      log: "upstream sent unsupported FastCGI protocol version",
      mended: server(`scgi_pass ${scgi}`, own),
    });
    await check(rig, "protocol", {
      broken: server(`scgi_pass ${fastcgi}`, own),
      status: 502,
      log: "upstream prematurely closed connection",
      mended: server(`fastcgi_pass ${fastcgi}`),
    });
  },
);

testWith(NGINX, "doctor nginx finds an include whose bracket has no end", async () => {
  await using rig = new Rig();
  const address = await rig.daemon("fastcgi", "127.0.0.1:0");
  rig.write("apps/app1.inc", `location / { ${PARAMETERS} fastcgi_pass ${address}; }`);
  const block = (include: string) =>
    `server { listen PORT; root ${rig.dir}/none; include ${rig.dir}/apps/${include}; }
server { listen 127.0.0.1:${freePort()}; location / { ${PARAMETERS} fastcgi_pass ${address}; } }`;
  const stdout = await check(rig, "include", {
    broken: block("app[0-9.inc"),
    status: 404,
    log: "No such file or directory",
    mended: block("app[0-9].inc"),
  });
  assertStringIncludes(stdout, `${rig.dir}/apps/app[0-9.inc includes nothing`);
});

testWith(NGINX, "doctor nginx finds parameters that a block does not inherit", async () => {
  await using rig = new Rig();
  const address = await rig.daemon("fastcgi", "127.0.0.1:0");
  const own = "fastcgi_param HTTPS on;";
  const location = (lines: string) =>
    `server { listen PORT; ${PARAMETERS} location / { ${lines} fastcgi_pass ${address}; } }`;
  await check(rig, "parameters", {
    broken: location(own),
    status: 500,
    log: "REQUEST_METHOD is absent",
    mended: location(`${own} ${PARAMETERS}`),
  });
  // Without parameters of its own, the block inherits them.
  assertEquals((await visit(rig, "inherited", location("")))[0], 200);
  assertEquals((await doctor("--conf", `${rig.dir}/inherited.conf`)).ids, []);
});

/** Returns the host that an app sees behind nginx, and the one that its client has sent. */
async function hosts(
  rig: Rig,
  name: string,
  blocks: string,
  host?: string,
): Promise<[string, string]> {
  const log = rig.logFile(`${name}.log`);
  const { port } = await rig.serve(
    "nginx",
    ["port"],
    ({ port }) => ["nginx", ["-e", log, "-c", write(rig, name, blocks, port)]],
  );
  const address = `127.0.0.1:${port}`;
  const sent = host ?? address;
  const { text: seen } = await request(address, "GET", "/", { name: sent });
  await rig.stop(rig.program("nginx"));
  return [seen, sent];
}

const HOSTS: [name: string, protocol: "fastcgi" | "http", broken: string, own: string][] = [
  [
    "a variable HTTP_HOST without the port",
    "fastcgi",
    "include fastcgi_params; fastcgi_param HTTP_HOST $host;",
    "include fastcgi_params; ",
  ],
  ["a header Host without the port", "http", "proxy_set_header HOST $host;", ""],
  ["the daemon's own address as the host", "http", "", ""],
];
for (const [name, protocol, broken, own] of HOSTS) {
  testWith(NGINX, `doctor nginx finds ${name}`, async () => {
    tested.add("host");
    await using rig = new Rig();
    const app = (request: Request) => new Response(new URL(request.url).host);
    const listener = { hostname: "127.0.0.1", port: 0 };
    await using daemon = protocol === "http"
      ? Deno.serve({ ...listener, onListen() {} }, app)
      : serveFastCGI(app, Deno.listen(listener));
    const { port } = daemon.addr as Deno.NetAddr;
    const pass = protocol === "http" ? "proxy_pass http://" : "fastcgi_pass ";
    const [seen, sent] = await hosts(rig, "broken", server(`${pass}127.0.0.1:${port}`, broken));
    assertNotEquals(seen, sent);
    const before = await doctor("--conf", `${rig.dir}/broken.conf`);
    assertEquals([before.code, before.ids], [1, ["host"]], before.stdout);
    // What doctor says is written.
    const [, map, line] = /block http: (.*) And in the same block: (.*)$/m.exec(before.stdout)!;
    const mended = `${map}\n${server(`${pass}127.0.0.1:${port}`, own + line)}`;
    const after = await hosts(rig, "mended", mended);
    assertEquals(after[0], after[1]);
    assertEquals((await doctor("--conf", `${rig.dir}/mended.conf`)).ids, []);
    // A mapped port: nginx does not listen on the one that the client has sent.
    const mapped = await hosts(rig, "mapped", mended, "localhost:18080");
    assertEquals(mapped, ["localhost:18080", "localhost:18080"]);
  });
}

const SCRIPTS = { ...NGINX, fcgiwrap: "fcgiwrap" };

/** Writes a script, and starts fcgiwrap. @returns The script and fcgiwrap's socket. */
async function scripts(rig: Rig): Promise<{ script: string; socket: string }> {
  const script = rig.write(
    "lib/cgi-bin/hello.cgi",
    "#!/bin/sh\nprintf 'Content-Type: text/plain\\n\\nHello'\n",
  );
  Deno.chmodSync(script, 0o755);
  const socket = `${rig.dir}/fcgiwrap.socket`;
  rig.spawn("fcgiwrap", "fcgiwrap", ["-s", `unix:${socket}`]);
  await eventually("fcgiwrap listens", () => stat(socket) !== undefined);
  Deno.chmodSync(socket, 0o777);
  return { script, socket };
}

/** Makes a fault that keeps a script from running, and mends it. */
async function checkScript(
  rig: Rig,
  id: keyof typeof NGINX_FINDINGS | keyof typeof NGINX_SCRIPT_FINDINGS,
  script: string,
  { broken, status, mended }: {
    broken: string;
    status: number;
    mended: (stdout: string) => string;
  },
): Promise<void> {
  tested.add(id);
  const site = (lines: string) => `server { listen PORT; root ${rig.dir}/www;\n${lines}\n}`;
  const args = (name: string) => ["--conf", `${rig.dir}/${name}.conf`, "--script", script];
  const [seen, log] = await visit(rig, "broken", site(broken), "/cgi-bin/hello.cgi");
  assertEquals(seen, status, log);
  const before = await doctor(...args("broken"));
  assertEquals([before.code, before.ids], [1, [id]], before.stdout);
  const [now, nothing] = await visit(
    rig,
    "mended",
    site(mended(before.stdout)),
    "/cgi-bin/hello.cgi",
  );
  assertEquals(now, 200, nothing);
  const after = await doctor(...args("mended"));
  assertEquals([after.code, after.ids], [0, []], after.stdout);
}

/** Returns what a finding says to write, with the socket of this test, and the host that the app needs. */
function said(stdout: string, socket: string): string {
  const [, lines] = /Write in the (?:block server|same block): (.*)$/m.exec(stdout)!;
  return lines.replace("include fastcgi_params;", PARAMETERS)
    .replace(/unix:\S+;/, `unix:${socket};`);
}

testWith(SCRIPTS, "doctor nginx finds that no location leads to a script", async () => {
  await using rig = new Rig();
  const { script, socket } = await scripts(rig);
  await checkScript(rig, "no-alias", script, {
    broken: `location /scripts/ { ${PARAMETERS} fastcgi_pass unix:${socket}; }`,
    status: 404,
    mended: (stdout) => said(stdout, socket),
  });
});

testWith(SCRIPTS, "doctor nginx finds a location that sends the script", async () => {
  await using rig = new Rig();
  const { script, socket } = await scripts(rig);
  await checkScript(rig, "no-handler", script, {
    broken: `location /cgi-bin/ { root ${rig.dir}/lib; }`,
    status: 200,
    mended: (stdout) => said(stdout, socket),
  });
});

testWith(SCRIPTS, "doctor nginx finds another file than the script, by an alias, too", async () => {
  await using rig = new Rig();
  const { script, socket } = await scripts(rig);
  for (
    const [folder, name] of [
      [`root ${rig.dir}/lib;`, "/srv$fastcgi_script_name"],
      // The path of the URL is in both.
      [`alias ${rig.dir}/lib/cgi-bin/;`, "$document_root$fastcgi_script_name"],
    ]
  ) {
    const location = (line: string) =>
      `location /cgi-bin/ { ${folder} ${PARAMETERS} ${line} fastcgi_pass unix:${socket}; }`;
    await checkScript(rig, "script-filename", script, {
      broken: location(`fastcgi_param SCRIPT_FILENAME ${name};`),
      status: 403,
      mended: (stdout) => location(said(stdout, socket)),
    });
  }
});

testWith(SCRIPTS, "doctor nginx finds that fcgiwrap does not run", async () => {
  await using rig = new Rig();
  const { script, socket } = await scripts(rig);
  const location = (socket: string) =>
    `location ~ ^(?<script>/cgi-bin/[^/]+)(?<rest>/.*)?$ { ${PARAMETERS}
      fastcgi_param SCRIPT_FILENAME ${rig.dir}/lib$script; fastcgi_pass unix:${socket}; }`;
  await checkScript(rig, "no-socket", script, {
    broken: location(`${rig.dir}/none.socket`),
    status: 502,
    mended: () => location(socket),
  });
});

Deno.test("doctor nginx says what to write if nothing is passed on", async () => {
  const file = await Deno.makeTempFile();
  await Deno.writeTextFile(file, "events {}\nhttp { server { listen 127.0.0.1:1; } }\n");
  try {
    const { code, stdout } = await doctor("--conf", file);
    assertEquals(code, 1);
    assertStringIncludes(stdout, "gatehouse config nginx");
  } finally {
    await Deno.remove(file);
  }
});

for (
  const [name, text, message] of [
    ["a block that does not end", "http { server {", "a directive does not end"],
    ["a directive that does not end", "worker_processes 1", "a directive does not end"],
    ["a brace too many", "events {} }", '"}" without "{"'],
    ["a quote without an end", "log_format x 'a;\n", "line 1 has a quote without an end"],
  ]
) {
  Deno.test(`doctor nginx reports ${name}`, async () => {
    const file = await Deno.makeTempFile();
    await Deno.writeTextFile(file, text);
    try {
      assertThrows(() => readNginxConfig(file), Error, message);
    } finally {
      await Deno.remove(file);
    }
  });
}

Deno.test("doctor nginx reports files that include themselves", async () => {
  const file = await Deno.makeTempFile();
  await Deno.writeTextFile(file, `include ${file};`);
  try {
    assertThrows(() => readNginxConfig(file), Error, "include each other more than");
  } finally {
    await Deno.remove(file);
  }
});

testWith(SCRIPTS, "doctor nginx: each kind of finding has a test", () => {
  const ids = [...Object.keys(NGINX_FINDINGS), ...Object.keys(NGINX_SCRIPT_FINDINGS)];
  assertEquals(ids.filter((id) => !tested.has(id)), []);
});
