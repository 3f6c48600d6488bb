/**
 * Programs of Debian behind a gateway, compared with the same program behind Apache (CGI) or nginx (FastCGI, SCGI).
 * `deno task programs` also runs those that take more than CI installs.
 */
import { existsSync } from "node:fs";
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { cgiGateway, fastCGIGateway, type Gateway, scgiGateway } from "../../gateway.ts";
import { apacheConfig, MODULES } from "./apache.ts";
import { Client, type HTTPResponse, request } from "./client.ts";
import { serve } from "./gateway_server.ts";
import { eventually, type Rig, Suite, within } from "./harness.ts";
import { nginxCommand } from "./nginx.ts";

/** A request whose responses must be equal. */
interface Sent {
  method?: string;
  /** Path and query below the program. */
  path: string;
  fields?: string[][];
  body?: string;
  /** The status that both must send. @default 200 */
  status?: number;
}

/** How a program runs. */
interface Prepared {
  /** The script of a CGI program. */
  script?: string;
  /** The address of a FastCGI or SCGI application. */
  address?: string;
  /** Starts the application, which must have ended. */
  startAgain?(): Promise<void>;
  /** What the application is called. */
  name?: string;
  env?: Record<string, string>;
}

interface Program {
  transport: "cgi" | "fastcgi" | "scgi";
  needs: Record<string, string>;
  prepare(rig: Rig): Prepared | Promise<Prepared>;
  sent: Sent[];
  /** A text that the first response must have, as proof that it is the right one. */
  shows: string;
  /** What differs from one response to the next. */
  varies?: RegExp;
  /** Whether its library sends a response only once it has all of it. */
  buffers?: true;
  /** Whether it takes more than CI installs. */
  heavy?: true;
}

/**
 * The fields that may differ: those of the server and of the connection, and how the body is framed. Apache adds a length
 * to bodies that it has whole at once.
 */
const OWN = [
  ...["connection", "date", "keep-alive", "server"],
  ...["content-length", "transfer-encoding"],
];

const PYTHON_APP = `import os, time
def application(environ, start_response):
    path = environ.get("PATH_INFO", "")
    length = int(environ.get("CONTENT_LENGTH") or 0)
    body = environ["wsgi.input"].read(length)
    if path == "/stream":
        start_response("200 OK", [("Content-Type", "text/plain")])
        return parts(environ["QUERY_STRING"])
    headers = [("Content-Type", "text/plain"), ("Set-Cookie", "a=1; Path=/"), ("Set-Cookie", "b=2")]
    if path == "/missing":
        start_response("404 Not Found", headers)
        return [b"no such thing\\n"]
    if path == "/away":
        start_response("303 See Other", headers + [("Location", "http://localhost/x")])
        return [b""]
    start_response("200 OK", headers + [("ETag", '"1"')])
    names = ["REQUEST_METHOD", "SCRIPT_NAME", "PATH_INFO", "QUERY_STRING", "CONTENT_TYPE", "HTTP_X_TEST"]
    text = "".join("%s=%s\\n" % (name, environ.get(name, "")) for name in names)
    return [text.encode("latin-1"), body]

def parts(file):
    yield b"first\\n"
    end = time.time() + 20
    while not os.path.exists(file) and time.time() < end:
        time.sleep(0.01)
    yield b"second\\n"
`;

const APP_SENT: Sent[] = [
  { path: "/a%20b/%C3%A4?x=%20y&z=a+b" },
  { path: "/", fields: [["X-Test", "caf\u00e9"]] },
  { method: "HEAD", path: "/" },
  { method: "POST", path: "/form", body: "name=Ann", fields: [["Content-Type", "text/x-form"]] },
  { method: "PUT", path: "/put", body: "x".repeat(100_000) },
  { method: "DELETE", path: "/deleted" },
  { method: "PROPFIND", path: "/dav", body: "<propfind/>", fields: [["Depth", "1"]] },
  { path: "/missing", status: 404 },
  { path: "/away", status: 303 },
];

