import {
  assert,
  assertEquals,
  assertFalse,
  assertRejects,
  assertStringIncludes,
  assertThrows,
} from "@std/assert";
import { existsSync } from "node:fs";
import { cgiGateway, type CGIGatewayOptions, fetchCGI } from "../../gateway.ts";
import { Daemon, ROOT } from "../testing/daemon.ts";
import { deadline, eventually } from "../testing/deadline.ts";
import { testWith } from "../testing/needs.ts";

const HELLO = `echo "Content-Type: text/plain"; echo; `;

/** A directory of shell scripts, and a gateway to it. */
class Scripts implements AsyncDisposable {
  readonly root: string = Deno.makeTempDirSync({ prefix: "gatehouse" });
  readonly log: string[] = [];

  constructor(scripts: Record<string, string> = {}) {
    Deno.chmodSync(this.root, 0o755);
    for (const [name, text] of Object.entries(scripts)) this.write(name, text);
  }

  write(name: string, text: string, mode = 0o755): string {
    const file = `${this.root}/${name}`;
    Deno.mkdirSync(file.slice(0, file.lastIndexOf("/")), { recursive: true });
    Deno.writeTextFileSync(file, text.startsWith("#!") ? text : `#!/bin/sh\n${text}`);
    Deno.chmodSync(file, mode);
    return file;
  }

  gateway(options: Partial<CGIGatewayOptions> = {}) {
    const gateway = cgiGateway({
      ...(options.script ? {} : { root: this.root }),
      log: (line) => this.log.push(line),
      ...options,
    });
    return {
      fetch: (path: string, init?: RequestInit) =>
        deadline(gateway(new Request(`http://localhost${path}`, init)), `a response to ${path}`),
      text: async (path: string, init?: RequestInit) =>
        await (await gateway(new Request(`http://localhost${path}`, init))).text(),
      status: async (path: string, init?: RequestInit) => {
        const response = await gateway(new Request(`http://localhost${path}`, init));
        await response.body?.cancel();
        return response.status;
      },
      end: () => gateway[Symbol.dispose](),
    };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Deno.remove(this.root, { recursive: true });
  }
}

const PS = { ps: "procps" };

function isRunning(pid: number): boolean {
  const { stdout } = new Deno.Command("ps", { args: ["-o", "stat=", "-p", String(pid)] })
    .outputSync();
  // A zombie has ended.
  return /^[^ZX\s]/.test(new TextDecoder().decode(stdout));
}

Deno.test("cgiGateway() passes the request to a script, and no variables of this process", async () => {
  await using scripts = new Scripts({ "env.cgi": HELLO + "env | sort; pwd" });
  Deno.env.set("GATEHOUSE_SECRET", "1");
  try {
    const gateway = scripts.gateway({ basePath: "/cgi-bin", env: { OWN: "given" } });
    const text = await gateway.text("/cgi-bin/env.cgi/a%20b/%C3%A4?x=%2F&y", {
      headers: {
        "x-one": "1",
        "x_one": "spoofed",
        "cookie": "a=1; b=2",
        "authorization": "Basic x",
        "proxy": "http://evil.example",
        "connection": "close",
      },
    });
    const lines = text.trimEnd().split("\n");
    assertEquals(lines.pop(), scripts.root);
    const env = Object.fromEntries(lines.map((line) => line.split(/=(.*)/s, 2)));
    delete env.PWD;
    assertEquals(env, {
      CONTENT_LENGTH: "",
      DOCUMENT_ROOT: scripts.root,
      GATEWAY_INTERFACE: "CGI/1.1",
      HTTP_AUTHORIZATION: "Basic x",
      HTTP_COOKIE: "a=1; b=2",
      HTTP_HOST: "localhost",
      HTTP_X_ONE: "1",
      OWN: "given",
      PATH: Deno.env.get("PATH"),
      PATH_INFO: "/a b/ä",
      PATH_TRANSLATED: `${scripts.root}/a b/ä`,
      QUERY_STRING: "x=%2F&y",
      REQUEST_METHOD: "GET",
      REQUEST_SCHEME: "http",
      REQUEST_URI: "/cgi-bin/env.cgi/a%20b/%C3%A4?x=%2F&y",
      SCRIPT_FILENAME: `${scripts.root}/env.cgi`,
      SCRIPT_NAME: "/cgi-bin/env.cgi",
      SERVER_NAME: "localhost",
      SERVER_PORT: "80",
      SERVER_PROTOCOL: "HTTP/1.1",
      SERVER_SOFTWARE: "Gatehouse",
    });
  } finally {
    Deno.env.delete("GATEHOUSE_SECRET");
  }
});

Deno.test("cgiGateway() adds variables, and omits Authorization with passAuthorization: false", async () => {
  await using scripts = new Scripts({
    "a.cgi": HELLO + `echo "$REMOTE_USER $SERVER_SOFTWARE $HTTP_AUTHORIZATION."`,
  });
  const gateway = scripts.gateway({
    passAuthorization: false,
    variables: (request) => ({
      REMOTE_USER: new URL(request.url).searchParams.get("user")!,
      SERVER_SOFTWARE: "mine",
    }),
  });
  const headers = { authorization: "Basic x" };
  assertEquals(await gateway.text("/a.cgi?user=ann", { headers }), "ann mine .\n");
});

