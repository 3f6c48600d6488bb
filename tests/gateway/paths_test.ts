/** Hostile paths, sent as they are: none leads out of the folder, to a hidden script, or to a crash (rule F14). */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { serveFastCGI } from "../../fastcgi.ts";
import { cgiGateway, fastCGIGateway, type Gateway, scgiGateway } from "../../gateway.ts";
import { serveSCGI } from "../../scgi.ts";
import { bytes, text } from "../testing/bytes.ts";
import { deadline } from "../testing/deadline.ts";

const UP = ["..", "%2e%2e", ".%2e", "%2E.", "%252e%252e", "%c0%ae%c0%ae", "%e0%80%ae%e0%80%ae"];
const SLASHES = ["/", "%2f", "\\", "%5c", "%252f", "%c0%af", "//", "/./", ";/"];

/** Targets of requests. `secret.php` is beside the folder. */
const PATHS = [
  ...UP.flatMap((up) =>
    SLASHES.flatMap((slash) => [
      `/${up}${slash}secret.php`,
      `/sub${slash}${up}${slash}${up}${slash}secret.php`,
      `/ok.php${slash}${up}${slash}${up}${slash}secret.php`,
    ])
  ),
  ...SLASHES.flatMap((slash) => [
    `${slash}ok.php`,
    `/sub${slash}ok.php`,
    `/ok.php${slash}`,
    `/sub${slash}.hidden.php`,
  ]),
  "//ok.php",
  "///ok.php",
  "//evil.example/ok.php",
  "//sub//ok.php",
  "//sub/",
  "/./ok.php",
  "/sub/.",
  "/sub/..",
  "/.hidden.php",
  "/%2ehidden.php",
  "/.git/config.php",
  "/ok.php%00",
  "/ok.php%00.txt",
  "/ok.txt%00.php",
  "/%00",
  "/sub%00/ok.php",
  "/ok.php/%00",
  "/ok.php%0a",
  "/ok.php%0d%0aX-Injected:%201",
  "/ok.php/%0d%0aX-Injected:%201",
  "/ok.php%20",
  "/ok.php.",
  "/ok.php::$DATA",
  "/ok.php~",
  "/OK.PHP",
  "/ok.PHP",
  "/ok.php;x",
  "/ok.php%3fx",
  "/ok.php%23x",
  "/ok.php?/../secret.php",
  "/ok.php#/../secret.php",
  "/~root/secret.php",
  "/%",
  "/%f",
  "/%zz",
  "/%ff",
  "/ok.php/%ff",
  "/\xe9",
  "/\x01",
  "/caf%C3%A9.php",
  `/${"a".repeat(9000)}`,
  `/${"a/".repeat(4000)}ok.php`,
  `/${"../".repeat(2000)}secret.php`,
  `/${"%2e%2e/".repeat(1000)}secret.php`,
  `/${"/".repeat(5000)}ok.php`,
  "*",
  "ok.php",
  "../secret.php",
  "http://evil.example/../secret.php",
  "http://evil.example/ok.php",
  "file:///etc/passwd",
  "javascript:alert(1)",
  "/ok.php/a/b",
  "/sub/",
  "/sub",
  "/",
  "",
];

/** Sends a target as it is. Returns the whole response, or null if the server closes the connection. */
async function send(port: number, target: string): Promise<string | null> {
  using conn = await Deno.connect({ hostname: "127.0.0.1", port });
  const request = bytes(`GET ${target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n`);
  for (let at = 0; at < request.length;) at += await conn.write(request.subarray(at));
  const buffer = new Uint8Array(65_536);
  let received = "";
  while (true) {
    const count = await deadline(conn.read(buffer).catch(() => null), target.slice(0, 80));
    if (count === null) return received === "" ? null : received;
    received += text(buffer.subarray(0, count));
  }
}

/** Sends all paths. Checks each script that has run. */
async function check(gateway: Gateway, allowed: RegExp): Promise<void> {
  await using front = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen() {} }, gateway);
  const { port } = front.addr;
  let run = 0;
  for (const path of PATHS) {
    const label = path.slice(0, 80);
    const response = await send(port, path);
    if (response === null) continue;
    const head = response.split("\r\n\r\n")[0];
    assertMatch(head, /^HTTP\/1\.[01] (?:200|301|400|404|414|431) /, label);
    assert(!/^x-injected/im.test(head), label);
    if (!head.includes(" 200 ")) continue;
    run++;
    const body = /^run=.*/m.exec(response)?.[0] ?? "";
    assertMatch(body, allowed, `${label}: ${body}`);
    assert(!body.includes("secret.php ") && !body.includes("\0"), label);
    const [, pathInfo] = /PATH_INFO=(.*)$/.exec(body) ?? [];
    assert(!/(?:^|[/\\])\.\.(?:[/\\]|$)/.test(pathInfo ?? ""), `${label}: ${pathInfo}`);
  }
  assert(run > 0);
  assertMatch(await send(port, "/ok.php/info") ?? "", / 200 /);
}