const RACK = `
require "rack"
class Parts
  def initialize(file)
    @file = file
  end
  def each
    File.write(@file + ".begun", "")
    yield "first\\n"
    2000.times { break if File.exist?(@file); sleep 0.01 }
    yield "second\\n"
  end
end
app = lambda do |env|
  headers = {"Content-Type" => "text/plain", "Set-Cookie" => "a=1; path=/\\nb=2"}
  body = env["rack.input"].read
  case env["PATH_INFO"]
  when "/stream" then [200, {"Content-Type" => "text/plain"}, Parts.new(env["QUERY_STRING"])]
  when "/missing" then [404, headers, ["no such thing\\n"]]
  when "/away" then [303, headers.merge("Location" => "http://localhost/x"), []]
  else
    names = %w(REQUEST_METHOD SCRIPT_NAME PATH_INFO QUERY_STRING CONTENT_TYPE HTTP_X_TEST)
    [200, headers.merge("ETag" => '"1"'), [names.map { |name| "#{name}=#{env[name]}\\n" }.join, body]]
  end
end
`;
const RACK_NEEDS = {
  ruby: "ruby",
  "/usr/share/doc/ruby-rack/copyright": "ruby-rack",
};

const MOJOLICIOUS = `#!/usr/bin/perl
use Mojolicious::Lite -signatures;
app->log->level("fatal");
app->secrets(["for the test"]);
any "/away" => sub ($c) { $c->res->code(303); $c->redirect_to("http://localhost/x") };
any "/stream" => sub ($c) {
  my $file = $c->req->query_params->to_string;
  $c->write_chunk("first\\n", sub ($c, @) {
    for (1 .. 2000) { last if -e $file; select undef, undef, undef, 0.01 }
    $c->write_chunk("second\\n", sub ($c, @) { $c->finish });
  });
};
any "/missing" => sub ($c) { $c->render(text => "no such thing\\n", status => 404) };
any "/*rest" => {rest => ""} => sub ($c) {
  $c->cookie(a => 1); $c->cookie(b => 2);
  $c->res->headers->etag('"1"');
  my $r = $c->req;
  $c->render(text => join("\\n", $r->method, $r->url->path, $r->url->query, $c->stash("rest"),
    $r->headers->header("X-Test") // "", $r->body), format => "txt");
};
app->start;
`;

const HGWEB = "/usr/share/doc/mercurial-common/examples/hgweb.cgi";

async function run(rig: Rig, command: string, ...args: string[]): Promise<void> {
  const env = { HOME: rig.dir, USER: "test", HGRCPATH: "", HGUSER: "test" };
  const child = new Deno.Command(command, { args, cwd: rig.dir, env, stdin: "null" }).output();
  const { success, stderr } = await within(`${command} ${args[0]}`, child, 60_000);
  assert(success, `${args.join(" ")}: ${new TextDecoder().decode(stderr)}`);
}

/** Writes a script that both servers may run. */
function script(rig: Rig, name: string, text: string): string {
  const path = rig.write(name, text);
  Deno.chmodSync(path, 0o755);
  return path;
}

/** Waits until something listens on a Unix socket. Does not connect: not every application survives who sends nothing. */
async function listens(path: string): Promise<void> {
  const listening = new RegExp(` 00010000 .* ${RegExp.escape(path)}$`, "m");
  // Deno itself may read it with all permissions only.
  const sockets = new Deno.Command("cat", { args: ["/proc/net/unix"] });
  await eventually(`something listens on ${path}`, async () => {
    const { stdout } = await sockets.output();
    return listening.test(new TextDecoder().decode(stdout));
  });
  Deno.chmodSync(path, 0o777);
}

/** Starts an application on a Unix socket. */
async function application(
  rig: Rig,
  socket: string,
  name: string,
  command: string,
  args: string[],
): Promise<Prepared> {
  const startAgain = async () => {
    await Deno.remove(socket).catch(() => {});
    rig.spawn(name, command, args);
    await listens(socket);
  };
  await startAgain();
  return { address: `unix:${socket}`, startAgain, name };
}