Deno.test("cgiGateway() passes no arguments for an indexed query (rule A31)", async () => {
  await using scripts = new Scripts({ "a.cgi": HELLO + `echo "$# $*"` });
  assertEquals(await scripts.gateway().text("/a.cgi?-d+allow_url_include"), "0 \n");
});

Deno.test("cgiGateway() finds the script by the first segments of the path that name a file", async () => {
  await using scripts = new Scripts({
    "a.cgi": HELLO + `echo "a $SCRIPT_NAME $PATH_INFO"`,
    "sub/b.cgi": HELLO + `echo "b $SCRIPT_NAME $PATH_INFO"`,
    "sub/index.cgi": HELLO + `echo "index $SCRIPT_NAME $PATH_INFO"`,
    "sub/dir.cgi/c": HELLO + `echo "c $SCRIPT_NAME $PATH_INFO"`,
    "käse.cgi": HELLO + `echo "k $SCRIPT_NAME"`,
  });
  const gateway = scripts.gateway({ index: ["index.cgi"] });
  assertEquals(await gateway.text("/a.cgi"), "a /a.cgi \n");
  assertEquals(await gateway.text("/a.cgi/"), "a /a.cgi /\n");
  assertEquals(await gateway.text("/a.cgi//x/./y"), "a /a.cgi //x/y\n");
  assertEquals(await gateway.text("/a.cgi/x%2Fy%5C%3F"), "a /a.cgi /x/y\\?\n");
  assertEquals(await gateway.text("/sub/b.cgi/sub/b.cgi"), "b /sub/b.cgi /sub/b.cgi\n");
  assertEquals(await gateway.text("/sub/dir.cgi/c/d"), "c /sub/dir.cgi/c /d\n");
  assertEquals(await gateway.text("/sub/"), "index /sub/index.cgi \n");
  assertEquals(await gateway.text("/k%C3%A4se.cgi"), "k /käse.cgi\n");
  assertEquals(await gateway.status("/"), 404);
  assertEquals(await gateway.status("/sub/none"), 404);
  const slash = await gateway.fetch("/sub?x=1");
  assertEquals([slash.status, slash.headers.get("location")], [301, "/sub/?x=1"]);
});

Deno.test("cgiGateway() responds with 404 to paths outside its base path", async () => {
  await using scripts = new Scripts({ "a.cgi": HELLO + "echo a" });
  const gateway = scripts.gateway({ basePath: "/cgi-bin" });
  assertEquals(await gateway.text("/cgi-bin/a.cgi"), "a\n");
  for (
    const path of ["/a.cgi", "/cgi-bina.cgi", "/cgi-bin", "/cgi-bin/", "/cgi-bin/cgi-bin/a.cgi"]
  ) {
    assertEquals(await gateway.status(path), 404, path);
  }
});

Deno.test("cgiGateway() runs one script for all paths", async () => {
  await using scripts = new Scripts();
  const script = scripts.write("one", HELLO + `echo "$SCRIPT_NAME $PATH_INFO"`);
  const gateway = scripts.gateway({ script, basePath: "/app" });
  assertEquals(await gateway.text("/app/x/y"), "/app /x/y\n");
  assertEquals(await gateway.text("/app"), "/app \n");
  assertEquals(await gateway.status("/other"), 404);
  assertEquals(await (await fetchCGI("http://localhost/z", script)).text(), " /z\n");
  using same = cgiGateway(script);
  assertEquals(await (await same(new Request("http://localhost/z"))).text(), " /z\n");
});

/** Creates a link whose owner does not own its target: as root by chown, otherwise to a file of root's. */
function linkToForeign(target: string, path: string): void {
  Deno.symlinkSync(
    Deno.uid() === 0 ? target : Deno.statSync(target).isFile ? "/bin/sh" : "/bin",
    path,
  );
  if (Deno.uid() === 0) new Deno.Command("chown", { args: ["-h", "65534", path] }).outputSync();
}

Deno.test("cgiGateway() follows a link whose owner also owns its target", async () => {
  await using outside = new Scripts({ "a.cgi": HELLO + `echo "$SCRIPT_NAME"` });
  await using scripts = new Scripts({ "b.cgi": HELLO + "echo b" });
  Deno.symlinkSync(`${outside.root}/a.cgi`, `${scripts.root}/own.cgi`);
  Deno.symlinkSync(outside.root, `${scripts.root}/folder`);
  linkToForeign(`${outside.root}/a.cgi`, `${scripts.root}/foreign.cgi`);
  linkToForeign(outside.root, `${scripts.root}/other`);
  const gateway = scripts.gateway({ index: ["foreign.cgi"] });
  assertEquals(await gateway.text("/own.cgi"), "/own.cgi\n");
  assertEquals(await gateway.text("/folder/a.cgi"), "/folder/a.cgi\n");
  assertEquals(await gateway.status("/foreign.cgi"), 404);
  assertEquals(await gateway.status("/other/a.cgi"), 404);
  assertEquals(await gateway.status("/"), 404);
});

Deno.test("cgiGateway() runs a script that is a link of any owner", async () => {
  await using outside = new Scripts({ "a.cgi": HELLO + "echo a" });
  await using scripts = new Scripts();
  const script = `${scripts.root}/link.cgi`;
  Deno.symlinkSync(`${outside.root}/a.cgi`, script);
  if (Deno.uid() === 0) new Deno.Command("chown", { args: ["-h", "65534", script] }).outputSync();
  assertEquals(await scripts.gateway({ script, root: undefined }).text("/"), "a\n");
});

