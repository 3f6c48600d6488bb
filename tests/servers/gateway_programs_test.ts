/** Programs that people put behind a web server: Git, gitweb, cgit, Fossil, MapServer and CGI::Fast. */
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { cgiGateway, fastCGIGateway, type Gateway, scgiGateway } from "../../gateway.ts";
import { concat, text } from "../testing/bytes.ts";
import { FastCGIClient, request as requestRecords } from "../testing/fastcgi_client.ts";
import { firstRecord, Type } from "../testing/fastcgi_records.ts";
import { Client, request } from "./client.ts";
import { serve } from "./gateway_server.ts";
import { eventually, freePort, type Rig, Suite, within } from "./harness.ts";

/** Large files are neither compressed nor compared: that would take most of the time. */
const PLAIN = {
  GIT_CONFIG_COUNT: "2",
  GIT_CONFIG_KEY_0: "core.compression",
  GIT_CONFIG_VALUE_0: "0",
  GIT_CONFIG_KEY_1: "core.bigFileThreshold",
  GIT_CONFIG_VALUE_1: "1m",
};

const serveOrigin = (gateway: Gateway): string => `http://${serve(gateway)}`;

/** Runs a client to its end, with nothing of the user's own configuration. */
async function run(rig: Rig, command: string, ...args: string[]): Promise<string> {
  const env = {
    HOME: rig.dir,
    USER: "test",
    GIT_CONFIG_GLOBAL: "/dev/null",
    GIT_TERMINAL_PROMPT: "0",
    ...PLAIN,
    NO_COLOR: "1",
  };
  const child = new Deno.Command(command, { args, cwd: rig.dir, env, stdin: "null" }).output();
  const { success, stdout, stderr } = await within(`${command} ${args[0]}`, child, 60_000);
  const text = new TextDecoder().decode(stdout);
  assert(success, `${args.join(" ")}\n${text}\n${new TextDecoder().decode(stderr)}`);
  return text;
}

async function get(url: string): Promise<string> {
  const response = await fetch(url);
  const text = await response.text();
  assertEquals(response.status, 200, text);
  return text;
}

const HTTP_BACKEND = "/usr/lib/git-core/git-http-backend";
const GITWEB = "/usr/share/gitweb/gitweb.cgi";
const CGIT = "/usr/lib/cgit/cgit.cgi";

const IDENTITY = ["-c", "user.name=Test", "-c", "user.email=test@localhost"];

const git = new Suite("gateway: Git", { git: "git", [HTTP_BACKEND]: "git" }, async (rig) => {
  const work = `${rig.dir}/first`;
  await run(rig, "git", "init", "-q", "-b", "main", work);
  for (const number of [1, 2, 3]) {
    Deno.writeTextFileSync(`${work}/file`, `version ${number}\n`);
    await run(rig, "git", "-C", work, "add", "file");
    await run(rig, "git", "-C", work, ...IDENTITY, "commit", "-qm", `commit ${number}`);
  }
  const bare = `${rig.dir}/repositories/one.git`;
  await run(rig, "git", "clone", "-q", "--bare", work, bare);
  const base = serveOrigin(cgiGateway({
    script: HTTP_BACKEND,
    basePath: "/git",
    env: {
      GIT_PROJECT_ROOT: `${rig.dir}/repositories`,
      GIT_HTTP_EXPORT_ALL: "1",
      HOME: rig.dir,
      ...PLAIN,
    },
    variables: { REMOTE_USER: "test" },
    log: () => {},
  }));
  return { url: `${base}/git/one.git`, bare };
});

git.test("clone, push of 20 MB, fetch", async ({ url, bare }, rig) => {
  const [one, two] = [`${rig.dir}/one`, `${rig.dir}/two`];
  for (const clone of [one, two]) await run(rig, "git", "clone", "-q", url, clone);
  const large = new Uint8Array(20_000_000);
  for (let at = 0; at < large.length; at += 60_000) {
    crypto.getRandomValues(large.subarray(at, at + 60_000));
  }
  Deno.writeFileSync(`${one}/large`, large);
  await run(rig, "git", "-C", one, "add", "large");
  await run(rig, "git", "-C", one, ...IDENTITY, "commit", "-qm", "large");
  // Beyond http.postBuffer Git sends the body in chunks.
  await run(rig, "git", "-C", one, "push", "-q", "origin", "main");
  await run(rig, "git", "-C", two, "pull", "-q", "--ff-only");
  const heads = await Promise.all(
    [one, two, bare].map((repository) => run(rig, "git", "-C", repository, "rev-parse", "main")),
  );
  assertEquals(new Set(heads).size, 1);
});