function rack(rig: Rig): Promise<Prepared> {
  const socket = `${rig.dir}/rack.sock`;
  const end = `require "fcgi"\nRack::Handler::FastCGI.run app, File: "${socket}"\n`;
  return application(rig, socket, "Rack", "ruby", [rig.write("app.rb", RACK + end)]);
}

function uwsgi(rig: Rig, protocol: "fastcgi" | "scgi"): Promise<Prepared> {
  rig.write("app.py", PYTHON_APP);
  const socket = `${rig.dir}/uwsgi.sock`;
  return application(rig, socket, "uWSGI", "uwsgi", [
    ...["--plugin", "python3", "--chdir", rig.dir, "--module", "app", "--processes", "2"],
    ...["--die-on-term", `--${protocol}-socket`, socket, "--chmod-socket=666"],
  ]);
}

const PROGRAMS: Record<string, Program> = {
  hgweb: {
    transport: "cgi",
    needs: { hg: "mercurial", [HGWEB]: "mercurial" },
    async prepare(rig) {
      const repository = `${rig.dir}/repository`;
      await run(rig, "hg", "init", repository);
      Deno.writeTextFileSync(`${repository}/file`, "a file's text\n");
      await run(rig, "hg", "-R", repository, "add", "-q", `${repository}/file`);
      const commit = ["commit", "-q", "-u", "Test", "-d", "0 0", "-m", "the first commit"];
      await run(rig, "hg", "-R", repository, ...commit);
      const text = Deno.readTextFileSync(HGWEB).replace("/path/to/repo/or/config", repository)
        .replace(/.*/, "#!/usr/bin/python3");
      return { script: script(rig, "hgweb.cgi", text), env: { HGRCPATH: "" } };
    },
    shows: "the first commit",
    sent: [
      { path: "/log" },
      { method: "HEAD", path: "/log" },
      { path: "/raw-file/tip/file" },
      { path: "/file/tip/nothing", status: 404 },
      { path: "?cmd=capabilities" },
      { path: "?cmd=branchmap" },
      { path: "/rss-log" },
    ],
    varies: /(?:class="age">|<lastBuildDate>|<pubDate>)[^<]*/g,
  },
  AWStats: {
    transport: "cgi",
    needs: { "/usr/lib/cgi-bin/awstats.pl": "awstats" },
    async prepare(rig) {
      const line = (second: number, path: string) =>
        `192.0.2.${second} - - [02/Nov/2026:10:00:0${second} +0000] "GET ${path} HTTP/1.1" 200 100 "-" "Mozilla/5.0"\n`;
      const log = rig.write("access.log", line(1, "/a.html") + line(2, "/b.html"));
      rig.write(
        "awstats/awstats.test.conf",
        `LogFile="${log}"
LogFormat=1
SiteDomain="test.example"
HostAliases="localhost"
DirData="${rig.dir}/awstats"
DNSLookup=0
AllowFullYearView=2
`,
      );
      const program = "/usr/lib/cgi-bin/awstats.pl";
      await run(rig, program, "-config=test", `-configdir=${rig.dir}/awstats`, "-update");
      return { script: program, env: { AWSTATS_ENABLE_CONFIG_DIR: `${rig.dir}/awstats` } };
    },
    shows: "test.example",
    sent: [
      { path: "?config=test&configdir=DIR/awstats&month=11&year=2026" },
      { method: "HEAD", path: "?config=test&configdir=DIR/awstats&month=11&year=2026" },
      { path: "?config=test&configdir=DIR/awstats&month=11&year=2026&output=urldetail" },
      { path: "?config=unknown&configdir=DIR/awstats" },
    ],
    // It sends the time in the form of asctime(), which Apache turns into that of HTTP.
    varies: /(?<=(?:last-modified|expires): ).*/g,
  },
  Nagios: {
    transport: "cgi",
    needs: { "/usr/lib/cgi-bin/nagios4/status.cgi": "nagios4-cgi" },
    prepare(rig) {
      const objects = rig.write(
        "objects.cache",
        `define timeperiod {
	timeperiod_name	always
	alias	always
	}
define command {
	command_name	check
	command_line	/bin/true
	}
define contact {
	contact_name	ann
	host_notification_period	always
	service_notification_period	always
	host_notification_commands	check
	service_notification_commands	check
	}
define host {
	host_name	machine
	address	192.0.2.1
	check_command	check
	check_period	always
	notification_period	always
	max_check_attempts	3
	}
`,
      );
      const status = rig.write(
        "status.dat",
        `info {
	created=1793959200
	version=4.4.6
	}
programstatus {
	program_start=1793959200
	}
hoststatus {
	host_name=machine
	current_state=0
	has_been_checked=1
	last_check=1793959200
	plugin_output=all is well
	}
`,
      );
      const main = rig.write(
        "nagios.cfg",
        `object_cache_file=${objects}\nstatus_file=${status}\nlog_file=${rig.dir}/nagios.log\n`,
      );
      rig.write("nagios.log", "");
      const config = rig.write(
        "cgi.cfg",
        `main_config_file=${main}\nphysical_html_path=/usr/share/nagios4/htdocs\nurl_html_path=/nagios4
use_authentication=0\n`,
      );
      return {
        script: "/usr/lib/cgi-bin/nagios4/status.cgi",
        env: { NAGIOS_CGI_CONFIG: config },
      };
    },
    shows: "all is well",
    sent: [
      { path: "?hostgroup=all&style=hostdetail" },
      { method: "HEAD", path: "?hostgroup=all&style=hostdetail" },
      { path: "?host=none" },
    ],
    // It shows the time, and one of two videos.
    varies:
      /Last Updated: [^<]*|\d+d +\d+h +\d+m +\d+s\+?|vboxText = .*|vidurl:.*|vBoxId='\w+'|(?<=(?:last-modified|expires): ).*/g,
  },
  SmokePing: {
    transport: "cgi",
    needs: { "/usr/share/smokeping/smokeping.cgi": "smokeping" },
    prepare(rig) {
      for (const name of ["images", "data", "state"]) {
        Deno.mkdirSync(`${rig.dir}/${name}`);
        Deno.chmodSync(`${rig.dir}/${name}`, 0o777);
      }
      const config = rig.write(
        "smokeping.conf",
        `*** General ***
owner    = Test
contact  = test@localhost
mailhost = localhost
imgcache = ${rig.dir}/images
imgurl   = ../images
datadir  = ${rig.dir}/data
piddir   = ${rig.dir}/state
cgiurl   = http://localhost/smokeping
smokemail = /etc/smokeping/smokemail
tmail = /etc/smokeping/tmail
*** Database ***
step     = 300
pings    = 20
AVERAGE  0.5   1  1008
*** Presentation ***
template = /etc/smokeping/basepage.html
+ overview
width = 600
height = 50
range = 10h
+ detail
width = 600
height = 200
"Last 3 Hours"    3h
*** Probes ***
+ FPing
binary = /usr/bin/fping
*** Targets ***
probe = FPing
menu = Top
title = Network of the test
`,
      );
      const text = `#!/bin/sh\nexec /usr/share/smokeping/smokeping.cgi ${config}\n`;
      return { script: script(rig, "smokeping.cgi", text) };
    },
    shows: "Network of the test",
    sent: [{ path: "" }, { method: "HEAD", path: "" }],
    varies: /(?<=expires: ).*/g,
    heavy: true,
  },
  "Mojolicious as CGI": {
    transport: "cgi",
    needs: { perl: "perl", "/usr/share/perl5/Mojolicious.pm": "libmojolicious-perl" },
    prepare: (rig) => ({ script: script(rig, "app.pl", MOJOLICIOUS) }),
    shows: "GET",
    sent: APP_SENT,
  },
  "Rack as CGI": {
    transport: "cgi",
    needs: RACK_NEEDS,
    prepare: (rig) => ({
      script: script(rig, "rack.rb", `#!/usr/bin/ruby\n${RACK}Rack::Handler::CGI.run app\n`),
    }),
    shows: "PATH_INFO=/a b/",
    sent: APP_SENT,
  },
  "Rack over FastCGI": {
    transport: "fastcgi",
    needs: { ...RACK_NEEDS, "/usr/lib/ruby/vendor_ruby/fcgi.rb": "ruby-fcgi" },
    prepare: rack,
    buffers: true,
    shows: "PATH_INFO=/a b/",
    sent: APP_SENT,
  },
  "uWSGI over FastCGI": {
    transport: "fastcgi",
    needs: {
      uwsgi: "uwsgi-core",
      "/usr/lib/uwsgi/plugins/python3_plugin.so": "uwsgi-plugin-python3",
    },
    prepare: (rig) => uwsgi(rig, "fastcgi"),
    shows: "PATH_INFO=/a b/",
    sent: APP_SENT,
  },
  "uWSGI over SCGI": {
    transport: "scgi",
    needs: {
      uwsgi: "uwsgi-core",
      "/usr/lib/uwsgi/plugins/python3_plugin.so": "uwsgi-plugin-python3",
    },
    prepare: (rig) => uwsgi(rig, "scgi"),
    shows: "PATH_INFO=/a b/",
    sent: APP_SENT,
  },
};

