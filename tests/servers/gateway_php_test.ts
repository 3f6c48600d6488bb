/** PHP behind the gateways: PHP-FPM over TCP and Unix sockets, and php-cgi as a CGI program. */
import { assert, assertEquals, assertFalse, assertMatch } from "@std/assert";
import { createApp } from "../../examples/php_front.ts";
import { cgiGateway, fastCGIGateway, fetchFastCGI, type Gateway } from "../../gateway.ts";
import { Client, request } from "./client.ts";
import { serve } from "./gateway_server.ts";
import { eventually, freePort, type Rig, Suite, within } from "./harness.ts";
import { PHP_FPM, startFPM } from "./php.ts";

const MEGABYTE = 1_048_576;

const SCRIPTS: Record<string, string> = {
  "echo.php": `<?php
header("X-Accel-Redirect: /kept");
echo json_encode([
  "server" => $_SERVER, "get" => $_GET, "post" => $_POST, "cookie" => $_COOKIE,
  "files" => array_map(fn($f) => [$f["name"], $f["size"], md5_file($f["tmp_name"])], $_FILES),
  "input" => strlen(file_get_contents("php://input")),
]);`,
  "index.php": `<?php echo "index of ", $_SERVER["SCRIPT_NAME"], " for ", $_SERVER["REQUEST_URI"];`,
  "sub/index.php": `<?php echo "index of ", $_SERVER["SCRIPT_NAME"];`,
  "session.php": `<?php session_start(); echo $_SESSION["n"] = ($_SESSION["n"] ?? 0) + 1;`,
  "sum.php": `<?php
$context = hash_init("sha256"); $in = fopen("php://input", "rb"); $length = 0;
while (!feof($in)) { $part = fread($in, 65536); $length += strlen($part); hash_update($context, $part); }
echo $length, " ", hash_final($context);`,
  "download.php": `<?php
$length = (int) $_GET["length"]; header("Content-Length: $length");
header("Content-Type: application/octet-stream");
$block = str_repeat("0123456789abcdef", 4096);
for (; $length > 0; $length -= 65536) { echo $length < 65536 ? substr($block, 0, $length) : $block; flush(); }`,
  "error.php": `<?php error_log("a line for the log"); throw new Exception("secret cause");`,
  "redirect.php": `<?php header("Location: /echo.php?from=redirect");`,
  "nothing.php": `<?php http_response_code(204);`,
  "pid.php": `<?php echo getmypid();`,
  "style.css": `body {}`,
  "upload/evil.txt": `<?php echo "run";`,
  ".hidden.php": `<?php echo "run";`,
};

interface PHP {
  tcp: string;
  unix: string;
  cgi: string;
  fallback: string;
  front: string;
  /** PHP-FPM itself. */
  fpm: { address: `unix:${string}`; root: string };
  log: string[];
}

const php = new Suite("gateway: PHP", {
  [PHP_FPM]: "php-fpm",
  "php-cgi": "php-cgi",
}, async (rig): Promise<PHP> => {
  for (const [name, text] of Object.entries(SCRIPTS)) rig.write(`www/${name}`, text);
  for (const folder of ["www", "www/sub", "www/upload"]) {
    Deno.chmodSync(`${rig.dir}/${folder}`, 0o755);
  }
  const port = await startPools(rig);
  const log: string[] = [];
  const options = { root: `${rig.dir}/www`, log: (line: string) => void log.push(line) };
  const tcp = `127.0.0.1:${port}`;
  return {
    log,
    fpm: { address: `unix:${rig.dir}/fpm.sock`, root: options.root },
    tcp: serve(fastCGIGateway(tcp, { ...options, maxIdleConnections: 4 })),
    unix: serve(fastCGIGateway(`unix:${rig.dir}/fpm.sock`, options)),
    fallback: serve(fastCGIGateway(tcp, { ...options, fallback: "/index.php" })),
    front: serve(
      withFiles(fastCGIGateway(tcp, { ...options, fallback: "/index.php" }), options.root),
    ),
    cgi: serve(
      cgiGateway({
        ...options,
        index: ["index.php"],
        extensions: [".php"],
        interpreters: { ".php": ["php-cgi"] },
        // php-cgi refuses requests unless this is set.
        variables: { REDIRECT_STATUS: "200" },
      }),
    ),
  };
});

