import { dirname } from "node:path";
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { isServed, servedHosts } from "../../cli/dev/server.ts";
import { isSource } from "../../cli/dev/watch.ts";
import { serveFastCGI } from "../../fastcgi.ts";
import { bytes, concat } from "../testing/bytes.ts";
import { callCommandLine, runCommandLine } from "../testing/command_line.ts";
import { Daemon, ROOT } from "../testing/daemon.ts";
import { deadline } from "../testing/deadline.ts";
import { Dev } from "../testing/dev.ts";
import { endRequest, stream, Type } from "../testing/fastcgi_records.ts";
import { testWith } from "../testing/needs.ts";

async function withApp(
  text: string,
  use: (dev: Dev, write: (text: string) => Promise<void>) => Promise<void>,
): Promise<void> {
  const directory = await Deno.makeTempDir();
  const app = `${directory}/app.ts`;
  const write = (text: string) => Deno.writeTextFile(app, text);
  await write(text);
  try {
    await using dev = await Dev.start(app);
    await use(dev, write);
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
}

const version = (name: string) => `export default () => new Response("${name}");`;

Deno.test("dev loads an app again when it is saved, and prints each request", async () => {
  await withApp(version("one"), async (dev, write) => {
    assertEquals(await dev.text("/a?b"), "one");
    await dev.says("GET /a?b");
    await dev.says(" ms");
    assertMatch(dev.output, /^200 GET \/a\?b 3 B \d+\.\d ms$/m);
    await write(version("two"));
    await dev.becomes("two");
    assertStringIncludes(dev.output, "app.ts has changed");
  });
});

Deno.test("dev loses no request while it loads an app again", async () => {
  const slow = (name: string) =>
    `export default async (request) => {
  const { pathname } = new URL(request.url);
  if (pathname === "/slow") {
    console.error("slow begins");
    while (!await Deno.stat(import.meta.dirname + "/go").catch(() => null)) {
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
  }
  return new Response(request.body ?? "${name}");
};`;
  await withApp(slow("0"), async (dev, write) => {
    const inProgress = dev.text("/slow");
    await dev.says("slow begins");
    const loads = new AbortController();
    let count = 0;
    const load = Promise.all(Array.from({ length: 4 }, async (_, i) => {
      while (!loads.signal.aborted) {
        const init = i % 2 === 0 ? {} : { method: "POST", body: "body" };
        const response = await fetch(dev.url, init);
        assertEquals(response.status, 200);
        assertMatch(await response.text(), /^(?:\d|body)$/);
        count++;
      }
    }));
    for (const name of ["1", "2", "3"]) {
      await write(slow(name));
      await dev.becomes(name);
    }
    loads.abort();
    await deadline(load, "the requests");
    assert(count > 0);
    const directory = /Serving (.*)\/app\.ts/.exec(dev.output)![1];
    await Deno.writeTextFile(`${directory}/go`, "");
    assertEquals(await deadline(inProgress, "the request in progress"), "0");
  });
});

for (
  const [name, env, status] of [
    ["in color on a terminal", {}, "\x1b[32m200\x1b[0m"],
    ["without color with NO_COLOR", { NO_COLOR: "1" }, "200"],
  ] as const
) {
  testWith({ script: "bsdutils" }, `dev prints a status ${name}`, async () => {
    const folder = await createFolder({ "a.txt": "text" });
    const { NO_COLOR: _, ...others } = Deno.env.toObject();
    {
      await using dev = new Dev([folder], { env: { ...others, ...env }, terminal: true });
      await dev.serves();
      await dev.text("/a.txt");
      await dev.says(" ms");
      assertEquals(/^(.*) GET /m.exec(dev.output)?.[1], status);
    }
    await Deno.remove(folder, { recursive: true });
  });
}

/** Returns how the script of a debug page waits for another version of the app. */
async function waitAsPage(dev: Dev, page: string): Promise<number> {
  const [, path] = /fetch\("(.*?)"/.exec(page)!;
  const [, version] = /data-version="(\d+)"/.exec(page)!;
  const response = await deadline(fetch(`${dev.url}${path}${version}`), "the reload");
  await response.body?.cancel();
  return response.status;
}

Deno.test("dev shows the error of a save in the browser, not the last version's response", async () => {
  await withApp(version("one"), async (dev, write) => {
    await write("export default (");
    await dev.says("app.ts has changed");
    const response = await fetch(dev.url);
    assertEquals([response.status, (await response.text()).includes("<h1>")], [500, true]);
    const page = await dev.shows("Error: SyntaxError: ");
    await dev.says("The app does not start. Correct it and save it");
    const reload = waitAsPage(dev, page);
    await write("export default 1;");
    assertEquals(await reload, 205);
    const next = await dev.shows("app.ts must export an app as its default");
    const mended = waitAsPage(dev, next);
    await write(version("two"));
    assertEquals(await mended, 205);
    await dev.becomes("two");
    // A page of a version that is no longer there, or of a dev that was started again, does not wait.
    assertEquals(await waitAsPage(dev, page), 205);
  });
});

Deno.test("dev shows the error of an app that fails to start at first", async () => {
  await withApp("throw new Error('no database');", async (dev, write) => {
    assertStringIncludes(dev.output, "no database");
    const response = await fetch(dev.url);
    const page = await response.text();
    assertEquals(response.status, 500);
    assertStringIncludes(page, "<h1>Error: no database</h1>");
    assertMatch(page, /<mark> *1 {2}throw new Error/);
    await write(version("two"));
    await dev.becomes("two");
  });
});

Deno.test("dev shows that the app's process has ended, and reloads the page after a save", async () => {
  await withApp("Deno.exit(7);", async (dev, write) => {
    const page = await dev.text();
    assertMatch(page, /<h1>Error: The app&#39;s process \d+ ended with code 7 before it served/);
    const reload = waitAsPage(dev, page);
    await write(version("two"));
    assertEquals(await reload, 205);
    await dev.becomes("two");
  });
});

Deno.test("dev prints no more than the change at a save that succeeds", async () => {
  await withApp(version("one"), async (dev, write) => {
    for (const name of ["two", "three"]) {
      await write(version(name));
      await dev.becomes(name);
    }
    const others = dev.output.split("\n").filter((line) => !/^(?:200 |Serving |$)/.test(line));
    assertEquals([...new Set(others)], [
      `Open ${dev.url.replace("127.0.0.1", "localhost")}/ in a browser. Stop with Ctrl-C.`,
      /^.* has changed$/m.exec(dev.output)![0],
    ]);
  });
});

Deno.test("dev shows errors of the app in the browser, and serves this machine alone", async () => {
  await withApp("export default () => { throw new Error('out of ink'); };", async (dev) => {
    const response = await fetch(dev.url);
    assertEquals(response.status, 500);
    const page = await response.text();
    assertStringIncludes(page, "<h1>Error: out of ink</h1>");
    // The socket of the app is another one after the next change.
    assertStringIncludes(page, `curl -g -i`);
    assertStringIncludes(page, `${dev.url}/`);
    assert(!page.includes("gatehouse-dev-"), page);
    await dev.says("at "); // The stack.
    const { hostname, port } = new URL(dev.url);
    const conn = await Deno.connect({ hostname, port: Number(port) });
    const request = "GET / HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n";
    await conn.write(new TextEncoder().encode(request));
    const text = await deadline(new Response(conn.readable).text(), "the response");
    assertMatch(text, /^HTTP\/1\.1 421 /);
  });
});

Deno.test("dev --host serves the address that it prints, and passes on the variables of --env-file", async () => {
  const folder = await Deno.makeTempDir();
  await Deno.writeTextFile(
    `${folder}/app.ts`,
    `export default () => new Response(Deno.env.get("A"));`,
  );
  await Deno.writeTextFile(`${folder}/vars`, "A=from the file\n");
  {
    const args = [`${folder}/app.ts`, "--host=127.0.0.2", "--env-file", `${folder}/vars`];
    await using dev = new Dev(args);
    await dev.says("in a browser");
    const [, url] = /^Open (http:\/\/127\.0\.0\.2:\d+\/) in a browser/m.exec(dev.output)!;
    const response = await fetch(url);
    assertEquals(await response.text(), "from the file");
  }
  await Deno.remove(folder, { recursive: true });
});

testWith({ openssl: "openssl" }, "dev --cert --key serves HTTPS", async () => {
  const folder = await Deno.makeTempDir();
  const [cert, key] = [`${folder}/cert.pem`, `${folder}/key.pem`];
  const { success } = await new Deno.Command("openssl", {
    args: [
      ...["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"],
      ...["-keyout", key, "-out", cert, "-subj", "/CN=localhost"],
      ...[
        "-addext",
        "subjectAltName=DNS:localhost",
        "-addext",
        "basicConstraints=critical,CA:FALSE",
      ],
    ],
    stderr: "null",
  }).output();
  assert(success);
  await Deno.writeTextFile(`${folder}/app.ts`, "export default ({ url }) => new Response(url);");
  {
    await using dev = new Dev([`${folder}/app.ts`, "--cert", cert, "--key", key]);
    await dev.says("in a browser");
    const [, url] = /^Open (https:\/\/localhost:\d+\/) in a browser/m.exec(dev.output)!;
    using client = Deno.createHttpClient({ caCerts: [await Deno.readTextFile(cert)] });
    assertEquals(await (await fetch(`${url}a`, { client })).text(), `${url}a`);
  }
  await Deno.remove(folder, { recursive: true });
});

Deno.test("servedHosts() are those of the addresses that a server listens on", () => {
  const own = () => [
    { address: "127.0.0.1", family: "IPv4" as const },
    { address: "192.168.1.5", family: "IPv4" as const },
    { address: "2001:db8::5", family: "IPv6" as const },
    { address: "fe80::1", family: "IPv6" as const },
  ];
  assertEquals(servedHosts(undefined, own), ["localhost"]);
  assertEquals(servedHosts("0.0.0.0", own), ["localhost", "192.168.1.5"]);
  assertEquals(servedHosts("[::]", own), ["localhost", "192.168.1.5", "[2001:db8::5]"]);
  assertEquals(servedHosts("2001:db8::5", own), ["[2001:db8::5]"]);
  const hosts = servedHosts("::", own);
  for (const host of ["192.168.1.5", "[2001:DB8:0::5]", "localhost", "127.0.0.1", "[::1]"]) {
    assert(isServed(host, hosts), host);
  }
  for (const host of ["evil.example", "192.168.1.6", "192.168.1.5.evil.example"]) {
    assert(!isServed(host, hosts), host);
  }
});

Deno.test("dev runs the CGI scripts of a folder", async () => {
  const directory = await Deno.makeTempDir();
  const text = `#!/bin/sh\necho "Content-Type: text/plain"\necho\necho "$PATH_INFO"\n`;
  await Deno.writeTextFile(`${directory}/show.sh`, text, { mode: 0o755 });
  await Deno.chmod(directory, 0o755);
  {
    await using dev = await Dev.start(directory);
    assertEquals(await dev.text("/show.sh/a"), "/a\n");
    // As web servers do.
    const merged = await fetch(`${dev.url}//show.sh/a`, { method: "POST" });
    assertEquals([merged.status, await merged.text()], [200, "/a\n"]);
    assertEquals(
      await fetch(dev.url + "/absent", {}).then((response) => response.text()),
      "404 Not Found\n",
    );
  }
  await Deno.remove(directory, { recursive: true });
});

/** Creates a folder of scripts, which have mode 755, and other files, by their paths. */
async function createFolder(files: Record<string, string>): Promise<string> {
  const folder = await Deno.makeTempDir();
  await Deno.chmod(folder, 0o755);
  for (const [path, text] of Object.entries(files)) {
    await Deno.mkdir(dirname(`${folder}/${path}`), { recursive: true, mode: 0o755 });
    const mode = text.startsWith("#!") ? 0o755 : 0o644;
    await Deno.writeTextFile(`${folder}/${path}`, text, { mode });
  }
  return folder;
}

Deno.test("dev FOLDER lists scripts, folders and files, and serves files beside scripts", async () => {
  const folder = await createFolder({
    "a&b.sh": "#!/bin/sh\necho Content-Type: text/plain\necho\necho it runs\n",
    "page.js": "#!/bin/sh\necho Content-Type: text/plain\necho\necho it runs, too\n",
    "style.css": "b {}",
    "lib.py": "secret = 1",
    "data.sqlite": "data",
    ".env": "SECRET=1",
    "site/index.html": "the page",
    "deep/er/b.wasm": "wasm",
    ".well-known/security": "contact",
  });
  await Deno.symlink("/etc", `${folder}/outside`);
  {
    await using dev = await Dev.start(folder);
    const listing = await dev.text("/");
    const links = [...listing.matchAll(/<a href="(.*?)">(.*?)<\/a> <small>(.*?)</g)];
    assertEquals(links.map(([_, ...parts]) => parts), [
      ["./deep/", "deep/", ""],
      ["./outside/", "outside/", ""],
      ["./site/", "site/", ""],
      ["./a%26b.sh", "a&#38;b.sh", "script"],
      ["./page.js", "page.js", "script"],
      ["./style.css", "style.css", ""],
    ]);
    assertEquals(await dev.text("/a%26b.sh"), "it runs\n");
    assertEquals(await dev.text("/page.js"), "it runs, too\n");
    assertEquals(await dev.text("/style.css"), "b {}");
    assertEquals(await dev.text("/site/"), "the page");
    assertEquals(await dev.text("/.well-known/security"), "contact");
    const deep = await fetch(`${dev.url}/deep?x`);
    assertEquals(deep.url, `${dev.url}/deep/?x`);
    const page = await deep.text();
    assertStringIncludes(page, `<a href="../">`);
    assertStringIncludes(page, "No scripts are here. A script is a file that is executable");
    const wasm = await fetch(`${dev.url}/deep/er/b.wasm`);
    assertEquals([await wasm.text(), wasm.headers.get("content-type")], [
      "wasm",
      "application/wasm",
    ]);
    for (const path of ["/lib.py", "/data.sqlite", "/.env", "/style.css/", "/outside/", "/none"]) {
      const response = await fetch(dev.url + path);
      await response.body?.cancel();
      assert([403, 404].includes(response.status), `${path}: ${response.status}`);
    }
  }
  await Deno.remove(folder, { recursive: true });
});

Deno.test("dev FOLDER shows why a script fails, and leaves a script's own error page", async () => {
  const folder = await createFolder({
    "fails.sh": "#!/bin/sh\necho 'no <ink>' >&2\nexit 3\n",
    "plain.py": "print(1)",
    "crlf.sh": "#!/bin/sh\r\necho\n",
    "own.sh":
      "#!/bin/sh\necho a note >&2\necho Status: 500\necho Content-Type: text/plain\necho\necho own\n",
  });
  {
    await using dev = await Dev.start(folder);
    const response = await fetch(`${dev.url}/fails.sh`);
    assertEquals(response.status, 502);
    const page = await response.text();
    const [, title] = /<h1>([^]*?)<\/h1>/.exec(page)!;
    assertStringIncludes(title, "no &#60;ink&#62;");
    assertStringIncludes(title, "Cannot ");
    assertStringIncludes(await dev.text("/crlf.sh"), "its first line ends in CR LF</h1>");
    const refused = await fetch(`${dev.url}/plain.py`);
    assertEquals(refused.status, 403);
    assertStringIncludes(await refused.text(), "plain.py is not executable</h1>");
    assertEquals(await dev.text("/own.sh"), "own\n");
    await dev.says("no <ink>");
  }
  await Deno.remove(folder, { recursive: true });
});

Deno.test("dev sends a file once, and its parts", async () => {
  const folder = await createFolder({ "a.txt": "0123456789", "empty.txt": "" });
  {
    await using dev = await Dev.start(folder);
    const get = async (headers: Record<string, string>, path = "/a.txt") => {
      const response = await fetch(dev.url + path, { headers });
      const { status } = response;
      return [status, await response.text(), response.headers.get("content-range")];
    };
    const first = await fetch(`${dev.url}/a.txt`, { method: "HEAD" });
    assertEquals(first.headers.get("content-length"), "10");
    // Only GET has ranges (RFC 9110 section 14.2).
    const part = await fetch(`${dev.url}/a.txt`, {
      method: "HEAD",
      headers: { range: "bytes=2-4" },
    });
    assertEquals([part.status, part.headers.get("content-length")], [200, "10"]);
    const etag = first.headers.get("etag")!;
    assertEquals(await get({ "if-none-match": `"x", W/${etag}` }), [304, "", null]);
    assertEquals(await get({ "if-none-match": '"x"' }), [200, "0123456789", null]);
    assertEquals(await get({ range: "bytes=2-4" }), [206, "234", "bytes 2-4/10"]);
    assertEquals(await get({ range: "bytes=8-" }), [206, "89", "bytes 8-9/10"]);
    assertEquals(await get({ range: "bytes=-3" }), [206, "789", "bytes 7-9/10"]);
    assertEquals(await get({ range: "bytes=8-99", "if-range": etag }), [206, "89", "bytes 8-9/10"]);
    assertEquals(await get({ range: "bytes=2-4", "if-range": '"x"' }), [200, "0123456789", null]);
    for (const range of ["bytes=10-", "bytes=-0"]) {
      assertEquals(await get({ range }), [416, "", "bytes */10"], range);
    }
    for (const range of ["bytes=4-2", "bytes=0-1,3-4", "bytes=-", "lines=1-2"]) {
      assertEquals(await get({ range }), [200, "0123456789", null], range);
    }
    assertEquals(await get({ range: "bytes=0-" }, "/empty.txt"), [416, "", "bytes */0"]);
    await Deno.writeTextFile(`${folder}/a.txt`, "another text");
    assertEquals(await get({ "if-none-match": etag }), [200, "another text", null]);
  }
  await Deno.remove(folder, { recursive: true });
});

Deno.test("dev says if nothing listens, and passes other paths to --fallback", async () => {
  const folder = await createFolder({ "index.php": "<?php", "style.css": "b {}" });
  const path = `${folder}/app.sock`;
  const address = `fastcgi:unix:${path}`;
  {
    await using absent = await Dev.start(address);
    await absent.says(`Nothing listens at unix:${path}: `);
    await absent.says("Without --root no file is named to the application");
    const listener = Deno.listen({ transport: "unix", path });
    await using _server = serveFastCGI(({ url }, { variables }) => {
      const names = ["SCRIPT_NAME", "SCRIPT_FILENAME", "REQUEST_URI"];
      return Response.json([new URL(url).pathname, ...names.map((name) => variables.get(name))]);
    }, listener);
    await using dev = await Dev.start(address, "--root", folder, "--fallback", "/index.php");
    assertEquals(await (await fetch(`${dev.url}/posts/7?x`)).json(), [
      "/posts/7",
      "/index.php",
      `${folder}/index.php`,
      "/posts/7?x",
    ]);
    assertEquals(await dev.text("/style.css"), "b {}");
    assert(!dev.output.includes("Nothing listens"), dev.output);
  }
  await Deno.remove(folder, { recursive: true });
});

Deno.test("dev shows what a FastCGI application logs if it fails without a page", async () => {
  const folder = await createFolder({ "index.php": "<?php" });
  const path = `${folder}/app.sock`;
  const get = async (dev: Dev, path: string) => {
    const response = await fetch(dev.url + path);
    return { status: response.status, text: await response.text() };
  };
  {
    await using dev = await Dev.start(`fastcgi:unix:${path}`, "--root", folder);
    const absent = await get(dev, "/");
    assertEquals(absent.status, 502);
    assertStringIncludes(absent.text, `Cannot connect to unix:${path}`);
    const listener = Deno.listen({ transport: "unix", path });
    await using _server = serveFastCGI(({ url }, info) => {
      const { search } = new URL(url);
      info.log(`PHP Fatal error: thrown by ${search}`);
      // PHP without display_errors sends no body.
      const body = search === "?own"
        ? "an own page"
        : search === "?b"
        ? new Blob([]).stream()
        : null;
      return new Response(body, {
        status: search === "?fine" ? 200 : 500,
        headers: { "content-type": "text/html" },
      });
    }, listener);
    const searches = ["?a", "?b"];
    const failed = await Promise.all(searches.map((search) => get(dev, `/${search}`)));
    failed.forEach(({ status, text }, i) => {
      assertEquals(status, 500);
      assertStringIncludes(text, `PHP Fatal error: thrown by ${searches[i]}`);
      assert(!text.includes(`thrown by ${searches[1 - i]}`), text);
    });
    assertEquals(await get(dev, "/?own"), { status: 500, text: "an own page" });
    assertEquals(await get(dev, "/?fine"), { status: 200, text: "" });
  }
  await Deno.remove(folder, { recursive: true });
});

Deno.test("dev shows a fault of PHP, which sends it and a response without a body at once", async () => {
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const head = bytes("Status: 500 Internal Server Error\r\nContent-type: text/html\r\n\r\n");
  const sent = concat([
    stream(Type.stderr, 1, bytes("PHP message: PHP Fatal error: oops\nStack trace:\n")),
    stream(Type.stdout, 1, head),
    endRequest(1),
  ]);
  const answering = (async () => {
    for await (const connection of listener) {
      const buffer = new Uint8Array(8192);
      // The first connection only finds out whether the application runs.
      if (await connection.read(buffer) !== null) await connection.write(sent);
      while (await connection.read(buffer).catch(() => null) !== null);
      connection.close();
    }
  })();
  {
    await using dev = await Dev.start(`fastcgi:127.0.0.1:${listener.addr.port}`);
    const response = await fetch(dev.url + "/bad.php");
    assertEquals(response.status, 500);
    assertStringIncludes(await response.text(), "PHP message: PHP Fatal error: oops");
  }
  listener.close();
  await answering.catch(() => {});
});

Deno.test({
  name: "dev says that this user may not connect to a FastCGI application",
  // Root may connect to every socket.
  ignore: Deno.uid() === 0,
  async fn() {
    const folder = await Deno.makeTempDir();
    const path = `${folder}/app.sock`;
    {
      using _listener = Deno.listen({ transport: "unix", path });
      await Deno.chmod(path, 0o000);
      await using dev = await Dev.start(`fastcgi:unix:${path}`);
      await dev.says(`You may not connect to unix:${path}: Permission denied`);
      await dev.says("Run dev as a user of the socket's group");
    }
    await Deno.remove(folder, { recursive: true });
  },
});

Deno.test("dev FOLDER names PHP-FPM if its index.php is not executable", async () => {
  const folder = await createFolder({ "index.php": "<?php" });
  await Deno.chmod(`${folder}/index.php`, 0o644);
  {
    await using dev = await Dev.start(folder);
    await dev.says(`dev fastcgi:unix:/run/php/php-fpm.sock --root ${folder}`);
  }
  await Deno.remove(folder, { recursive: true });
});

Deno.test("dev ends running CGI scripts at SIGTERM", async () => {
  const folder = await Deno.makeTempDir();
  await Deno.chmod(folder, 0o755);
  await Deno.writeTextFile(`${folder}/slow.sh`, "#!/bin/sh\necho pid $$. >&2\nsleep 1000\n", {
    mode: 0o755,
  });
  let response: Promise<unknown>;
  {
    await using dev = await Dev.start(folder);
    response = dev.text("/slow.sh").catch(() => {});
    await dev.says("pid ");
  }
  await response;
  await Deno.remove(folder, { recursive: true });
});

Deno.test("dev passes requests for the scripts of a folder to a FastCGI application", async () => {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  await using _server = serveFastCGI(
    (_request, info) => new Response(info.variables.get("SCRIPT_FILENAME") ?? "none"),
    listener,
  );
  const directory = await Deno.makeTempDir();
  for (const name of ["index.php", "style.css", "data.sqlite", ".hidden.css"]) {
    await Deno.writeTextFile(`${directory}/${name}`, name);
  }
  await Deno.symlink(`${ROOT}README.md`, `${directory}/outside.txt`);
  const address = `fastcgi:127.0.0.1:${listener.addr.port}`;
  {
    await using dev = await Dev.start(address, "--root", directory);
    assertEquals(await dev.text("/"), `${directory}/index.php`);
    const merged = await fetch(`${dev.url}//index.php`, { method: "POST" });
    assertEquals(await merged.text(), `${directory}/index.php`);
    const style = await fetch(dev.url + "/style.css");
    assertEquals([style.headers.get("content-type"), await style.text()], [
      "text/css",
      "style.css",
    ]);
    for (
      const path of ["/data.sqlite", "/.hidden.css", "/absent.css", "/outside.txt", "/a%2Fb.css"]
    ) {
      const response = await fetch(dev.url + path);
      await response.body?.cancel();
      assert([400, 404].includes(response.status), `${path}: ${response.status}`);
    }
    await using bare = await Dev.start(address);
    assertEquals(await bare.text("/any/path"), "none");
  }
  await Deno.remove(directory, { recursive: true });
});

Deno.test("dev reports a port in use, and suggests another", async () => {
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const { port } = listener.addr;
  const args = ["dev", `${ROOT}examples/hello.ts`, "--port", String(port)];
  const { code, stderr } = await runCommandLine(args, ["--allow-all"]);
  assertStringIncludes(stderr, `Port ${port} is in use. Try --port ${port + 1}`);
  assertEquals(code, 1);
});

Deno.test("dev does not print Deno's notice of request.signal, which the gateway reads", async () => {
  const folder = await Deno.makeTempDir();
  await Deno.writeTextFile(
    `${folder}/serve.ts`,
    `import { serveDevelopment } from "${ROOT}cli/dev/server.ts";
const stop = new AbortController();
setTimeout(() => {}, 10_000);
await serveDevelopment(async (request) => {
  request.signal.addEventListener("abort", () => {
    console.warn("aborted");
    stop.abort();
  });
  return new Response();
}, { port: 0 }, stop.signal);
Deno.exit();`,
  );
  await using program = new Daemon(["--allow-net", `${folder}/serve.ts`], { stdout: "piped" });
  const output = program.child.stdout.pipeThrough(new TextDecoderStream()).getReader();
  const { value } = await deadline(output.read(), "the address");
  const [url] = /http:\/\/localhost:\d+/.exec(value!)!;
  await (await fetch(url.replace("localhost", "127.0.0.1"))).body?.cancel();
  await program.says("aborted");
  await deadline(program.child.status, "the program's end");
  await program.ended;
  await output.cancel();
  assertEquals(program.log, "aborted\n");
  await Deno.remove(folder, { recursive: true });
});

Deno.test("isSource() distinguishes source files from files that a program writes", () => {
  for (const path of ["/app.ts", "/a/b.jsx", "/page.html", "/deno.json", "/c.mjs"]) {
    assert(isSource(path), path);
  }
  for (const path of ["/data.json", "/app.db", "/.git/a.ts", "/node_modules/x/a.js", "/app.ts~"]) {
    assert(!isSource(path), path);
  }
});

const MISTAKES: [args: string[], message: string][] = [
  [[], "Name what to serve, as in: dev app.ts"],
  [["a", "b"], "One app is served"],
  [["/nonexistent/app.ts"], "/nonexistent/app.ts does not exist."],
  [["fastcgi:9000"], "it must be host:port or unix:/path"],
  [["app.ts", "--root", "/srv"], "--root is for fastcgi:ADDR"],
  [
    ["fastcgi:[::1]:9", "--root", "/nonexistent"],
    "--root must be a folder: /nonexistent does not exist.",
  ],
  [
    ["fastcgi:[::1]:9", "--root", "/etc/passwd"],
    "--root must be a folder: /etc/passwd is not a folder.",
  ],
  [["fastcgi:[::1]:9", "--fallback", "/i.php"], "--fallback is for fastcgi:ADDR with --root."],
  [["fastcgi:[::1]:9", "--root=/", "--fallback=i.php"], "--fallback must begin with /"],
  [["app.ts", "--listen", "[::]:80"], "Use --port 80 --host=[::]."],
  [["app.ts", "--listen=localhost:80"], "Use --port 80."],
  [["app.ts", "--hostname", "10.0.0.1"], "Use --host=10.0.0.1."],
  [["app.ts", "--listen"], "Use --port N, and --host to serve other machines, too."],
  [["app.ts", "--host", "10.0.0.1"], "An address needs =, as in: --host=192.168.1.5"],
  [["app.ts", "--https"], "Use --cert FILE --key FILE."],
  [["app.ts", "--cert", "a.pem"], "HTTPS needs both --cert FILE and --key FILE."],
  [["app.ts", "--env-file", "/nonexistent"], "Cannot read the file of --env-file: No such file"],
  [["app.ts", "--watch"], "Leave it out: dev loads the app again when it changes."],
  [["app.ts", "--port", "70000"], "--port must be at most 65535"],
];
for (const [args, message] of MISTAKES) {
  Deno.test(`dev explains how to correct: ${args.join(" ")}`, async () => {
    const { code, stderr } = await callCommandLine("dev", ...args);
    assertStringIncludes(stderr, message);
    assertEquals(code, 2);
  });
}