/** The same program twice. */
interface Both {
  gateway: string;
  server: string;
  log: string[];
  prepared: Prepared;
}

const BASE = "/program";

/** Serves a CGI program with Apache. */
async function apache(rig: Rig, { script, env = {} }: Prepared): Promise<number> {
  const modules = "mpm_event alias env cgid".split(" ");
  const set = Object.entries(env).map(([name, value]) => `SetEnv ${name} "${value}"`).join("\n");
  const { port } = await rig.serve("apache2", ["port"], ({ port }) => {
    const site =
      `ScriptAlias ${BASE} ${script}\n${set}\n<Location />\nRequire all granted\n</Location>`;
    const text = apacheConfig(rig, modules, { [port]: site });
    const file = rig.write("apache.conf", `${text}ScriptSock ${rig.dir}/cgid.sock\n`);
    return ["apache2", ["-DFOREGROUND", "-f", file]];
  });
  return port;
}

/** Passes requests to an application with nginx. */
async function nginx(rig: Rig, protocol: string, address: string): Promise<number> {
  const { port } = await rig.serve("nginx", ["port"], ({ port }) =>
    nginxCommand(rig, [`
server {
  listen 127.0.0.1:${port};
  client_max_body_size 20m;
  location ~ ^${BASE}(?<rest>.*)$ {
    include ${protocol}_params;
    ${protocol}_param SCRIPT_NAME ${BASE};
    ${protocol}_param PATH_INFO $rest;
    ${protocol}_pass ${address};
  }
}`]));
  return port;
}