Deno.test("cgiGateway() logs why a script's first line cannot start it", async () => {
  await using scripts = new Scripts();
  const cases: [name: string, text: string, reason: string][] = [
    ["crlf.cgi", "#!/bin/sh\r\necho\r\n", "its first line ends in CR LF"],
    ["none.cgi", "#! /usr/bin/python2 -u\nprint\n", "/usr/bin/python2 does not exist"],
  ];
  for (const [name, text, reason] of cases) {
    Deno.writeTextFileSync(`${scripts.root}/${name}`, text, { mode: 0o755 });
    assertEquals(await scripts.gateway().status(`/${name}`), 502);
    assertEquals(scripts.log.splice(0), [`Cannot run ${scripts.root}/${name}: ${reason}`]);
  }
});

Deno.test("cgiGateway() redirects GET and HEAD to the path with merged slashes", async () => {
  const print = HELLO + `echo "$REQUEST_METHOD $SCRIPT_NAME $PATH_INFO $REQUEST_URI"`;
  await using scripts = new Scripts({ "a.cgi": print, "sub/b.cgi": print, "sub/index.cgi": print });
  scripts.write("plain.txt", "no script", 0o644);
  const options: Partial<CGIGatewayOptions> = { basePath: "/cgi-bin", index: ["index.cgi"] };
  const gateway = scripts.gateway(options);
  const merging = scripts.gateway({ ...options, mergeSlashes: true });
  const cases: [path: string, location: string, run: string][] = [
    ["/cgi-bin//a.cgi", "/cgi-bin/a.cgi", "/cgi-bin/a.cgi "],
    ["//cgi-bin/a.cgi?x=//", "/cgi-bin/a.cgi?x=//", "/cgi-bin/a.cgi "],
    ["/cgi-bin/sub///b.cgi/x//y", "/cgi-bin/sub/b.cgi/x//y", "/cgi-bin/sub/b.cgi /x//y"],
    ["/cgi-bin//sub//", "/cgi-bin/sub/", "/cgi-bin/sub/index.cgi "],
  ];
  for (const [path, location, run] of cases) {
    for (const method of ["GET", "HEAD"]) {
      const response = await gateway.fetch(path, { method });
      assertEquals([response.status, response.headers.get("location")], [301, location], path);
    }
    // The program around the gateway has seen the path as it is: a check of it may have passed.
    for (const method of ["POST", "DELETE"]) {
      assertEquals(await gateway.status(path, { method }), 404, path);
      assertEquals(await merging.text(path, { method }), `${method} ${run} ${path}\n`);
    }
    assertEquals(await merging.text(path), `GET ${run} ${path}\n`);
  }
  const folder = await gateway.fetch("/cgi-bin//sub");
  assertEquals([folder.status, folder.headers.get("location")], [301, "/cgi-bin/sub/"]);
  // Without a script there is nothing to redirect to.
  for (
    const path of [
      "/cgi-bin//none.cgi",
      "//evil.example/a.cgi",
      "/cgi-bin//.a.cgi",
      "//other/a.cgi",
      "/cgi-bin//plain.txt",
    ]
  ) {
    for (const each of [gateway, merging]) assertEquals(await each.status(path), 404, path);
  }
  // Slashes of PATH_INFO alone are no reason.
  assertEquals(
    await gateway.text("/cgi-bin/a.cgi//x//"),
    "GET /cgi-bin/a.cgi //x// /cgi-bin/a.cgi//x//\n",
  );
  for (const path of ["/cgi-bin//sub%2fb.cgi", "/cgi-bin/sub//..%2fa.cgi"]) {
    for (const each of [gateway, merging]) assertEquals(await each.status(path), 400, path);
  }
});

Deno.test("cgiGateway() ignores a slash at the end of its base path and root", async () => {
  await using scripts = new Scripts({
    "a.cgi": HELLO + `echo "$SCRIPT_NAME $PATH_INFO $PATH_TRANSLATED $DOCUMENT_ROOT"`,
  });
  const { root } = scripts;
  for (const [basePath, path] of [["/", ""], ["/cgi-bin/", "/cgi-bin"]] as const) {
    const gateway = scripts.gateway({ root: `${root}/`, basePath });
    const seen = `${path}/a.cgi /x ${root}/x ${root}\n`;
    assertEquals(await gateway.text(`${path}/a.cgi/x`), seen);
    assertEquals(
      await gateway.text(`${path}/a.cgi//x/`),
      `${path}/a.cgi //x/ ${root}/x/ ${root}\n`,
    );
  }
  assertThrows(() => scripts.gateway({ basePath: "cgi-bin" as "/" }), TypeError, "basePath");
});