git.test("a repository is packed in the background after a push", async ({ url, bare }, rig) => {
  const [repository, clone] = [bare.replace("one.git", "two.git"), `${rig.dir}/packed`];
  await run(rig, "git", "init", "-q", "--bare", "-b", "main", repository);
  for (const name of ["gc.autoPackLimit", "receive.unpackLimit"]) {
    await run(rig, "git", "-C", repository, "config", name, "1");
  }
  await run(rig, "git", "init", "-q", "-b", "main", clone);
  const commit = [...IDENTITY, "commit", "-q", "--allow-empty", "-m", "empty"];
  for (let pushes = 0; pushes < 2; pushes++) {
    await run(rig, "git", "-C", clone, ...commit);
    await run(rig, "git", "-C", clone, "push", "-q", url.replace("one.git", "two.git"), "main");
  }
  // The second push had its response before Git made one pack of two.
  const packs = () => [...Deno.readDirSync(`${repository}/objects/pack`)];
  await eventually(
    "there is one pack",
    () => packs().filter(({ name }) => name.endsWith(".pack")).length === 1,
  );
});

git.test("shallow clone, deepened", async ({ url }, rig) => {
  const clone = `${rig.dir}/shallow`;
  const count = () => run(rig, "git", "-C", clone, "rev-list", "--count", "HEAD");
  await run(rig, "git", "clone", "-q", "--depth", "1", url, clone);
  assertEquals((await count()).trim(), "1");
  // Git compresses the longer request for this with gzip.
  await run(rig, "git", "-C", clone, "fetch", "-q", "--unshallow");
  assert(Number(await count()) >= 3);
});

const views = new Suite("gateway: gitweb and cgit", {
  git: "git",
  [GITWEB]: "gitweb libcgi-pm-perl",
  [CGIT]: "cgit",
}, async (rig) => {
  const bare = `${rig.dir}/repositories/one.git`;
  await run(rig, "git", "init", "-q", "-b", "main", "first");
  Deno.writeTextFileSync(`${rig.dir}/first/file`, "a file's text\n");
  await run(rig, "git", "-C", "first", "add", "file");
  await run(rig, "git", "-C", "first", ...IDENTITY, "commit", "-qm", "the first commit");
  await run(rig, "git", "clone", "-q", "--bare", "first", bare);
  const safe = {
    GIT_CONFIG_COUNT: "1",
    GIT_CONFIG_KEY_0: "safe.directory",
    GIT_CONFIG_VALUE_0: "*",
  };
  const log = () => {};
  return {
    gitweb: serveOrigin(cgiGateway({
      script: GITWEB,
      env: {
        ...safe,
        GITWEB_CONFIG: rig.write("gitweb.conf", `$projectroot = "${rig.dir}/repositories"; 1;`),
      },
      log,
    })),
    cgit: serveOrigin(cgiGateway({
      script: CGIT,
      env: {
        ...safe,
        CGIT_CONFIG: rig.write("cgitrc", `cache-size=0\nrepo.url=one\nrepo.path=${bare}\n`),
      },
      log,
    })),
  };
});

views.test("gitweb shows the projects and a commit", async ({ gitweb }) => {
  assertStringIncludes(await get(`${gitweb}/`), "one.git");
  assertStringIncludes(await get(`${gitweb}/?p=one.git;a=shortlog`), "the first commit");
});

views.test("cgit shows the log and a file", async ({ cgit }) => {
  assertStringIncludes(await get(`${cgit}/one/log/`), "the first commit");
  assertEquals(await get(`${cgit}/one/plain/file`), "a file's text\n");
});

const fossil = new Suite("gateway: Fossil", { fossil: "fossil" }, async (rig) => {
  const repository = `${rig.dir}/one.fossil`;
  await run(rig, "fossil", "init", repository);
  await run(rig, "fossil", "user", "capabilities", "nobody", "gio", "-R", repository);
  const script = rig.write("fossil.cgi", `#!/usr/bin/fossil\nrepository: ${repository}\n`);
  Deno.chmodSync(script, 0o755);
  const port = freePort();
  const args = ["server", "--scgi", "--localhost", "--port", String(port), repository];
  rig.spawn("fossil", "fossil", args, { env: { HOME: rig.dir, USER: "test" } });
  const scgi = scgiGateway(`127.0.0.1:${port}`, { log: () => {} });
  const urls = {
    cgi: serveOrigin(cgiGateway({ script, env: { HOME: rig.dir }, log: () => {} })),
    scgi: serveOrigin(scgi),
  };
  await eventually("Fossil listens", async () => {
    const response = await fetch(`${urls.scgi}/timeline`);
    await response.body?.cancel();
    return response.ok;
  });
  return urls;
});