async function start(program: Program, rig: Rig): Promise<Both> {
  const prepared = await program.prepare(rig);
  const { script = "", address = "", env } = prepared;
  const { transport } = program;
  const lines: string[] = [];
  const options = { basePath: BASE, log: (line: string) => lines.push(line) } as const;
  let gateway: Gateway;
  if (transport === "cgi") gateway = cgiGateway({ ...options, script, env });
  else if (transport === "fastcgi") gateway = fastCGIGateway(`unix:${address.slice(5)}`, options);
  else gateway = scgiGateway(`unix:${address.slice(5)}`, options);
  const port = transport === "cgi"
    ? await apache(rig, prepared)
    : await nginx(rig, transport, address);
  return { gateway: serve(gateway), server: `127.0.0.1:${port}`, log: lines, prepared };
}

/** Returns of a response what must be equal. */
function comparable({ status, head, text }: HTTPResponse, host: string, varies?: RegExp) {
  const [name, port] = host.split(":");
  const plain = (text: string) =>
    text.replaceAll(host, "HOST").replaceAll(`${name}%3A${port}`, "HOST").replaceAll(port, "PORT")
      .replaceAll(varies ?? /(?!)/g, "VARIES");
  const fields = head.fields.filter(([name]) => !OWN.includes(name));
  return {
    status,
    fields: fields.map((field) => plain(field.join(": "))).sort(),
    text: plain(text),
  };
}