Deno.test("cgiGateway() rejects paths that leave its root (rule F14)", async () => {
  await using outside = new Scripts({ "secret.cgi": HELLO + "echo secret" });
  await using scripts = new Scripts({
    "in/a.cgi": HELLO + "echo a",
    "in/.hidden.cgi": HELLO + "echo secret",
    ".git/hook": HELLO + "echo secret",
  });
  linkToForeign(`${outside.root}/secret.cgi`, `${scripts.root}/link.cgi`);
  linkToForeign(outside.root, `${scripts.root}/folder`);
  Deno.symlinkSync("a.cgi", `${scripts.root}/in/inner.cgi`);
  const gateway = scripts.gateway();
  assertEquals(await gateway.text("/in/a.cgi"), "a\n");
  assertEquals(await gateway.text("/in/inner.cgi"), "a\n");
  const name = outside.root.slice(outside.root.lastIndexOf("/") + 1);
  for (
    const path of [
      "/link.cgi",
      "/folder/secret.cgi",
      `/../${name}/secret.cgi`,
      `/%2e%2e/${name}/secret.cgi`,
      `/%2E%2E%2F${name}%2Fsecret.cgi`,
      `/..%2f${name}/secret.cgi`,
      `/..%5c${name}/secret.cgi`,
      `/in/..%2f..%2f${name}/secret.cgi`,
      `/%252e%252e/${name}/secret.cgi`,
      `/%c0%ae%c0%ae/${name}/secret.cgi`,
      `/in%2fa.cgi`,
      `/in%5ca.cgi`,
      `/in/a.cgi%00`,
      `/in/a.cgi%00.txt`,
      `/in/a.cgi/%00`,
      `/in/a.cgi/..%2f..%2fetc/passwd`,
      `/in/a.cgi/x%5c..`,
      `/in/a.cgi/%FF`,
      `/%FF/a.cgi`,
      "/in/.hidden.cgi",
      "/.git/hook",
      "/in/.",
      "/.",
    ]
  ) {
    const response = await gateway.fetch(path);
    const text = await response.text();
    assert([400, 404].includes(response.status), `${path}: ${response.status} ${text}`);
    assertFalse(text.includes("secret"), path);
  }
  // What is there and may not run is logged, and what is not there is not.
  assertEquals(
    scripts.log.filter((line) => line.startsWith("Cannot run script:")),
    ["link.cgi", "folder"].map((name) =>
      `Cannot run script: ${scripts.root}/${name} is a link to another user's file`
    ),
  );
});

Deno.test("cgiGateway() rejects files that are writable by all users or not executable (rule F15)", async () => {
  await using scripts = new Scripts({ "good/a.cgi": HELLO + "echo a" });
  const secret = HELLO + "echo source";
  scripts.write("good/plain.cgi", secret, 0o644);
  scripts.write("good/writable.cgi", secret, 0o757);
  scripts.write("good/text.txt", secret, 0o755);
  scripts.write("shared/a.cgi", secret);
  Deno.chmodSync(`${scripts.root}/shared`, 0o777);
  new Deno.Command("mkfifo", { args: [`${scripts.root}/good/fifo.cgi`] }).outputSync();
  Deno.chmodSync(`${scripts.root}/good/fifo.cgi`, 0o755);
  const gateway = scripts.gateway({ extensions: [".cgi"] });
  assertEquals(await gateway.text("/good/a.cgi"), "a\n");
  for (
    const path of [
      "/good/plain.cgi",
      "/good/writable.cgi",
      "/good/text.txt",
      "/good/fifo.cgi",
      "/shared/a.cgi",
    ]
  ) {
    const response = await gateway.fetch(path);
    assertEquals([response.status, await response.text()], [403, "403 Forbidden\n"], path);
    assertStringIncludes(scripts.log.join("\n"), path.replace(/(\/shared)\/.*/, "$1 is a folder"));
  }
});

Deno.test("cgiGateway() runs scripts with the interpreter of their extension", async () => {
  await using scripts = new Scripts();
  scripts.write("a.inc", "#!/no/such/program\n" + HELLO + `echo "$0"`, 0o644);
  const gateway = scripts.gateway({ interpreters: { ".inc": ["/bin/sh", "-u"] } });
  assertEquals(await gateway.text("/a.inc"), `${scripts.root}/a.inc\n`);
});

Deno.test("cgiGateway() responds with 502 for a script that cannot start", async () => {
  await using scripts = new Scripts({ "a.cgi": "#!/no/such/program\n" });
  assertEquals(await scripts.gateway().status("/a.cgi"), 502);
  assertStringIncludes(scripts.log.join("\n"), "a.cgi");
});

Deno.test("cgiGateway() runs Deno scripts with the permissions of their folder", async () => {
  await using scripts = new Scripts();
  const script = `const state = (name, variable) =>
  Deno.permissions.querySync({ name, variable }).state;
console.log("Content-Type: text/plain\\n\\n" + [state("env", "A"), state("read"), state("net")]);`;
  for (const name of ["a.ts", "sub/b.js", "sub/deep/c.ts", "sub2/d.ts"]) {
    scripts.write(name, "#!/no/such/program\n" + script, 0o644);
  }
  const gateway = scripts.gateway({
    permissions: { "/": ["--allow-env"], "/sub": ["--allow-read"], "/sub/deep": [] },
    env: { DENO_DIR: `${scripts.root}/cache`, NO_COLOR: "1" },
  });
  assertEquals(await gateway.text("/a.ts"), "granted,prompt,prompt\n");
  assertEquals(await gateway.text("/sub/b.js"), "prompt,granted,prompt\n");
  assertEquals(await gateway.text("/sub/deep/c.ts"), "prompt,prompt,prompt\n");
  assertEquals(await gateway.text("/sub2/d.ts"), "granted,prompt,prompt\n");
  for (const flag of ["-A", "--allow-all", "allow-env"]) {
    assertThrows(() => scripts.gateway({ permissions: { "/": [flag] } }), TypeError, flag);
  }
});

