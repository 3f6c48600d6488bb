/** CGI scripts behind small web servers, whose quirks `bridge/server_quirks.ts` lists. */
import { assert, assertEquals, assertFalse, assertStringIncludes } from "@std/assert";
import { toByteString } from "../../wire/byte_string.ts";
import { see, type Seen } from "./behaviours.ts";
import { Client, request } from "./client.ts";
import { configuration, type Rig, snippet, Suite } from "./harness.ts";

/** A small web server, and how it differs from the others. */
interface Server {
  needs: Record<string, string>;
  /** Returns the command line that serves scripts below a directory. */
  command(rig: Rig, port: number): [command: string, args: string[]];
  /** The path of the script. @default "/cgi-bin/app.cgi" */
  base?: string;
  /** Whether it splits the path below the script. @default true */
  splits?: boolean;
  /**
   * The status of a POST, a PUT and a chunked upload; false where the server refuses a PUT before the script runs, or closes
   * the connection before the response to an upload.
   *
   * @default 200
   */
  uploads?: { post?: number; put?: number | false; chunked?: number } | false;
  /**
   * The statuses that a client gets of 303 and 201 with a Location; false if it follows the Location itself.
   *
   * @default [303, 201]
   */
  location?: [number, number] | false;
  /** Whether it sends a response as the script has written it. @default true */
  faithful?: boolean;
  /** Whether it responds with 200 whatever status the script sends. */
  ignoresStatus?: true;
  /** A path that it passes on right. @default "/a%3Fb%25%20c" */
  path?: string;
  /** How the app sees the fields of `FIELDS`: Authorization, a repeated field, a repeated Cookie, and text. */
  fields: [authorization?: string, repeated?: string, cookies?: string, text?: string];
  /** Paths below the script that it does not run the script for, each with its status. */
  refuses?: Record<string, number>;
  /** Whether it sends a page of its own in place of an error that the script responds with. */
  replacesErrors?: true;
  /** Whether it takes more than CI installs: `deno task programs` runs it. */
  heavy?: true;
}

const BASIC = `Basic ${btoa("ann:open sesame")}`;
const TEXT = toByteString("caf\u00e9");

const FIELDS = [
  ["Authorization", BASIC],
  ...[["X-A", "1"], ["X-A", "2"], ["Cookie", "a=1"], ["Cookie", "b=2"]],
  ["X-Text", "caf\u00e9"],
];