/** Starts PHP-FPM with one process per pool, where a kept connection must not block another. */
async function startPools(rig: Rig): Promise<number> {
  const port = freePort();
  const lines = `catch_workers_output = yes
php_admin_value[session.save_path] = ${rig.dir}/cache
php_admin_value[upload_max_filesize] = 200M
php_admin_value[post_max_size] = 200M
php_admin_value[display_errors] = 0
php_admin_value[log_errors] = 1
php_admin_value[opcache.enable] = 0`;
  const listens = [`127.0.0.1:${port}`, `${rig.dir}/fpm.sock`];
  await startFPM(rig, ...listens.map((listen) => ({ listen, children: 1, lines })));
  return port;
}

function withFiles(php: Gateway, root: string): Gateway {
  const app = createApp(php, root);
  const fetch = async (request: Request, info?: Deno.ServeHandlerInfo) =>
    await app.fetch(request, info);
  return Object.assign(fetch, { [Symbol.dispose]: () => php[Symbol.dispose]() }) as Gateway;
}

const ways = ["tcp", "unix", "cgi"] as const;

/** Registers a test for each way to PHP. */
function each(name: string, run: (host: string, php: PHP, way: string) => Promise<void>): void {
  for (const way of ways) {
    php.test(`${way}: ${name}`, (started) => run(started[way], started, way));
  }
}

const json = async (host: string, method: string, path: string, options = {}) =>
  JSON.parse((await request(host, method, path, options)).text);

each("$_SERVER has the request", async (host) => {
  const { server, get } = await json(host, "GET", "/echo.php/a%20b/caf%C3%A9?x=1&y=%26", {
    fields: [["X-Custom", "v"], ["Authorization", "Basic dTpw"], ["Proxy", "http://evil"]],
  });
  assertEquals(server.SCRIPT_NAME, "/echo.php");
  assertEquals(server.PATH_INFO, "/a b/café");
  assertEquals(server.PHP_SELF, "/echo.php/a b/café");
  assertEquals(server.REQUEST_URI, "/echo.php/a%20b/caf%C3%A9?x=1&y=%26");
  assertEquals(get, { x: "1", y: "&" });
  assertEquals(server.HTTP_HOST, host);
  assertEquals(server.HTTP_X_CUSTOM, "v");
  assertEquals([server.PHP_AUTH_USER, server.PHP_AUTH_PW], ["u", "p"]);
  assertEquals(server.HTTP_PROXY, undefined);
  assertEquals(server.REMOTE_ADDR, "127.0.0.1");
  assert(server.SCRIPT_FILENAME.endsWith("/www/echo.php"), server.SCRIPT_FILENAME);
});

each("$_POST and $_COOKIE have the form", async (host) => {
  const { post, cookie, input } = await json(host, "POST", "/echo.php", {
    body: new TextEncoder().encode("a=1&b%5B%5D=%C3%A4&b%5B%5D=2"),
    fields: [["Content-Type", "application/x-www-form-urlencoded"], ["Cookie", "s=1; t=2"]],
  });
  assertEquals(post, { a: "1", b: ["ä", "2"] });
  assertEquals(cookie, { s: "1", t: "2" });
  assertEquals(input, 28);
});

each("$_FILES has the uploads", async (host) => {
  const form = new FormData();
  form.set("file", new Blob(["hello"]), "ü.txt");
  const response = await fetch(`http://${host}/echo.php`, { method: "POST", body: form });
  const { files } = await response.json();
  assertEquals(files, { file: ["ü.txt", 5, "5d41402abc4b2a76b9719d911017c592"] });
});