Deno.test("cgiGateway() gives no script the permissions of another folder for a key that differs", async () => {
  await using scripts = new Scripts();
  const script = `console.log("Content-Type: text/plain\\n");
console.log(["env", "read"].map((name) => Deno.permissions.querySync({ name }).state).join());`;
  scripts.write("sub/deep/a.ts", "#!/no/such/program\n" + script, 0o644);
  const env = { DENO_DIR: `${scripts.root}/cache`, NO_COLOR: "1" };
  const wide = ["--allow-env", "--allow-read"];
  for (const key of ["/sub/", "/sub/deep/", "/sub/deep"] as const) {
    const gateway = scripts.gateway({ permissions: { "/": wide, [key]: ["--allow-env"] }, env });
    assertEquals(await gateway.text("/sub/deep/a.ts"), "granted,prompt\n", key);
  }
  for (const key of ["sub", "/sub//deep", "//sub", "/sub//", "/./sub", "/sub/../sub", "/..", ""]) {
    assertThrows(
      () => scripts.gateway({ permissions: { "/": wide, [key]: [] }, env }),
      TypeError,
      `current value is ${JSON.stringify(key)}`,
    );
  }
  assertThrows(
    () => scripts.gateway({ permissions: { "/sub": [], "/sub/": wide }, env }),
    TypeError,
    'current value is "/sub/"',
  );
});

Deno.test("cgiGateway() sends a body and its length, and reads while writing", async () => {
  await using scripts = new Scripts({
    "cat.cgi": HELLO + "exec cat",
    "count.cgi": HELLO + `head -c "$CONTENT_LENGTH" | wc -c`,
    "deaf.cgi": HELLO + "echo done",
  });
  const gateway = scripts.gateway();
  const bytes = crypto.getRandomValues(new Uint8Array(60_000));
  const body = new Blob(Array(100).fill(bytes));
  const response = await gateway.fetch("/cat.cgi", { method: "POST", body });
  assertEquals((await response.bytes()).length, 6_000_000);
  assertEquals((await gateway.text("/count.cgi", { method: "PUT", body })).trim(), "6000000");
  assertEquals(await gateway.text("/deaf.cgi", { method: "POST", body }), "done\n");
  const little = scripts.gateway({ maxBodyBytes: 10 });
  const known = { method: "POST", body: "eleven byte", headers: { "content-length": "11" } };
  assertEquals(await little.status("/cat.cgi", known), 413);
  assertEquals(await little.status("/cat.cgi", { method: "POST", body: "eleven byte" }), 413);
});

Deno.test("cgiGateway() does not buffer a response until its end, nor a long body with bufferBody: false", async () => {
  await using scripts = new Scripts({
    "a.cgi": HELLO + "echo first; read line; echo second $line",
  });
  const { readable, writable } = new TransformStream<Uint8Array, Uint8Array>();
  const init = { method: "POST", body: readable, headers: { "content-length": "70000" } };
  const response = await scripts.gateway({ bufferBody: false }).fetch("/a.cgi", init);
  const reader = response.body!.pipeThrough(new TextDecoderStream()).getReader();
  assertEquals((await deadline(reader.read(), "the first line")).value, "first\n");
  const writer = writable.getWriter();
  writer.write(new TextEncoder().encode("go\n".padEnd(70_000)));
  writer.close().catch(() => {});
  assertEquals((await deadline(reader.read(), "the second line")).value, "second go\n");
  assertEquals((await deadline(reader.read(), "the end")).done, true);
});

Deno.test("cgiGateway() follows local redirects, at most 5", async () => {
  await using scripts = new Scripts({
    "to.cgi":
      `n=\${PATH_INFO#/}; if [ "$n" -gt 0 ]; then echo "Location: /to.cgi/$((n - 1))?q=$n"; echo; else ` +
      HELLO + `echo "$REQUEST_METHOD $QUERY_STRING $CONTENT_LENGTH"; cat; fi`,
    "loop.cgi": `echo "Location: /loop.cgi"; echo`,
    "out.cgi": `echo "Location: /page"; echo`,
  });
  const gateway = scripts.gateway();
  assertEquals(await gateway.text("/to.cgi/5"), "GET q=1 \n");
  assertEquals(await gateway.text("/to.cgi/1", { method: "POST", body: "x" }), "GET q=1 \n");
  assertEquals(await gateway.status("/to.cgi/6"), 502);
  assertEquals(await gateway.status("/loop.cgi"), 502);
  const other = scripts.gateway({
    redirect: (request) => new Response(`${request.method} ${new URL(request.url).pathname}`),
  });
  assertEquals(await other.text("/out.cgi", { method: "POST", body: "x" }), "GET /page");
  const looping = scripts.gateway({ redirect: (request, info) => handler(request, info) });
  const handler = cgiGateway({
    root: scripts.root,
    log: () => {},
    redirect: (request, info) => handler(request, info),
  });
  assertEquals((await handler(new Request("http://localhost/loop.cgi"))).status, 502);
  looping.end();
});

