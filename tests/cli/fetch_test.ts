import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import type { App } from "../../bridge/app.ts";
import { serveFastCGI } from "../../fastcgi.ts";
import { serveHTTP } from "../../http.ts";
import { serveSCGI } from "../../scgi.ts";
import { fpmConfig, PHP_FPM } from "../servers/php.ts";
import { bytes } from "../testing/bytes.ts";
import { callCommandLine, runCommandLine, served, startServe } from "../testing/command_line.ts";
import { Program, ROOT } from "../testing/daemon.ts";
import { record, Type } from "../testing/fastcgi_records.ts";
import { testWith } from "../testing/needs.ts";

const echo: App = async (request, info) => {
  info.log("the app's log");
  const { method, headers } = request;
  const status = new URL(request.url).pathname === "/missing" ? 404 : 200;
  const seen = {
    method,
    url: request.url,
    accept: headers.get("accept"),
    type: headers.get("content-type"),
    user: info.variables.get("REMOTE_USER"),
    body: await request.text(),
  };
  return Response.json(seen, { status, headers: { "x-seen": "yes" } });
};

for (const [protocol, serve] of [["fastcgi", serveFastCGI], ["scgi", serveSCGI]] as const) {
  /** Serves echo and runs `fetch` on it. */
  const fetchEcho = async (...args: string[]) => {
    const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
    await using _server = serve(echo, listener, { log: () => {} });
    const address = `127.0.0.1:${listener.addr.port}`;
    return await runCommandLine([
      "fetch",
      address,
      ...args,
      ...(protocol === "scgi" ? ["-p", "scgi"] : []),
    ], ["--allow-net", "--allow-read"]);
  };

  Deno.test(`fetch prints the body of a response over ${protocol}`, async () => {
    const { code, stdout, stderr } = await fetchEcho("/a?b=c");
    assertEquals(JSON.parse(stdout), {
      method: "GET",
      url: "http://localhost/a?b=c",
      accept: null,
      type: null,
      body: "",
    });
    assertEquals(stderr, protocol === "fastcgi" ? "the app's log\n" : "");
    assertEquals(code, 0);
  });

  Deno.test(`fetch sends method, headers, variables and a body over ${protocol}`, async () => {
    const { stdout } = await fetchEcho(
      "/",
      ..."-X PUT -H".split(" "),
      "Accept: text/css",
      "-H",
      "Host: example.org",
      "-d",
      "a=1&b=2",
      "--variable",
      "REMOTE_USER=ann",
    );
    assertEquals(JSON.parse(stdout), {
      method: "PUT",
      url: "http://example.org/",
      accept: "text/css",
      type: "application/x-www-form-urlencoded",
      user: "ann",
      body: "a=1&b=2",
    });
  });

  Deno.test(`fetch prints the head and fails for a status from 400 over ${protocol}`, async () => {
    const { code, stdout, stderr } = await fetchEcho("/missing", "-i");
    assertMatch(stdout, /^404 Not Found\n[^]*\nx-seen: yes\n[^]*\n\{/);
    assertMatch(stderr, /127\.0\.0\.1:\d+ responded with 404 Not Found\n$/);
    assertEquals(code, 1);
  });
}

Deno.test("fetch --values prints the limits of a server as they are set", async () => {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  await using _server = serveFastCGI(echo, listener, { maxConnections: 7, maxRequests: Infinity });
  const address = `127.0.0.1:${listener.addr.port}`;
  const { code, stdout, stderr } = await runCommandLine(["fetch", "--values", address], [
    "--allow-net",
  ]);
  assertEquals(
    [code, stdout, stderr],
    [0, "FCGI_MAX_CONNS=7\nFCGI_MAX_REQS=2147483647\nFCGI_MPXS_CONNS=1\n", ""],
  );
});

Deno.test("fetch --values prints the limits that serve has by its options", async () => {
  const limits = ["--max-connections=70", "--max-concurrent-requests=50"];
  await using daemon = startServe(`${ROOT}examples/hello.ts`, limits);
  const { stdout } = await runCommandLine(["fetch", await served(daemon), "--values"], [
    "--allow-net",
  ]);
  assertEquals(stdout, "FCGI_MAX_CONNS=70\nFCGI_MAX_REQS=50\nFCGI_MPXS_CONNS=1\n");
});

/** What an application responds to FCGI_GET_VALUES, and what is printed. */
const VALUES: Record<string, [response: Uint8Array, stdout: string, stderr: string]> = {
  "none": [record(Type.getValuesResult, 0, bytes("")), "", "ADDR knows none of the values\n"],
  "others, which control a terminal": [
    record(Type.getValuesResult, 0, bytes("\x01\x02a\x1b\x07")),
    "a=\\x1b\\x07\n",
    "",
  ],
  "no FastCGI": [
    bytes("HTTP/1.1 400 Bad Request\r\n\r\n"),
    "",
    "Cannot fetch from ADDR as it must be a FastCGI application: its response is not FastCGI. Try --protocol scgi, or curl if it is an HTTP server\n",
  ],
  "nothing": [
    bytes(""),
    "",
    "Cannot fetch from ADDR: it closed the connection without FCGI_GET_VALUES_RESULT\n",
  ],
  "a pair that is cut off": [
    record(Type.getValuesResult, 0, bytes("\x05\x05a")),
    "",
    "Cannot fetch from ADDR: Cannot decode name-value pairs",
  ],
};

for (const [name, [response, expected, message]] of Object.entries(VALUES)) {
  Deno.test(`fetch --values reports what an application knows: ${name}`, async () => {
    const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
    const serving = (async () => {
      const conn = await listener.accept();
      await conn.read(new Uint8Array(1000));
      // In two parts, as a network may cut it.
      for (const part of [response.subarray(0, 5), response.subarray(5)]) await conn.write(part);
      await conn.closeWrite();
      while (await conn.read(new Uint8Array(1000)).catch(() => null) !== null);
      conn.close();
    })();
    const address = `127.0.0.1:${listener.addr.port}`;
    const { code, stdout, stderr } = await runCommandLine(["fetch", "--values", address], [
      "--allow-net",
    ]);
    await serving;
    listener.close();
    assertEquals(stdout, expected);
    assertEquals(stderr.startsWith(message.replace("ADDR", address)), true, stderr);
    assertEquals(code, message.startsWith("Cannot") ? 1 : 0);
  });
}

Deno.test("fetch says once why a response is truncated", async () => {
  const chunks = [new TextEncoder().encode("part\n")];
  const app = () =>
    new Response(
      new ReadableStream({
        async pull(controller) {
          await new Promise((resolve) => setTimeout(resolve, 0));
          const chunk = chunks.shift();
          if (chunk === undefined) controller.error(new Error("broken"));
          else controller.enqueue(chunk);
        },
      }),
    );
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  await using _server = serveFastCGI(app, listener, { log: () => {}, logTo: "log" });
  const address = `127.0.0.1:${listener.addr.port}`;
  const { code, stdout, stderr } = await runCommandLine(["fetch", address], ["--allow-net"]);
  assertEquals([code, stdout], [1, "part\n"]);
  assertEquals(stderr.split("\n"), [
    "Cannot read response: the application did not send all of it: it closed the connection",
    `Cannot fetch from ${address} as its response must be complete: it is truncated`,
    "",
  ]);
});

Deno.test("fetch sends the contents of a file", async () => {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  await using _server = serveFastCGI(echo, listener);
  const file = await Deno.makeTempFile();
  await Deno.writeTextFile(file, "from a file");
  const args = ["fetch", `127.0.0.1:${listener.addr.port}`, "/", "-d", `@${file}`];
  const { stdout } = await runCommandLine(args, ["--allow-net", "--allow-read"]);
  assertEquals(JSON.parse(stdout).body, "from a file");
  await Deno.remove(file);
});

Deno.test("fetch reports that nothing listens, and how to start it", async () => {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const tcp = `127.0.0.1:${listener.addr.port}`;
  listener.close();
  for (const address of [tcp, "unix:/nonexistent/app.sock"]) {
    const { code, stderr } = await runCommandLine(["fetch", address], [
      "--allow-net",
      "--allow-read",
      "--allow-write",
    ]);
    assertStringIncludes(
      stderr,
      `Cannot fetch from ${address}: nothing listens there. Start the app, as in: serve app.ts --protocol fastcgi --listen ${address}`,
    );
    assertEquals(code, 1);
  }
});

Deno.test("fetch reports that an application is an HTTP server", async () => {
  await using server = serveHTTP(() => new Response(), {
    hostname: "127.0.0.1",
    port: 0,
    onListen: () => {},
  });
  const { code, stderr } = await runCommandLine(["fetch", `127.0.0.1:${server.addr.port}`], [
    "--allow-net",
  ]);
  assertStringIncludes(
    stderr,
    "as it must be a FastCGI application: its response is not FastCGI. Try --protocol scgi, or curl",
  );
  assertEquals(code, 1);
});

Deno.test("fetch -p scgi reports that an application speaks FastCGI", async () => {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  await using _server = serveFastCGI(echo, listener, { log: () => {} });
  const args = ["fetch", "-p", "scgi", `127.0.0.1:${listener.addr.port}`];
  const { code, stderr } = await runCommandLine(args, ["--allow-net"]);
  assertStringIncludes(
    stderr,
    "as it must be an SCGI application: it closed the connection without a response. Try --protocol fastcgi, or curl",
  );
  assertEquals(code, 1);
});

for (const bytes of ["", "Status: 200 OK\r\nContent-Length: 9\r\n\r\nhalf"]) {
  Deno.test(`fetch -p scgi reports a connection that is reset after ${bytes.length} bytes`, async () => {
    using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
    const serving = (async () => {
      using conn = await listener.accept();
      await conn.write(new TextEncoder().encode(bytes));
    })();
    const args = ["fetch", "-p", "scgi", `127.0.0.1:${listener.addr.port}`];
    const { code, stderr } = await runCommandLine(args, ["--allow-net"]);
    await serving;
    assertEquals(stderr.includes("Try --protocol fastcgi"), bytes === "", stderr);
    assertEquals(code, 1);
  });
}

Deno.test("fetch reports the missing permission", async () => {
  const { code, stderr } = await runCommandLine(["fetch", "127.0.0.1:9000"]);
  assertStringIncludes(stderr, `type --allow-net=127.0.0.1:9000 after "deno run"`);
  assertEquals(code, 1);
});

Deno.test("fetch sends nothing if the root has no script, and says so", async () => {
  const root = await Deno.makeTempDir();
  await Deno.mkdir(`${root}/folder`);
  await Deno.writeTextFile(`${root}/folder/index.php`, "");
  let requests = 0;
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const app = () => {
    requests++;
    return new Response("from the application\n");
  };
  await using _server = serveFastCGI(app, listener);
  const address = `127.0.0.1:${listener.addr.port}`;
  const get = (path: string, flags = ["--allow-net", "--allow-read"]) =>
    runCommandLine(["fetch", address, path, "--root", root], flags);
  const cases: [path: string, message: string][] = [
    ["/absent.php", "for /absent.php: it has none\n"],
    [
      "/status?full",
      `for /status: it has none. If it is a path of PHP-FPM's own (ping.path, pm.status_path): fetch ${address} / ` +
      "--variable SCRIPT_NAME=/status --variable SCRIPT_FILENAME=/status\n",
    ],
    ["/folder", "for /folder: it has a folder. Fetch /folder/\n"],
  ];
  for (const [path, message] of cases) {
    const { code, stdout, stderr } = await get(path);
    assertEquals([code, stdout], [1, ""]);
    assertEquals(
      stderr,
      `Cannot send a request to ${address} as ${root} must have a script ${message}`,
    );
  }
  assertEquals(requests, 0);
  const denied = await get("/absent.php", ["--allow-net"]);
  assertStringIncludes(denied.stderr, `type --allow-net=${address} --allow-read=${root} after`);
  assertEquals((await get("/folder/")).stdout, "from the application\n");
  assertEquals(requests, 1);
  await Deno.remove(root, { recursive: true });
});

testWith(
  { [PHP_FPM]: "php-fpm" },
  "fetch says how PHP-FPM's own paths are fetched, and prints its limits",
  async () => {
    const folder = await Deno.makeTempDir();
    await Deno.chmod(folder, 0o755);
    const socket = `${folder}/fpm.sock`;
    const pool = { listen: socket, children: 1, lines: "ping.path = /ping" };
    await Deno.writeTextFile(`${folder}/fpm.conf`, fpmConfig("/dev/stderr", pool));
    await using fpm = new Program(PHP_FPM, { args: ["-y", `${folder}/fpm.conf`] });
    await fpm.says("ready to handle connections");
    const run = (...args: string[]) =>
      runCommandLine(["fetch", `unix:${socket}`, ...args], ["--allow-all"]);
    const { code, stderr } = await run("/ping");
    assertEquals(code, 1);
    const hint = /^PHP-FPM needs .*: fetch (.*)$/m.exec(stderr);
    assert(hint !== null, stderr);
    const [address, ...args] = hint[1].split(" ");
    assertEquals(address, `unix:${socket}`);
    assertEquals(await run(...args), { code: 0, stdout: "pong", stderr: "" });
    const { stdout } = await run("--values");
    assertMatch(stdout, /^FCGI_MPXS_CONNS=0$/m);
    await Deno.remove(folder, { recursive: true });
  },
);

Deno.test("fetch prints no control characters of a header", async () => {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  // In UTF-8: "é", and a character that controls a terminal.
  const headers = { "x-seen": "\xc3\xa9 \xc2\x9b1m" };
  await using _server = serveFastCGI(() => new Response(null, { headers }), listener);
  const args = ["fetch", `127.0.0.1:${listener.addr.port}`, "-i"];
  const { stdout } = await runCommandLine(args, ["--allow-net"]);
  assertStringIncludes(stdout, "\nx-seen: é \\x9b1m\n");
});

const MISTAKES: [args: string[], message: string][] = [
  [[], "Name the application's address, as in: fetch 127.0.0.1:9000 /"],
  [["127.0.0.1:9000", "users"], "The path must begin with /"],
  [["127.0.0.1:9000", "/", "/"], "One path is fetched"],
  [["127.0.0.1:9000", "/", "--values"], '--values takes no path: "/" is one too many.'],
  [["127.0.0.1:9000", "--values", "-p", "scgi"], "--values is for fastcgi"],
  ...["-i", "-XPUT", "-Ha: b", "-da", "--root=/", "--variable=A=b"].map((
    option,
  ): [string[], string] => [["127.0.0.1:9000", "--values", option], "leave out --"]),
  [["9000"], `current value is "9000". Did you mean 127.0.0.1:9000?`],
  [["http://127.0.0.1:9000/a"], "Did you mean 127.0.0.1:9000 /a?"],
  [["127.0.0.1:9000", "--method", "PUT"], "There is no option --method. Use --request PUT."],
  [["127.0.0.1:9000", "-H", "Accept"], '--header must be a name, ":" and a value'],
  [["127.0.0.1:9000", "-H", "a b: c"], "--header must be a name and a value"],
  [["127.0.0.1:9000", "-X", "TRACE"], "Cannot create the request: Method is forbidden"],
  [["127.0.0.1:9000", "-p", "http"], "--protocol must be fastcgi, scgi"],
];
for (const [args, message] of MISTAKES) {
  Deno.test(`fetch explains how to correct: ${args.slice(1).join(" ") || args.join(" ")}`, async () => {
    const { code, stderr } = await callCommandLine("fetch", ...args);
    assertStringIncludes(stderr, message);
    assertEquals(code, 2);
  });
}