each("X-Accel-Redirect reaches the client unchanged", async (host) => {
  const { head } = await request(host, "GET", "/echo.php");
  assertEquals(head.all("x-accel-redirect"), ["/kept"]);
});

each("a chunked body reaches PHP with a length", async (host) => {
  using client = await Client.connect(host);
  await client.sendHead("POST", "/echo.php", [["Transfer-Encoding", "chunked"]]);
  await client.sendChunk(new Uint8Array(1000));
  await client.sendChunk(new Uint8Array(2000));
  await client.sendChunk(new Uint8Array());
  const { input, server } = JSON.parse((await client.readResponse()).text);
  assertEquals([input, server.CONTENT_LENGTH], [3000, "3000"]);
});

each("a session persists across requests", async (host) => {
  const first = await request(host, "GET", "/session.php");
  const cookie = first.head.get("set-cookie")!.split(";")[0];
  assertEquals(first.text, "1");
  const fields = [["Cookie", cookie]];
  assertEquals((await request(host, "GET", "/session.php", { fields })).text, "2");
});

each("20 MB are uploaded and downloaded", async (host) => {
  const length = 20 * MEGABYTE;
  using client = await Client.connect(host);
  await client.sendHead("POST", "/sum.php", [
    ["Content-Length", String(length)],
    ["Content-Type", "application/octet-stream"],
  ]);
  for (let sent = 0; sent < length; sent += MEGABYTE) await client.send(new Uint8Array(MEGABYTE));
  // sha256 of 20 MB of zeros.
  assertEquals(
    (await client.readResponse()).text,
    `${length} cd52d81e25f372e6fa4db2c0dfceb59862c1969cab17096da352b34950c973cc`,
  );
  const down = await fetch(`http://${host}/download.php?length=${length}`);
  assertEquals(down.headers.get("content-length"), String(length));
  let received = 0;
  for await (const chunk of down.body!) received += chunk.length;
  assertEquals(received, length);
});

each("slow uploads leave the only process of PHP to others", async (host) => {
  const length = 200_000;
  const clients: Client[] = [];
  for (const fields of [[["Content-Length", String(length)]], [["Transfer-Encoding", "chunked"]]]) {
    const client = await Client.connect(host);
    clients.push(client);
    await client.sendHead("POST", "/sum.php", fields as [string, string][]);
    const half = new Uint8Array(length / 2);
    await (fields[0][0] === "Content-Length" ? client.send(half) : client.sendChunk(half));
    assertMatch((await request(host, "GET", "/pid.php")).text, /^\d+$/);
  }
  await clients[0].send(new Uint8Array(length / 2));
  await clients[1].sendChunk(new Uint8Array(length / 2));
  await clients[1].sendChunk(new Uint8Array());
  for (const client of clients) {
    assertMatch((await client.readResponse()).text, new RegExp(`^${length} `));
    client[Symbol.dispose]();
  }
});

each("HEAD and 204 have no body", async (host) => {
  using client = await Client.connect(host);
  await client.sendHead("HEAD", "/index.php");
  assertEquals((await client.readResponse("HEAD")).status, 200);
  await client.sendHead("GET", "/nothing.php");
  assertEquals((await client.readResponse()).status, 204);
  await client.sendHead("GET", "/index.php");
  assertMatch((await client.readResponse()).text, /^index of/);
});

each("a redirect reaches the client", async (host) => {
  const { status, head } = await request(host, "GET", "/redirect.php");
  assertEquals([status, head.get("location")], [302, "/echo.php?from=redirect"]);
});

each("an error is logged, and returns 500 without its cause", async (host, { log }) => {
  const { status, text } = await request(host, "GET", "/error.php");
  assertEquals(status, 500);
  assertFalse(text.includes("secret"), text);
  await eventually(
    "the gateway's log has PHP's line",
    () => log.some((line) => line.includes("a line for the log")),
  );
  assert(log.some((line) => line.includes("secret cause")));
});