for (const [name, program] of Object.entries(PROGRAMS)) {
  if (program.heavy && Deno.env.get("GATEHOUSE_PROGRAMS") !== "1") continue;
  const server: Record<string, string> = program.transport === "cgi"
    ? { apache2: "apache2", [`${MODULES}/mod_cgid.so`]: "apache2-bin" }
    : { nginx: "nginx-light" };
  const suite = new Suite(
    `gateway: ${name}`,
    { ...program.needs, ...server },
    (rig) => start(program, rig),
  );

  for (const [i, sent] of program.sent.entries()) {
    const { method = "GET", path, fields, status = 200 } = sent;
    suite.test(`${method} ${path} is as behind another server`, async (both, rig) => {
      const body = sent.body === undefined ? undefined : new TextEncoder().encode(sent.body);
      const target = `${BASE}${path.replaceAll("DIR", rig.dir)}`;
      const get = async (host: string) =>
        comparable(await request(host, method, target, { fields, body }), host, program.varies);
      const [ours, theirs] = [await get(both.gateway), await get(both.server)];
      assertEquals(ours, theirs);
      assertEquals(ours.status, status, ours.text);
      if (method === "HEAD") assertEquals(ours.text, "");
      if (i === 0) assertStringIncludes(ours.text, program.shows);
    });
  }

  if (program.sent === APP_SENT && !program.buffers) {
    suite.test("streams", async ({ gateway }, rig) => {
      using client = await Client.connect(gateway);
      const file = `${rig.dir}/go-on-${crypto.randomUUID()}`;
      await client.sendHead("GET", `${BASE}/stream?${file}`);
      const head = await within("the head", client.readHead());
      let text = "";
      for await (const part of client.readParts(head)) {
        text += new TextDecoder().decode(part);
        if (text === "first\n") Deno.writeTextFileSync(file, "");
      }
      assertEquals(text, "first\nsecond\n");
      // The application waits for the file for 20 seconds.
      assert(Deno.statSync(file).isFile);
    });
  }

  // The last test, as it leaves no application behind.
  if (program.transport !== "cgi") {
    suite.test(
      "a restart between requests loses none, and one during a request shows",
      async (both, rig) => {
        const { gateway, prepared: { name, startAgain } } = both;
        const stop = () => {
          const program = rig.program(name!);
          // On SIGTERM uWSGI waits for its requests.
          Deno.kill(-program.process.pid, "SIGKILL");
          return rig.stop(program);
        };
        const status = async () => (await request(gateway, "GET", `${BASE}/`)).status;
        assertEquals(await status(), 200);
        // The gateway may still have an idle connection.
        await stop();
        await startAgain!();
        assertEquals(await status(), 200);
        await stop();
        assertEquals(await status(), 502);
        await startAgain!();
        using client = await Client.connect(gateway);
        const file = `${rig.dir}/never-${crypto.randomUUID()}`;
        await client.sendHead("GET", `${BASE}/stream?${file}`);
        if (program.buffers) {
          await eventually("the request has begun", () => existsSync(`${file}.begun`));
          await stop();
          assertEquals((await client.readResponse()).status, 502);
        } else {
          const head = await within("the head", client.readHead());
          const parts = client.readParts(head);
          const { value } = await within("the first part", parts.next());
          assertEquals(new TextDecoder().decode(value!), "first\n");
          await stop();
          const { bytes, outcome } = await client.readCut(head, parts);
          assertEquals(bytes.length, 0);
          // The end of an SCGI response is that of its connection.
          assertEquals(outcome, program.transport === "scgi" ? "whole" : "error");
        }
        await startAgain!();
        assertEquals(await status(), 200);
        // uWSGI may not yet take SIGTERM.
        await stop();
      },
    );
  }
}