/** Creates the folder `www` of scripts, and one beside it. */
async function withFolder(use: (root: string) => Promise<void>): Promise<void> {
  const directory = await Deno.realPath(await Deno.makeTempDir());
  await Deno.chmod(directory, 0o755);
  const root = `${directory}/www`;
  await Deno.mkdir(`${root}/sub`, { recursive: true });
  await Deno.mkdir(`${root}/.git`);
  const names = ["ok.php", "sub/ok.php", "sub/index.php", ".hidden.php", "sub/.hidden.php"];
  for (const name of [...names, ".git/config.php", "ok.txt", "../secret.php"]) {
    const script = `${root}/${name}`;
    await Deno.writeTextFile(
      script,
      `#!/bin/sh\necho "Content-Type: text/plain"\necho\necho "run=${name} PATH_INFO=$PATH_INFO"\n`,
    );
    await Deno.chmod(script, name.endsWith(".php") ? 0o755 : 0o644);
  }
  try {
    await use(root);
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
}

const log = () => {};
const local = () => Deno.listen({ hostname: "127.0.0.1", port: 0 });
const address = (addr: Deno.Addr) => `127.0.0.1:${(addr as Deno.NetAddr).port}` as const;
const SCRIPTS = "(?:ok|sub/ok|sub/index)\\.php";

Deno.test("no path leads cgiGateway({ root }) out of its folder", async () => {
  await withFolder(async (root) => {
    using gateway = cgiGateway({ root, index: ["index.php"], log });
    await check(gateway, new RegExp(`^run=${SCRIPTS} PATH_INFO=`));
  });
});

Deno.test("no path leads fastCGIGateway({ root }) out of its folder", async () => {
  await withFolder(async (root) => {
    await using server = serveFastCGI(
      (_request, { variables }) => {
        const file = variables.get("SCRIPT_FILENAME");
        return new Response(`run=${file} PATH_INFO=${variables.get("PATH_INFO") ?? ""}`);
      },
      local(),
      { log },
    );
    using gateway = fastCGIGateway(address(server.addr), { root, log });
    const scripts = new RegExp(`^run=${root}/(?:${SCRIPTS}) PATH_INFO=`);
    await check(gateway, scripts);
  });
});

/** Reports the script and the path that PHP-FPM would get. */
const report = (_request: Request, { variables }: { variables: ReadonlyMap<string, string> }) =>
  new Response(
    ["REQUEST_METHOD", "SCRIPT_NAME", "PATH_INFO", "REQUEST_URI"]
      .map((name) => variables.get(name) ?? "").join(" "),
  );

Deno.test("fastCGIGateway({ root }) redirects GET and HEAD to the path with merged slashes", async () => {
  await withFolder(async (root) => {
    await using server = serveFastCGI(report, local(), { log });
    const at = address(server.addr);
    const options = { root, basePath: "/app" as const, log };
    using gateway = fastCGIGateway(at, options);
    using merging = fastCGIGateway(at, { ...options, mergeSlashes: true });
    using falling = fastCGIGateway(at, { ...options, fallback: "/ok.php" });
    const fetch = (gateway: Gateway, path: string, method = "GET") =>
      deadline(gateway(new Request(`http://localhost${path}`, { method })), path);
    const cases: [path: string, location: string, run: string][] = [
      ["//app/ok.php?x=//", "/app/ok.php?x=//", "/app/ok.php "],
      ["/app//ok.php", "/app/ok.php", "/app/ok.php "],
      ["/app/sub//index.php", "/app/sub/index.php", "/app/sub/index.php "],
      ["/app///sub//ok.php/a//b/", "/app/sub/ok.php/a//b/", "/app/sub/ok.php /a//b/"],
      ["/app//sub//", "/app/sub/", "/app/sub/index.php "],
    ];
    for (const [path, location, run] of cases) {
      for (const each of [gateway, falling]) {
        for (const method of ["GET", "HEAD"]) {
          const { status, headers } = await fetch(each, path, method);
          assertEquals([status, headers.get("location")], [301, location], path);
        }
      }
      assertEquals((await fetch(gateway, path, "POST")).status, 404, path);
      for (const method of ["GET", "POST"]) {
        const seen = await (await fetch(merging, path, method)).text();
        assertEquals(seen, `${method} ${run} ${path}`);
      }
    }
    // What names no script goes to the fallback, as it was.
    const seen = await (await fetch(falling, "/app/a//b", "POST")).text();
    assertEquals(seen, "POST /app/ok.php  /app/a//b");
    const hidden = [
      "//app//.hidden.php",
      "//evil.example/ok.php",
      "/app//none.php",
      "//sub/ok.php",
    ];
    for (const path of hidden) {
      for (const each of [gateway, merging]) assertEquals((await fetch(each, path)).status, 404);
    }
    for (const path of ["/app//sub%2fok.php", "/app/sub//..%2fok.php"]) {
      for (const each of [gateway, merging]) assertEquals((await fetch(each, path)).status, 400);
    }
  });
});

Deno.test("fastCGIGateway({ root }) logs that a link to another user's file is no script", async () => {
  await withFolder(async (root) => {
    const isRoot = Deno.uid() === 0;
    await Deno.mkdir(`${root}/folder`);
    const links = ["link.php", "linked", "folder/index.php"];
    for (const link of links) {
      const target = isRoot ? (link === "linked" ? root : `${root}/ok.php`) : "/bin";
      await Deno.symlink(target, `${root}/${link}`);
      if (!isRoot) continue;
      await new Deno.Command("chown", { args: ["-h", "65534", `${root}/${link}`] }).output();
    }
    const logged: string[] = [];
    using gateway = fastCGIGateway("127.0.0.1:1", { root, log: (line) => logged.push(line) });
    for (const path of ["/link.php", "/none.php", "/linked", "/folder", "/folder/", "/none"]) {
      assertEquals((await gateway(new Request(`http://localhost${path}`))).status, 404);
    }
    assertEquals(
      logged,
      [...links, "folder/index.php"].map((link) =>
        `Cannot run script: ${root}/${link} is behind a link to another user's file`
      ),
    );
  });
});

Deno.test("each gateway takes its base path in one encoding, with a slash at its end or without", async () => {
  await withFolder(async (root) => {
    await using fastcgi = serveFastCGI(report, local(), { log });
    await using scgi = serveSCGI(report, local(), { log });
    Deno.writeTextFileSync(
      `${root}/ok.php`,
      `#!/bin/sh\necho "Content-Type: text/plain"; echo\necho -n "$REQUEST_METHOD $SCRIPT_NAME $PATH_INFO $REQUEST_URI"\n`,
    );
    for (const slash of ["", "/"]) {
      const options = { basePath: `/the app${slash}` as const, log };
      const gateways: [gateway: Gateway, script: string][] = [
        [cgiGateway({ ...options, root }), "/ok.php"],
        [cgiGateway({ ...options, script: `${root}/ok.php` }), ""],
        [fastCGIGateway(address(fastcgi.addr), { ...options, root }), "/ok.php"],
        [fastCGIGateway(address(fastcgi.addr), options), ""],
        [scgiGateway(address(scgi.addr), options), ""],
      ];
      for (const [gateway, script] of gateways) {
        const fetch = (path: string) =>
          deadline(gateway(new Request(`http://localhost${path}${script}/x`)), path);
        const seen = await (await fetch("/the%20app")).text();
        assertEquals(seen, `GET /the app${script} /x /the%20app${script}/x`);
        for (const path of ["/%74he%20app", "/the%20%61pp", "/the%20apple", "/the"]) {
          assertEquals((await fetch(path)).status, 404, path);
        }
        gateway[Symbol.dispose]();
      }
    }
  });
});

Deno.test("paths reach an application without a root as they were, or not at all", async () => {
  const app = (_request: Request, { variables }: { variables: ReadonlyMap<string, string> }) =>
    new Response(`run=app PATH_INFO=${variables.get("PATH_INFO") ?? ""}`);
  await using fastcgi = serveFastCGI(app, local(), { log });
  await using scgi = serveSCGI(app, local(), { log });
  using toFastCGI = fastCGIGateway(address(fastcgi.addr), { log });
  using toSCGI = scgiGateway(address(scgi.addr), { log });
  for (const gateway of [toFastCGI, toSCGI]) await check(gateway, /^run=app PATH_INFO=/);
  assertEquals(PATHS.length > 250, true);
});