for (const way of ["cgi", "scgi"] as const) {
  fossil.test(`${way}: timeline and clone`, async (urls, rig) => {
    assertStringIncludes(await get(`${urls[way]}/timeline`), "initial empty check-in");
    await run(rig, "fossil", "clone", `${urls[way]}/`, `${rig.dir}/${way}.fossil`);
    assert(Deno.statSync(`${rig.dir}/${way}.fossil`).size > 10_000);
  });
}

const MAPSERV = "/usr/lib/cgi-bin/mapserv";
const MAP = `MAP
  NAME "test"
  SIZE 40 30
  EXTENT 0 0 40 30
  IMAGECOLOR 0 0 255
  IMAGETYPE PNG
END
`;

const mapserver = new Suite("gateway: MapServer", {
  [MAPSERV]: "cgi-mapserver",
  "spawn-fcgi": "spawn-fcgi",
}, async (rig) => {
  const map = rig.write("test.map", MAP);
  const port = freePort();
  const env = {
    MS_MAPFILE: map,
    MAPSERVER_CONFIG_FILE: rig.write("mapserver.conf", "CONFIG\nEND\n"),
  };
  const args = ["-n", "-a", "127.0.0.1", "-p", String(port), "--", MAPSERV];
  // On SIGTERM it waits for one more request.
  rig.spawn("MapServer", "timeout", ["-k", "0.1", "600", "spawn-fcgi", ...args], { env });
  await eventually("MapServer listens", async () => {
    try {
      (await Deno.connect({ hostname: "127.0.0.1", port })).close();
      return true;
    } catch {
      return false;
    }
  });
  const log = () => {};
  return {
    // Debian's own is a link to /usr/bin/mapserv.
    cgi: serveOrigin(cgiGateway({ script: MAPSERV, env, log })),
    root: serveOrigin(cgiGateway({ root: "/usr/lib/cgi-bin", env, log })) + "/mapserv",
    fastcgi: serveOrigin(fastCGIGateway(`127.0.0.1:${port}`, { variables: env, log })),
  };
});

for (const way of ["cgi", "root", "fastcgi"] as const) {
  mapserver.test(`${way}: draws a map`, async (urls) => {
    for (let i = 0; i < 3; i++) {
      const response = await fetch(`${urls[way]}/?mode=map`);
      const image = await response.bytes();
      const type = response.headers.get("content-type");
      assertEquals([response.status, type], [200, "image/png"], new TextDecoder().decode(image));
      assertMatch(new TextDecoder("latin1").decode(image.subarray(0, 4)), /PNG/);
    }
  });
}

const NAGIOS = "/usr/lib/cgi-bin/nagios4/status.cgi";

const nagios = new Suite("gateway: Nagios", { [NAGIOS]: "nagios4-cgi" }, (rig) => {
  const log: string[] = [];
  // A configuration that nobody can read.
  const env = { NAGIOS_CGI_CONFIG: `${rig.dir}/none.cfg` };
  const url = serveOrigin(cgiGateway({ script: NAGIOS, env, log: (line) => log.push(line) }));
  return Promise.resolve({ url, log });
});

nagios.test("its page of an error has status 200, and its exit code is logged once", async ({ url, log }) => {
  for (let i = 0; i < 2; i++) assertStringIncludes(await get(`${url}/`), "<html>");
  const ended = `${NAGIOS} ended with exit code 1 after its response (logged once)`;
  await eventually("the exit code is logged", () => log.length > 0);
  await get(`${url}/`);
  assertEquals(log, [ended]);
});

const MOJOLICIOUS = `#!/usr/bin/perl
use Mojolicious::Lite -signatures;
app->log->level("fatal");
get "/chunks" => sub ($c) {
  $c->write_chunk("Hello ", sub ($c, @) { $c->write_chunk("world", sub ($c, @) { $c->finish }) });
};
app->start;
`;

const mojolicious = new Suite("gateway: Mojolicious", {
  perl: "perl",
  "/usr/share/perl5/Mojolicious.pm": "libmojolicious-perl",
}, async (rig) => {
  const script = rig.write("app.pl", MOJOLICIOUS);
  await Deno.chmod(script, 0o755);
  return serveOrigin(cgiGateway({ script, log: () => {} }));
});

mojolicious.test("sends a body that the script has framed in chunks", async (url) => {
  assertEquals(await get(`${url}/chunks`), "Hello world");
});