const SERVERS: Record<string, Server> = {
  "busybox httpd": {
    fields: [, "2", "b=2", TEXT],
    needs: { busybox: "busybox" },
    command: (rig, port) => {
      const text = printed("busybox", rig, port);
      const [_, args] = /^# {3}busybox (httpd .*)$/m.exec(text)!;
      const file = rig.write("httpd.conf", text);
      return ["busybox", args.replace("/etc/httpd.conf", file).split(" ")];
    },
    uploads: { put: 411, chunked: 411 },
    refuses: { "/a%2Fb": 404 },
  },
  CivetWeb: {
    fields: [BASIC, "2", "b=2", TEXT],
    needs: { civetweb: "civetweb" },
    command: (rig, port) => shown("civetweb", rig, { "0.0.0.0:80": `127.0.0.1:${port}` }),
    // Unless a file of passwords for PUT is set.
    uploads: { put: 401 },
  },
  mini_httpd: {
    fields: [, , "b=2"],
    needs: { mini_httpd: "mini-httpd" },
    command: (rig, port) => {
      const file = rig.write("mini-httpd.conf", printed("mini_httpd", rig, port));
      return ["mini_httpd", ["-D", "-C", file]];
    },
    // It closes the connection before the response to a POST, and passes no body of a PUT on.
    uploads: false,
  },
  webfs: {
    fields: [BASIC, "2", "b=2", TEXT],
    needs: { webfsd: "webfs" },
    command: (rig, port) => shown("webfsd", rig, { "-p 80": `-p ${port}` }),
    uploads: { post: 501, put: 501, chunked: 501 },
  },
  "Python's http.server": {
    fields: [, , "a=1, b=2"],
    needs: { "/usr/bin/python3": "python3" },
    command: (rig, port) =>
      shown("python3", rig, { python3: "/usr/bin/python3", "www 80": `www ${port}` }),
    // It decodes the path before it looks for the query.
    path: "/a%25b%20c",
    uploads: { put: false, chunked: 411 },
    ignoresStatus: true,
  },
  WEBrick: {
    fields: [BASIC, "1, 2", "a=1, b=2", TEXT],
    needs: { ruby: "ruby", "/usr/share/doc/ruby-webrick/copyright": "ruby-webrick" },
    command: (rig, port) => {
      const program = snippet("ruby", "webrick", {
        "0.0.0.0": "127.0.0.1",
        "Port: 80": `Port: ${port}`,
        "/srv/www": `${rig.dir}/www`,
      });
      return ["ruby", ["-e", program]];
    },
    uploads: { put: 405 },
    location: [303, 302],
  },
  uWSGI: {
    fields: [BASIC, "1, 2", "a=1, b=2", TEXT],
    needs: { uwsgi: "uwsgi-core", "/usr/lib/uwsgi/plugins/cgi_plugin.so": "uwsgi-core" },
    command: (rig, port) => ["uwsgi", [rig.write("app.ini", printed("uwsgi", rig, port))]],
    uploads: { chunked: 411 },
  },
  Fossil: {
    fields: [, , "a=1"],
    needs: { fossil: "fossil" },
    command: (rig, port) => {
      const replace = {
        "--port 80": `--nojail --localhost --port ${port}`,
        "/srv/site.fossil": `${rig.dir}/site.fossil`,
      };
      const [command, args] = shown("fossil", rig, replace);
      const line = [command, ...args].join(" ");
      return ["sh", ["-c", `fossil new -A root ${rig.dir}/site.fossil && exec ${line}`]];
    },
    base: "/ext/app.cgi",
    refuses: { "/a%20b": 404 },
    splits: false,
    uploads: { put: 501, chunked: 411 },
    location: [302, 302],
    // It puts text into a page of its own.
    faithful: false,
  },
  Yaws: {
    fields: [BASIC, "1", "a=1;b=2", toByteString(TEXT)],
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
    uploads: { chunked: 411 },
  },
  Tomcat: {
    fields: [BASIC, "1", "a=1", toByteString(TEXT)],
    heavy: true,
    needs: { java: "default-jre-headless", "/usr/share/tomcat10/bin/bootstrap.jar": "tomcat10" },
    command: (rig, port) => {
      // As in a context of its own, in place of the root.
      const text = printed("tomcat", rig, port);
      const [context, application] = text.split(/^(?=<!-- .*WEB-INF\/web.xml)/m);
      rig.write("conf/Catalina/localhost/site.xml", context);
      rig.write(
        "www/WEB-INF/web.xml",
        application.replace("/usr/local/bin:", "").replace("/var/cache/deno", `${rig.dir}/cache`),
      );
      const [connector] = /<Connector .*\/>/.exec(context)!;
      rig.write(
        "conf/server.xml",
        `<Server port="-1"><Service name="Catalina">${connector}
<Engine name="Catalina" defaultHost="localhost"><Host name="localhost" appBase="webapps"/></Engine>
</Service></Server>`,
      );
      Deno.copyFileSync("/etc/tomcat10/web.xml", `${rig.dir}/conf/web.xml`);
      Deno.mkdirSync(`${rig.dir}/webapps`, { recursive: true });
      const home = "/usr/share/tomcat10";
      return ["java", [
        ...[`-Dcatalina.home=${home}`, `-Dcatalina.base=${rig.dir}`],
        ...[`-Djava.io.tmpdir=${rig.dir}`, "-cp"],
        `${home}/bin/bootstrap.jar:${home}/bin/tomcat-juli.jar`,
        ...["org.apache.catalina.startup.Bootstrap", "start"],
      ]];
    },
    base: "/site/cgi-bin/app.cgi",
    refuses: { "/a%2Fb": 400 },
    uploads: { put: 500, chunked: 411 },
    replacesErrors: true,
  },
  inets: {
    fields: [BASIC, "2", "b=2", toByteString(TEXT)],
    needs: { erl: "erlang-base", "/usr/share/doc/erlang-inets/copyright": "erlang-inets" },
    command: (rig, port) => {
      const program = snippet("erlang", "inets", {
        "{port, 80}": `{port, ${port}}`,
        "{0, 0, 0, 0}": "{127, 0, 0, 1}",
        "/srv": rig.dir,
      });
      return ["erl", ["-noshell", "-eval", program]];
    },
    splits: false,
    location: false,
    // It sends all in chunks, and the length, too.
    faithful: false,
  },
};