Deno.test("cgiGateway() responds to HEAD without a body", async () => {
  await using scripts = new Scripts({
    "a.cgi": `echo "Content-Length: 6"; ` + HELLO + `[ "$REQUEST_METHOD" = HEAD ] || echo hello`,
    "rude.cgi": HELLO + "echo hello",
  });
  const gateway = scripts.gateway();
  for (const path of ["/a.cgi", "/rude.cgi"]) {
    const response = await gateway.fetch(path, { method: "HEAD" });
    assertEquals([response.status, await response.text()], [200, ""]);
  }
});

Deno.test("cgiGateway() responds with 502 to invalid responses, and logs why", async () => {
  await using scripts = new Scripts({
    "nothing.cgi": "exit 3",
    "text.cgi": "echo hello",
    "long.cgi": `echo "X: $(head -c 70000 /dev/zero | tr '\\0' a)"; ` + HELLO,
    "inject.cgi": `printf 'Content-Type: text/plain\\nX: a\\001b\\n\\n'`,
  });
  const gateway = scripts.gateway();
  for (const path of ["/nothing.cgi", "/text.cgi", "/long.cgi", "/inject.cgi"]) {
    scripts.log.length = 0;
    const response = await gateway.fetch(path);
    assertEquals([response.status, await response.text()], [502, "502 Bad Gateway\n"], path);
    assertEquals(scripts.log.length > 0, true, path);
  }
});

Deno.test("cgiGateway() logs a script's stderr, and its exit code once", async () => {
  await using scripts = new Scripts({
    "a.cgi": HELLO + "echo one >&2; printf 'two' >&2; exit 7",
    "b.cgi": HELLO + "exit ${QUERY_STRING}",
    "killed.cgi": HELLO + "exec >&-; kill -KILL $$",
  });
  const gateway = scripts.gateway();
  const line = (name: string, code: number) =>
    `${scripts.root}/${name} ended with exit code ${code} after its response (logged once)`;
  await gateway.text("/a.cgi");
  await eventually("the log", () => scripts.log.length === 3);
  assertEquals(scripts.log.toSorted(), [line("a.cgi", 7), "one", "two"]);
  scripts.log.length = 0;
  for (const query of [1, 1, 255, 1, 255, 0]) await gateway.text(`/b.cgi?${query}`);
  for (let i = 0; i < 2; i++) await gateway.text("/killed.cgi");
  const killed = `${scripts.root}/killed.cgi ended with SIGKILL`;
  await eventually("the log", () => scripts.log.filter((line) => line === killed).length === 2);
  assertEquals(scripts.log.toSorted(), [line("b.cgi", 1), line("b.cgi", 255), killed, killed]);
});

Deno.test("cgiGateway() lets a script finish that writes a long body to HEAD", async () => {
  await using scripts = new Scripts({
    "a.cgi": HELLO + `head -c 3000000 /dev/zero; echo "it ends" >&2`,
  });
  const response = await scripts.gateway().fetch("/a.cgi", { method: "HEAD" });
  assertEquals([response.status, await response.text()], [200, ""]);
  await eventually("the script's end", () => scripts.log.includes("it ends"));
  assertEquals(scripts.log, ["it ends"]);
});

testWith(
  PS,
  "cgiGateway() stops a script that runs for longer than timeout after its response, and logs no failure of it",
  async () => {
    await using scripts = new Scripts({
      // One works on in silence, one writes on to HEAD.
      "silent.cgi": HELLO + `echo done; exec >&-; sleep 600 & echo "pids $$ $! $!" >&2; wait`,
      "writing.cgi": TREE + HELLO + "while echo x; do sleep 0.01; done",
    });
    const gateway = scripts.gateway({ timeout: 300 });
    for (const [path, method] of [["/silent.cgi", "GET"], ["/writing.cgi", "HEAD"]]) {
      scripts.log.length = 0;
      const response = await gateway.fetch(path, { method });
      assertEquals(await response.text(), method === "HEAD" ? "" : "done\n");
      const pids = await pidsOf(scripts);
      await eventually("the script's end", () => !pids.some(isRunning));
      assertEquals(
        scripts.log.filter((line) => !line.startsWith("pids ")),
        ["Stopped the application: it still ran 300 ms after its response"],
      );
    }
  },
);

Deno.test("cgiGateway() escapes control characters in the log", async () => {
  await using scripts = new Scripts({
    "a.cgi": HELLO + `printf 'a\\tb\\033[2Jc\\rd\\302\\233e\\n' >&2`,
  });
  await scripts.gateway().text("/a.cgi");
  await eventually("the log", () => scripts.log.length === 1);
  assertEquals(scripts.log, ["a\tb\\x1b[2Jc\\x0dd\\x9be"]);
});

Deno.test("cgiGateway() logs a long line in parts", async () => {
  await using scripts = new Scripts({
    "a.cgi": HELLO + `head -c 20000 /dev/zero | tr '\\0' x >&2`,
  });
  await scripts.gateway().text("/a.cgi");
  await eventually("the log", () => scripts.log.join("").length === 20_000);
  assert(scripts.log.every((line) => line.length <= 8192));
});

/** A script that starts children, prints their process ids to stderr, and does not end. */
const TREE = `(trap "" TERM; sleep 600) & one=$!; sleep 600 & echo "pids $$ $one $!" >&2; `;