const CGI_FAST = `use strict; use CGI::Fast;
while (my $q = CGI::Fast->new) {
  print $q->header("text/plain"), join " ", $q->request_method, $q->path_info, $q->param("name") // "none";
}
`;

const perl = new Suite("gateway: CGI::Fast", {
  perl: "perl",
  "/usr/share/perl5/CGI/Fast.pm": "libcgi-fast-perl",
}, async (rig) => {
  const socket = `${rig.dir}/fast.sock`;
  rig.spawn("CGI::Fast", "perl", [rig.write("fast.pl", CGI_FAST)], {
    env: { FCGI_SOCKET_PATH: socket, FCGI_LISTEN_QUEUE: "100" },
  });
  await eventually("CGI::Fast listens", async () => {
    try {
      (await Deno.connect({ transport: "unix", path: socket })).close();
      return true;
    } catch {
      return false;
    }
  });
  return { url: serveOrigin(fastCGIGateway(`unix:${socket}`, { log: () => {} })), socket };
});

/** Passes connections on to an application, and keeps the bytes that its gateway sends. */
class Relay implements Disposable {
  readonly address: string;
  /** The bytes of each connection. */
  readonly sent: Uint8Array[][] = [];
  readonly #listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });

  constructor(path: string) {
    this.address = `127.0.0.1:${this.#listener.addr.port}`;
    this.#run(path);
  }

  async #run(path: string): Promise<void> {
    for await (const client of this.#listener) {
      const parts: Uint8Array[] = [];
      this.sent.push(parts);
      const keep = new TransformStream<Uint8Array, Uint8Array>({
        transform(part, controller) {
          parts.push(part.slice());
          controller.enqueue(part);
        },
      });
      const server = await Deno.connect({ transport: "unix", path });
      client.readable.pipeThrough(keep).pipeTo(server.writable).catch(() => {});
      server.readable.pipeTo(client.writable).catch(() => {});
    }
  }

  [Symbol.dispose](): void {
    this.#listener.close();
  }
}

perl.test(
  "no management record is sent, which libraries need not know (rule C3)",
  async ({ socket }, rig) => {
    const relay = rig.use(new Relay(socket));
    const host = serve(fastCGIGateway(relay.address as "127.0.0.1:0", { log: () => {} }));
    assertEquals(await get(`http://${host}/a?name=x`), "GET /a x");
    assertEquals((await request(host, "HEAD", "/b")).text, "");
    const body = new TextEncoder().encode("name=Ann");
    const fields = [["Content-Type", "application/x-www-form-urlencoded"]];
    assertEquals((await request(host, "POST", "/c", { body, fields })).text, "POST /c Ann");
    await Promise.all(Array.from({ length: 8 }, (_, i) => get(`http://${host}/${i}`)));
    const types = new Set<number>();
    for (const parts of relay.sent) {
      let bytes: Uint8Array = concat(parts);
      for (let first; (first = firstRecord(bytes)) !== undefined; bytes = first.rest) {
        assert(first.record.id !== 0, `type ${first.record.type}`);
        types.add(first.record.type);
      }
    }
    assertEquals([...types].sort(), [Type.beginRequest, Type.params, Type.stdin]);
  },
);

perl.test("reads a form that is sent in chunks", async ({ url }) => {
  using client = await Client.connect(new URL(url).host);
  await client.sendHead("POST", "/form", [
    ["Transfer-Encoding", "chunked"],
    ["Content-Type", "application/x-www-form-urlencoded"],
  ]);
  await client.sendChunk(new TextEncoder().encode("name=Ann"));
  await client.sendChunk(new Uint8Array());
  assertEquals((await client.readResponse()).text, "POST /form Ann");
});

perl.test("another client of its one process does not wait for a kept connection", async ({ url, socket }) => {
  assertEquals(await get(`${url}/a`), "GET /a none");
  // As nginx or a gateway of another process: it knows nothing of this gateway's connections.
  using other = new FastCGIClient(await Deno.connect({ transport: "unix", path: socket }));
  await other.send(requestRecords({ variables: { PATH_INFO: "/b" } }));
  assertMatch(text((await within("its response", other.response(), 5000)).body), /^GET \/b/);
});

perl.test("one process serves many requests at once", async ({ url }) => {
  const paths = Array.from({ length: 20 }, (_, i) => `/${i}`);
  const texts = await Promise.all(paths.map((path) => get(`${url}${path}?name=x`)));
  assertEquals(texts, paths.map((path) => `GET ${path} x`));
});