/** Returns what `config` prints for a server that runs the rig's script. */
function printed(name: string, rig: Rig, port: number): string {
  const app = `${rig.dir}/www/cgi-bin/app.cgi`;
  return configuration(name, "--listen", `127.0.0.1:${port}`, "--app", app);
}

/** Returns a command line of docs/servers.md, with the rig's folder. */
function shown(
  name: string,
  rig: Rig,
  replace: Record<string, string>,
): [command: string, args: string[]] {
  const lines = snippet("sh", "small").split("\n");
  let line = lines.find((line) => line.startsWith(`${name} `))!;
  for (const [from, to] of Object.entries(replace)) {
    assert(line.includes(from), `${line} must have ${from}`);
    line = line.replace(from, to);
  }
  line = line.replace("0.0.0.0", "127.0.0.1").replaceAll("/srv/www", `${rig.dir}/www`);
  const [command, ...args] = line.replaceAll("'", "").split(" ");
  return [command, args];
}

/** A server that runs. */
interface Running {
  host: string;
  base: string;
  /** Returns a request as the app sees it. */
  see(path: string, fields?: string[][]): Promise<Seen>;
  /** Sends a body and returns the status, and if it is 200 how the app sees the body. */
  upload(method: string, fields: string[][], body: string): Promise<unknown>;
}

async function start(name: string, server: Server, rig: Rig): Promise<Running> {
  const { base = "/cgi-bin/app.cgi" } = server;
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
  return {
    host,
    base,
    see: (path, fields) => see({ host, base }, path, fields),
    async upload(method, fields, body) {
      using client = await Client.connect(host);
      const all = [...fields, ["Content-Type", "text/plain"], ["Connection", "close"]];
      await client.sendHead(method, `${base}?route=/sum`, all);
      // A server may respond before it reads the body.
      client.send(body).catch(() => {});
      const { status, head, text } = await client.readResponse();
      const said = server.ignoresStatus ? parseInt(head.get("status")!) : status;
      return said === 200 ? JSON.parse(text) : said;
    },
  };
}

const BODY = "12345".repeat(20_000);

async function sha256(text: string): Promise<string> {
  const bytes = new TextEncoder().encode(text);
  return new Uint8Array(await crypto.subtle.digest("SHA-256", bytes)).toHex();
}