each("a directory serves its index, and redirects to its slash", async (host) => {
  assertEquals((await request(host, "GET", "/sub/")).text, "index of /sub/index.php");
  const { status, head } = await request(host, "GET", "/sub?x=1");
  assertEquals([status, head.get("location")], [301, "/sub/?x=1"]);
});

each("a file that is no script is neither run nor shown", async (host, _php, way) => {
  for (
    const path of [
      "/style.css",
      "/missing.php",
      "/upload/evil.txt/x.php",
      "/upload/evil.txt/.php",
      "/.hidden.php",
      "/sub%2findex.php",
      "/sub%5cindex.php",
      "/sub%2findex.php%00.css",
      "/..%2fwww/index.php",
      "/sub/%2e%2e%2f%2e%2e/etc/passwd",
      "/echo.php%00.txt",
    ]
  ) {
    const { status, text } = await request(host, "GET", path);
    // cgiGateway() responds 403 for a file that exists with another extension.
    const statuses = way === "cgi" ? [400, 403, 404] : [400, 404];
    assert(statuses.includes(status), `${path}: ${status}`);
    assertFalse(/<\?php|run|root:|body \{/.test(text), `${path}: ${text}`);
  }
});

php.test("the fallback receives a path that names no script", async ({ fallback }) => {
  const { text } = await request(fallback, "GET", "/posts/1?q=2");
  assertEquals(text, "index of /index.php for /posts/1?q=2");
  assertMatch((await request(fallback, "GET", "/pid.php")).text, /^\d+$/);
});

php.test("one process serves concurrent requests while connections are kept", async ({ tcp }) => {
  const paths = Array.from({ length: 12 }, (_, i) => i % 3 === 0 ? "/echo.php" : "/pid.php");
  const responses = await Promise.all(
    paths.map((path, i) =>
      request(tcp, i % 4 === 0 ? "POST" : "GET", path, {
        body: i % 4 === 0 ? new Uint8Array(9) : undefined,
      })
    ),
  );
  assertEquals(responses.map(({ status }) => status), Array(12).fill(200));
});

php.test("other clients of a PHP-FPM that is kept busy get their turn", async ({ unix, fpm }) => {
  let busy = true;
  const load = async () => {
    while (busy) assertEquals((await request(unix, "GET", "/pid.php")).status, 200);
  };
  const loaded = load();
  try {
    for (let i = 0; i < 3; i++) {
      const other = fetchFastCGI("http://localhost/pid.php", fpm.address, { root: fpm.root });
      assertMatch(await (await within("the other client's response", other)).text(), /^\d+$/);
    }
  } finally {
    busy = false;
  }
  await loaded;
});

php.test(
  "examples/php_front.ts serves files beside PHP, and no script's source",
  async ({ front }, rig) => {
    const css = await request(front, "GET", "/style.css");
    assertEquals([css.status, css.text], [200, "body {}"]);
    assertMatch(css.head.get("content-type")!, /^text\/css/);
    assertEquals((await request(front, "GET", "/sub/")).text, "index of /sub/index.php");
    for (const path of ["/posts/1", "/missing.css", "/none.txt?x=1"]) {
      assertEquals((await request(front, "GET", path)).text, `index of /index.php for ${path}`);
    }
    for (const path of ["/composer.json", "/phpunit.xml", "/notes.txt", "/style.css.map"]) {
      rig.write(`www${path}`, "private");
      assertEquals((await request(front, "GET", path)).text, `index of /index.php for ${path}`);
    }
    rig.write("www/robots.txt", "public");
    assertEquals((await request(front, "GET", "/robots.txt")).text, "public");
    const paths = [
      "/echo.php%00.css",
      "/.hidden.php",
      "/echo%2ephp",
      "/index.php/x.css",
      "/..%2fwww/echo.php",
    ];
    for (const path of [...paths, "/echo.php%2f.css", "/%2e%2e/www/echo.php%3f.css"]) {
      const { text } = await request(front, "GET", path);
      assertFalse(text.includes("<?php"), `${path}: ${text}`);
    }
  },
);