async function pidsOf(scripts: Scripts): Promise<number[]> {
  await eventually(
    "the script to start",
    () => scripts.log.some((line) => line.startsWith("pids ")),
  );
  const line = scripts.log.find((line) => line.startsWith("pids "))!;
  const pids = line.split(" ").slice(1).map(Number).filter((pid) => pid > 0);
  assertEquals(pids.length, 3, line);
  assert(pids.every(isRunning), line);
  return pids;
}

testWith(
  PS,
  "cgiGateway() kills a script that exceeds the timeout, with all its children",
  async () => {
    await using scripts = new Scripts({ "a.cgi": TREE + "wait" });
    const response = scripts.gateway({ timeout: 300 }).fetch("/a.cgi");
    const pids = await pidsOf(scripts);
    assertEquals((await response).status, 504);
    await eventually("the script's end", () => !pids.some(isRunning));
  },
);

testWith(
  PS,
  "cgiGateway() kills a script whose client disconnects, with all its children",
  async () => {
    await using scripts = new Scripts({ "a.cgi": TREE + HELLO + "echo begun; wait" });
    const gateway = scripts.gateway();
    const response = await gateway.fetch("/a.cgi");
    const pids = await pidsOf(scripts);
    await response.body!.cancel();
    await eventually("the script's end", () => !pids.some(isRunning));

    await using silent = new Scripts({ "a.cgi": TREE + "wait" });
    const controller = new AbortController();
    const fetched = silent.gateway().fetch("/a.cgi", { signal: controller.signal });
    const others = await pidsOf(silent);
    controller.abort();
    await fetched;
    await eventually("the script's end", () => !others.some(isRunning));
  },
);

testWith(PS, "cgiGateway() kills a script whose request body fails", async () => {
  await using scripts = new Scripts({ "a.cgi": TREE + "cat; wait" });
  const { readable, writable } = new TransformStream<Uint8Array, Uint8Array>();
  const init = { method: "POST", body: readable, headers: { "content-length": "70000" } };
  const response = scripts.gateway({ bufferBody: false }).fetch("/a.cgi", init);
  const pids = await pidsOf(scripts);
  await writable.abort(new Error("connection reset"));
  assertEquals((await response).status, 400);
  await eventually("the script's end", () => !pids.some(isRunning));
});

testWith(PS, "cgiGateway() kills its scripts when it is disposed of", async () => {
  await using scripts = new Scripts({ "a.cgi": TREE + "wait" });
  const gateway = scripts.gateway();
  const response = gateway.fetch("/a.cgi");
  const pids = await pidsOf(scripts);
  gateway.end();
  assertEquals((await response).status, 502);
  await eventually("the script's end", () => !pids.some(isRunning));
});

testWith(
  PS,
  "cgiGateway() kills all children with --allow-run for a list of programs",
  async () => {
    await using scripts = new Scripts({ "a.cgi": TREE + "wait" });
    const gateway = new URL("../../gateway.ts", import.meta.url);
    const program = scripts.write(
      "front.ts",
      `import { cgiGateway } from "${gateway}";
const gateway = cgiGateway({ script: "${scripts.root}/a.cgi", timeout: 2000, log: console.log });
const { status } = await gateway(new Request("http://localhost/"));
console.log("status", status);`,
    );
    const flags = [
      "run",
      "--quiet",
      "--no-prompt",
      "--no-config",
      `--allow-read=${scripts.root}`,
      `--allow-run=${scripts.root}/a.cgi,kill`,
    ];
    const { stdout, stderr } = await deadline(
      new Deno.Command(Deno.execPath(), { args: [...flags, program] }).output(),
      "the program",
    );
    scripts.log.push(...new TextDecoder().decode(stdout).split("\n"));
    const pids = scripts.log.find((line) => line.startsWith("pids "))?.split(" ").slice(1).map(
      Number,
    );
    assert(pids?.length === 3, new TextDecoder().decode(stderr));
    assert(scripts.log.includes("status 504"));
    await eventually("the script's end", () => !pids.some(isRunning));
  },
);

testWith(
  PS,
  "cgiGateway() leaves no process and no zombie of scripts whose clients disconnect",
  async () => {
    // Some are aborted before the process group exists.
    await using scripts = new Scripts({ "a.cgi": TREE + "wait" });
    const gateway = scripts.gateway();
    const controllers = Array.from({ length: 8 }, () => new AbortController());
    const responses = controllers.map(({ signal }) => gateway.fetch("/a.cgi", { signal }));
    for (const controller of controllers.splice(0, 4)) controller.abort();
    await eventually(
      "four scripts",
      () => scripts.log.filter((l) => l.startsWith("pids ")).length >= 4,
    );
    for (const controller of controllers) controller.abort();
    await Promise.all(responses);
    const left = () => {
      const { stdout } = new Deno.Command("ps", { args: ["-A", "-o", "ppid=,stat=,args="] })
        .outputSync();
      return new TextDecoder().decode(stdout).split("\n").filter((line) =>
        line.includes(scripts.root) || line.trim().startsWith(`${Deno.pid} Z`)
      );
    };
    await eventually("all to end", () => left().length === 0);
    const pids = scripts.log.flatMap((line) =>
      line.startsWith("pids ") ? line.split(" ").slice(1) : []
    );
    await eventually("their children to end", () => !pids.some((pid) => isRunning(Number(pid))));
  },
);