for (const [name, server] of Object.entries(SERVERS)) {
  if (server.heavy && Deno.env.get("GATEHOUSE_PROGRAMS") !== "1") continue;
  const { base = "/cgi-bin/app.cgi", splits = true, path = "/a%3Fb%25%20c" } = server;
  const suite = new Suite(name, server.needs, (rig) => start(name, server, rig));

  suite.test("the query reaches the app", async ({ see }) => {
    const { url, scriptName, pathInfo } = await see("?x=%20y&z=a+b%26c");
    assertEquals(new URL(url).search, "?x=%20y&z=a+b%26c");
    assertEquals([new URL(url).pathname, scriptName, pathInfo], ["/", base, ""]);
  });

  if (splits) {
    suite.test("an encoded path reaches the app", async ({ see }) => {
      const { url, pathInfo } = await see(`${path}?x=%20y`);
      const { pathname, search } = new URL(url);
      assertEquals([pathname, pathInfo, search], [path, decodeURIComponent(path), "?x=%20y"]);
    });
  }

  for (const [path, status] of Object.entries(server.refuses ?? {})) {
    suite.test(`it responds to ${path} itself`, async ({ host, base }) => {
      assertEquals((await request(host, "GET", base + path)).status, status);
    });
  }

  if (name === "Fossil") {
    suite.test("it runs no script whose name begins with json", async ({ host }, rig) => {
      rig.script("www/cgi-bin/json.cgi");
      rig.script("www/cgi-bin/other.cgi");
      const status = async (script: string) =>
        (await request(host, "GET", `/ext/${script}?route=/nothing`)).status;
      assertEquals([await status("other.cgi"), await status("json.cgi")], [204, 404]);
    });
  }

  suite.test("only headers of the client reach the app", async ({ see }) => {
    // Some pass on only a few that they know.
    const { headers } = await see("", [["User-Agent", "test"]]);
    // Python invents a type.
    const { host: _host, "content-type": _type, ...others } = headers;
    assertEquals(others, { "user-agent": "test" });
  });

  suite.test("fields that servers drop, join and convert reach the app so", async ({ see }) => {
    const { headers } = await see("", FIELDS);
    const { authorization, cookie, "x-a": repeated, "x-text": text } = headers;
    assertEquals(
      [authorization, repeated, cookie, text],
      Array.from({ ...server.fields, length: 4 }),
    );
  });

  const { location = [303, 201], faithful = true } = server;
  if (location !== false) {
    suite.test("a Location reaches the client with its status", async ({ host, base }) => {
      for (const [i, route] of ["/redirect", "/created"].entries()) {
        const { head } = await request(host, "GET", `${base}?route=${route}`);
        const status = server.ignoresStatus ? parseInt(head.get("status")!) : head.status;
        assertEquals(status, location[i]);
        assertEquals(new URL(head.get("location")!, `http://${host}`).pathname, "/hello");
      }
    });
  }

  if (faithful) {
    suite.test("a body reaches the client with its length", async ({ host, base }) => {
      const { head, text } = await request(host, "GET", `${base}?route=/hello`);
      assertEquals([head.all("content-length"), text], [["6"], "Hello\n"]);
      assertEquals(head.all("transfer-encoding"), []);
    });
  }

  suite.test("an error is no part of the response", async ({ host, base }) => {
    const { head, text } = await request(host, "GET", `${base}?route=/throw`);
    assertEquals(server.ignoresStatus ? parseInt(head.get("status")!) : head.status, 500);
    const fields = JSON.stringify(head.fields);
    assert(head.fields.every(([name]) => /^[\w-]+$/.test(name)), fields);
    assertFalse((fields + text).includes("the cause, which is secret"), fields + text);
    if (server.replacesErrors) assertStringIncludes(text, "<!doctype html>");
    else if (faithful) assertEquals(text, "500 Internal Server Error\n");
  });

  if (server.uploads === false) continue;
  const { post = 200, put = 200, chunked = 200 } = server.uploads ?? {};

  for (const [method, status] of Object.entries({ POST: post, PUT: put })) {
    if (status === false) continue;
    suite.test(`the body of a ${method} arrives whole or not at all`, async ({ upload }) => {
      const body = status === 200 ? BODY : "12345";
      const { length } = body;
      const seen = await upload(method, [["Content-Length", `${length}`]], body);
      if (status !== 200) return assertEquals(seen, status);
      assertEquals(seen, { length, sha256: await sha256(body), declared: String(length) });
    });
  }

  suite.test("a chunked body arrives whole or not at all", async ({ upload }) => {
    const body = chunked === 200 ? BODY : "12345";
    const { length } = body;
    const chunks = `${length.toString(16)}\r\n${body}\r\n0\r\n\r\n`;
    const seen = await upload("POST", [["Transfer-Encoding", "chunked"]], chunks);
    if (chunked !== 200) return assertEquals(seen, chunked);
    const { declared } = seen as { declared: unknown };
    assertEquals(seen, { length, sha256: await sha256(body), declared });
  });
}
