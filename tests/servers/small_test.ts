/** CGI scripts behind small web servers, whose quirks `bridge/server_quirks.ts` lists. */
import { assertEquals } from "@std/assert";
import { see, type Seen } from "./behaviours.ts";
import { type Rig, Suite } from "./harness.ts";

/** A small web server, and how it differs from the others. */
interface Server {
  needs: Record<string, string>;
  /** Returns the command line that serves scripts below a directory. */
  command(rig: Rig, port: number): [command: string, args: string[]];
  /** The path of the script. @default "/cgi-bin/app.cgi" */
  base?: string;
  /** Whether it splits the path below the script. @default true */
  splits?: boolean;
  /** A path that it passes on right. @default "/a%3Fb%25%20c" */
  path?: string;
}

const SERVERS: Record<string, Server> = {
  "busybox httpd": {
    needs: { busybox: "busybox" },
    command: (
      rig,
      port,
    ) => ["busybox", ["httpd", "-f", "-p", `127.0.0.1:${port}`, "-h", `${rig.dir}/www`]],
  },
  CivetWeb: {
    needs: { civetweb: "civetweb" },
    command: (rig, port) => [
      "civetweb",
      [
        ...["-listening_ports", `127.0.0.1:${port}`, "-document_root", `${rig.dir}/www`],
        ...["-cgi_pattern", "**.cgi$"],
      ],
    ],
  },
  mini_httpd: {
    needs: { mini_httpd: "mini-httpd" },
    command: (rig, port) => [
      "mini_httpd",
      [
        ...["-D", "-h", "127.0.0.1", "-p", `${port}`, "-d", `${rig.dir}/www`],
        ...["-c", "cgi-bin/*", "-u", "root", "-i", `${rig.dir}/mini_httpd.pid`],
      ],
    ],
  },
  webfs: {
    needs: { webfsd: "webfs" },
    command: (
      rig,
      port,
    ) => ["webfsd", [
      ...["-F", "-4", "-i", "127.0.0.1", "-p", `${port}`, "-r", `${rig.dir}/www`],
      ...["-x", "/cgi-bin"],
    ]],
  },
  "Python's http.server": {
    needs: { "/usr/bin/python3": "python3" },
    command: (rig, port) => [
      "/usr/bin/python3",
      ["-m", "http.server", "--cgi", "-b", "127.0.0.1", "-d", `${rig.dir}/www`, `${port}`],
    ],
    // It decodes the path before it looks for the query.
    path: "/a%25b%20c",
  },
  WEBrick: {
    needs: { ruby: "ruby", "/usr/share/doc/ruby-webrick/copyright": "ruby-webrick" },
    command: (rig, port) => [
      "ruby",
      [
        "-e",
        `require "webrick"
server = WEBrick::HTTPServer.new(BindAddress: "127.0.0.1", Port: ${port})
trap("TERM") { server.shutdown }
server.mount("/cgi-bin/app.cgi", WEBrick::HTTPServlet::CGIHandler, "${rig.dir}/www/cgi-bin/app.cgi")
server.start`,
      ],
    ],
  },
  uWSGI: {
    needs: { uwsgi: "uwsgi-core", "/usr/lib/uwsgi/plugins/cgi_plugin.so": "uwsgi-core" },
    command: (rig, port) => [
      "uwsgi",
      [
        ...["--plugin", "cgi,http", "--die-on-term", "--http-socket", `127.0.0.1:${port}`],
        ...["--http-socket-modifier1", "9", "--cgi", `/cgi-bin=${rig.dir}/www/cgi-bin`],
      ],
    ],
  },
  Fossil: {
    needs: { fossil: "fossil" },
    command: (rig, port) => [
      "sh",
      [
        "-c",
        `fossil new -A root ${rig.dir}/a.fossil && exec fossil server --nojail --localhost --port ${port} ` +
        `--extroot ${rig.dir}/www/cgi-bin ${rig.dir}/a.fossil`,
      ],
    ],
    base: "/ext/app.cgi",
    splits: false,
  },
  Yaws: {
    needs: { yaws: "yaws" },
    command: (rig, port) => {
      const file = rig.write(
        "yaws.conf",
        `logdir = ${rig.dir}/www
<server localhost>
  port = ${port}
  listen = 127.0.0.1
  docroot = ${rig.dir}/www
  allowed_scripts = cgi
</server>
`,
      );
      const foreground = ["-i", "--erlarg", "-noinput"];
      return ["yaws", ["--conf", file, "--id", `gatehouse${port}`, ...foreground]];
    },
    // It leaves %3F and %25 in PATH_INFO, which then is not the rest of the URL.
    path: "/a%20b",
  },
  inets: {
    needs: { erl: "erlang-base", "/usr/share/doc/erlang-inets/copyright": "erlang-inets" },
    command: (rig, port) => [
      "erl",
      [
        "-noshell",
        "-eval",
        `inets:start(), {ok, _} = inets:start(httpd, [{port, ${port}}, {bind_address, {127, 0, 0, 1}},
{server_name, "localhost"}, {server_root, "${rig.dir}"}, {document_root, "${rig.dir}/www"},
{modules, [mod_alias, mod_cgi]}, {script_alias, {"/cgi-bin/", "${rig.dir}/www/cgi-bin/"}}]).`,
      ],
    ],
    splits: false,
  },
};

/** A server that runs. */
interface Running {
  host: string;
  base: string;
  /** Returns a request as the app sees it. */
  see(path: string, fields?: string[][]): Promise<Seen>;
}

for (const [name, server] of Object.entries(SERVERS)) {
  const { base = "/cgi-bin/app.cgi", splits = true, path = "/a%3Fb%25%20c" } = server;
  const suite = new Suite(name, server.needs, async (rig): Promise<Running> => {
    const script = rig.script("www/cgi-bin/app.cgi");
    // Few of them pass their environment on.
    const [first, ...lines] = Deno.readTextFileSync(script).split("\n");
    const cached = first.replace(" -S ", `$&DENO_DIR=${rig.dir}/cache `);
    Deno.writeTextFileSync(script, [cached, ...lines].join("\n"));
    const { port } = await rig.serve(name, ["port"], ({ port }) => server.command(rig, port), {
      // Erlang writes a dump into the current directory if it cannot start.
      env: { HOME: rig.dir, USER: "root", ERL_CRASH_DUMP_SECONDS: "0" },
    });
    const host = `127.0.0.1:${port}`;
    const see_ = (path: string, fields?: string[][]) => see({ host, base }, path, fields);
    return { host, base, see: see_ };
  });

  suite.test("the query reaches the app", async ({ see }) => {
    const { url, scriptName, pathInfo } = await see("?x=%20y&z=a+b%26c");
    assertEquals(new URL(url).search, "?x=%20y&z=a+b%26c");
    assertEquals([new URL(url).pathname, scriptName, pathInfo], ["/", base, ""]);
  });

  if (!splits) continue;

  suite.test("an encoded path reaches the app", async ({ see }) => {
    const { url, pathInfo } = await see(`${path}?x=%20y`);
    const { pathname, search } = new URL(url);
    assertEquals([pathname, pathInfo, search], [path, decodeURIComponent(path), "?x=%20y"]);
  });
}