Deno.test("cgiGateway() runs at most maxProcesses processes", async () => {
  await using scripts = new Scripts({ "a.cgi": HELLO + "echo begun; read line; echo $line" });
  const gateway = scripts.gateway({ maxProcesses: 1, bufferBody: false });
  const { readable, writable } = new TransformStream<Uint8Array, Uint8Array>();
  const init = { method: "POST", body: readable, headers: { "content-length": "70000" } };
  const first = await gateway.fetch("/a.cgi", init);
  assertEquals(await gateway.status("/a.cgi"), 503);
  const writer = writable.getWriter();
  writer.write(new TextEncoder().encode("go\n".padEnd(70_000)));
  writer.close().catch(() => {});
  assertEquals(await first.text(), "begun\ngo\n");
});

Deno.test("cgiGateway() rejects hosts that are not in allowedHosts (rule F13)", async () => {
  await using scripts = new Scripts({ "a.cgi": HELLO + `echo "$HTTP_HOST"` });
  const gateway = cgiGateway({
    root: scripts.root,
    allowedHosts: ["dev.example"],
    log: (line) => scripts.log.push(line),
  });
  const status = async (host: string) => {
    const response = await gateway(new Request(`http://${host}/a.cgi`));
    await response.body?.cancel();
    return response.status;
  };
  for (
    const host of [
      "localhost",
      "localhost:8000",
      "127.0.0.1:1",
      "127.9.9.9",
      "[::1]:8000",
      "dev.example:8",
    ]
  ) {
    assertEquals(await status(host), 200, host);
  }
  for (
    const host of [
      "evil.example",
      "localhost.evil.example",
      "127.0.0.1.evil.example",
      "dev.example.evil.example",
      "192.168.0.1",
      "[::2]",
    ]
  ) {
    assertEquals(await status(host), 421, host);
  }
});

Deno.test("cgiGateway() requires either a root or a script", () => {
  assertThrows(() => cgiGateway({}), TypeError, "neither");
  assertThrows(() => cgiGateway({ root: "/a", script: "/b" }), TypeError, "both");
});

Deno.test("fetchCGI() throws if the gateway's response would be 502", async () => {
  await using scripts = new Scripts();
  const script = scripts.write("a", "echo hello");
  await assertRejects(
    () => fetchCGI("http://localhost/", script),
    Error,
    "must end with an empty line",
  );
});

Deno.test("cgiGateway() runs no script below a folder that all users may write to", async () => {
  await using scripts = new Scripts({ "open/inner/a.cgi": `${HELLO} echo ran` });
  const gateway = scripts.gateway();
  assertEquals(await gateway.text("/open/inner/a.cgi"), "ran\n");
  for (const folder of [`${scripts.root}/open`, scripts.root]) {
    Deno.chmodSync(folder, 0o777);
    assertEquals(await gateway.status("/open/inner/a.cgi"), 403);
    assertStringIncludes(
      scripts.log.join("\n"),
      `${folder} is a folder that all users may write to`,
    );
    Deno.chmodSync(folder, 0o755);
  }
  gateway.end();
});

Deno.test("cgiGateway() starts no process before a small body is complete", async () => {
  await using scripts = new Scripts({ "cat.cgi": `${HELLO} cat` });
  // A process ends a little after its response.
  const gateway = scripts.gateway({ maxProcesses: 5 });
  const kinds = ["declared", "undeclared", "declared", "undeclared", "declared", "undeclared"];
  const slow = kinds.map((kind) => {
    const { readable, writable } = new TransformStream<Uint8Array, Uint8Array>();
    const writer = writable.getWriter();
    writer.write(new TextEncoder().encode("so")).catch(() => {});
    const headers = kind === "declared" ? { "content-length": "4" } : undefined;
    const response = gateway.text("/cat.cgi", { method: "POST", headers, body: readable });
    return { writer, response };
  });
  // All processes would be in use.
  assertEquals(await gateway.text("/cat.cgi", { method: "POST", body: "quick" }), "quick");
  for (const { writer, response } of slow.splice(0, 3)) {
    await writer.write(new TextEncoder().encode("on"));
    await writer.close();
    assertEquals(await response, "soon");
  }
  for (const { writer, response } of slow) {
    await writer.abort(new Error("connection reset"));
    assertEquals(await response, "400 Bad Request\n");
  }
  gateway.end();
});

Deno.test("cgiGateway()'s processes end when the program exits", async () => {
  await using scripts = new Scripts();
  const ended = `${scripts.root}/ended`;
  scripts.write("slow", `trap 'echo > ${ended}; exit' TERM; echo runs >&2; sleep 1000 & wait`);
  const program = scripts.write(
    "program.ts",
    `import { cgiGateway } from "${ROOT}gateway.ts";
     Deno.addSignalListener("SIGTERM", () => Deno.exit(7));
     const gateway = cgiGateway({ script: "${scripts.root}/slow" });
     await gateway(new Request("http://localhost/"));`,
  );
  const daemon = new Daemon(["--allow-all", program]);
  await daemon.says("runs");
  assertEquals((await daemon.stop()).code, 7);
  await eventually("the end of the script", () => existsSync(ended));
});
