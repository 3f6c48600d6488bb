/** Host fields that would change the path or the server (rules F13, F14). */
import { assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import type { Handler } from "../../bridge/app.ts";
import { cgiGateway, fastCGIGateway, scgiGateway } from "../../gateway.ts";
import { serveFastCGI } from "../../fastcgi.ts";
import { serveHTTP } from "../../http.ts";
import { serveSCGI } from "../../scgi.ts";
import { deadline } from "../testing/deadline.ts";

/** Sends a request with an exact Host field, and returns the whole response. */
async function send(port: number, host: string | null, target = "/public"): Promise<string> {
  using conn = await Deno.connect({ hostname: "127.0.0.1", port });
  const field = host === null ? "" : `Host: ${host}\r\n`;
  const version = host === null ? "1.0" : "1.1";
  const text = `GET ${target} HTTP/${version}\r\n${field}Connection: close\r\n\r\n`;
  await conn.write(new TextEncoder().encode(text));
  return await deadline(new Response(conn.readable).text(), "the response");
}

const BAD = [
  "x/i.php?",
  "x/i.php",
  "x?",
  "x#",
  "user@evil",
  "user:secret@evil",
  "@",
  "x\\y",
  "a b",
  "[::1",
  "::1",
  "x:99999999",
  "x:y",
  "x\ty",
  "x<y",
];
const HOSTILE = [
  "evil/../../i.php?x",
  "x:80/i.php?",
  "x/%2e%2e/i.php?",
  "http://evil/i.php?",
  "//evil/i.php?",
  "x;y@evil",
  "x:80@evil:80",
  "x%2fi.php?",
  "x%00",
  "x:-1",
  "x:65536",
  "x: 80",
  "x,y",
  "x y/i.php",
  "[::1]]",
  "[::1]x",
  "[x]",
  "[::1]:y",
  "x\x01y",
  "x\x7fy",
  "x\x00y",
  "x|y",
  "x^y",
  'x"y',
  "x`y",
  "x{y}",
  "/i.php?",
  "?/i.php",
  "#/i.php",
  "..",
  "../i.php?",
];
const GOOD = ["x", "x:80", "example.org:8080", "127.0.0.1", "[::1]", "[::1]:99", "a_b"];

Deno.test("gateways and serveHTTP() reject an invalid Host, and keep the path", async () => {
  const seen: string[] = [];
  await using application = serveFastCGI((_request, info) => {
    seen.push(info.variables.get("REQUEST_URI")!);
    return new Response("served");
  }, Deno.listen({ hostname: "127.0.0.1", port: 0 }));
  const logged: string[] = [];
  using gateway = fastCGIGateway(`127.0.0.1:${(application.addr as Deno.NetAddr).port}`, {
    log: (line) => logged.push(line),
  });
  const options = { hostname: "127.0.0.1", port: 0, onListen() {} };
  await using front = Deno.serve(options, gateway);
  await using http = serveHTTP(
    (request) => {
      seen.push(new URL(request.url).pathname);
      return new Response("served");
    },
    options,
  );
  for (const { addr: { port } } of [front, http]) {
    for (const host of BAD) {
      const response = await send(port, host);
      assertStringIncludes(response, " 400 ", host);
      assertEquals(seen, [], host);
    }
    for (const host of GOOD) {
      const response = await send(port, host);
      assertStringIncludes(response, " 200 ", host);
      assertEquals(seen.splice(0), ["/public"], host);
    }
  }
  assertStringIncludes(logged[0], 'the host must be valid: current value is "x/i.php?"');
});

Deno.test("gateways accept a request without a Host", async () => {
  await using application = serveFastCGI(
    (_request, info) => new Response(info.variables.get("REQUEST_URI")),
    Deno.listen({ hostname: "127.0.0.1", port: 0 }),
  );
  using gateway = fastCGIGateway(`127.0.0.1:${(application.addr as Deno.NetAddr).port}`);
  await using front = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen() {} }, gateway);
  assertStringIncludes(await send(front.addr.port, null, "/a?b"), "/a?b");
});

Deno.test("no Host chooses another path, through each gateway", async () => {
  const seen: string[] = [];
  const app: Handler = (_request, info) => {
    const { variables } = info;
    seen.push(variables.get("REQUEST_URI")!);
    return new Response(`${variables.get("REQUEST_URI")} ${variables.get("PATH_INFO")}`);
  };
  const root = await Deno.makeTempDir();
  const script = `${root}/script`;
  await Deno.writeTextFile(
    script,
    '#!/bin/sh\necho "Content-Type: text/plain"\necho\necho "$REQUEST_URI $PATH_INFO"\n',
  );
  await Deno.chmod(script, 0o755);
  const local = () => Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const log = () => {};
  try {
    await using fastcgi = serveFastCGI(app, local(), { log });
    await using scgi = serveSCGI(app, local(), { log });
    const address = (addr: Deno.Addr) => `127.0.0.1:${(addr as Deno.NetAddr).port}` as const;
    using toFastCGI = fastCGIGateway(address(fastcgi.addr), { log });
    using toSCGI = scgiGateway(address(scgi.addr), { log });
    using toCGI = cgiGateway({ script, log });
    for (const gateway of [toFastCGI, toSCGI, toCGI]) {
      await using front = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen() {} }, gateway);
      for (const host of [...BAD, ...HOSTILE]) {
        const response = await send(front.addr.port, host);
        // The HTTP server itself may close the connection.
        const status = /^HTTP\/1.1 (\d+)/.exec(response)?.[1] ?? "closed";
        if (status === "200") assertStringIncludes(response, "/public /public", host);
        else assertMatch(status, /^(?:400|closed)$/, host);
        for (const uri of seen.splice(0)) assertEquals(uri, "/public", host);
      }
      for (const host of GOOD) {
        assertStringIncludes(await send(front.addr.port, host), "/public /public", host);
      }
      seen.splice(0);
    }
  } finally {
    await Deno.remove(root, { recursive: true });
  }
});

/** Sends a request over a Unix socket, and returns the body of the response. */
async function sendOverUnix(path: string, request: string): Promise<string> {
  using conn = await Deno.connect({ transport: "unix", path });
  await conn.write(new TextEncoder().encode(request));
  const response = await deadline(new Response(conn.readable).text(), "the response");
  return response.slice(response.indexOf("\r\n\r\n") + 4);
}

Deno.test("a request over a Unix socket has the client's host and path in its variables, without Host localhost (rule A8)", async () => {
  const folder = await Deno.makeTempDir();
  const script = `${folder}/script`;
  const text = `#!/bin/sh
[ "$PATH_INFO" = /redirect ] && printf 'Location: /x?q\\n\\n' && exit
printf 'Content-Type: text/plain\\n\\n'
printf "$REQUEST_SCHEME $HTTP_HOST $SERVER_NAME $SERVER_PORT $REQUEST_URI"`;
  await Deno.writeTextFile(script, text, { mode: 0o755 });
  const seen: Handler = ({ url }, { variables }) => {
    const names = ["REQUEST_SCHEME", "HTTP_HOST", "SERVER_NAME", "SERVER_PORT", "REQUEST_URI"];
    const values = names.map((name) => variables.get(name)).join(" ");
    assertEquals(url, `http://${variables.get("HTTP_HOST")!.replace(/:80$/, "")}/x?q`);
    return new Response(values);
  };
  const local = () => Deno.listen({ hostname: "127.0.0.1", port: 0 });
  await using fastcgi = serveFastCGI(seen, local());
  await using scgi = serveSCGI(seen, local());
  const address = ({ addr }: { addr: Deno.Addr }) => `127.0.0.1:${(addr as Deno.NetAddr).port}`;
  using toFastCGI = fastCGIGateway(address(fastcgi));
  using toSCGI = scgiGateway(address(scgi));
  using toScript = cgiGateway(script);
  const path = `${folder}/socket`;
  const onListen = () => {};
  const starts = {
    HTTP: () => serveHTTP(seen, { path, onListen }),
    FastCGI: () => Deno.serve({ path, onListen }, toFastCGI),
    SCGI: () => Deno.serve({ path, onListen }, toSCGI),
    CGI: () => Deno.serve({ path, onListen }, toScript),
  };
  const requests = {
    "GET /x?q HTTP/1.0\r\n\r\n": "http localhost localhost 80 /x?q",
    "GET /x?q HTTP/1.1\r\nHost: a.example:81\r\nConnection: close\r\n\r\n":
      "http a.example:81 a.example 81 /x?q",
    "GET /x?q HTTP/1.1\r\nHost: a.example:80\r\nConnection: close\r\n\r\n":
      "http a.example:80 a.example 80 /x?q",
    "GET http://b.example/x?q HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n":
      "http b.example b.example 80 /x?q",
  };
  try {
    for (const [name, start] of Object.entries(starts)) {
      await using _ = start();
      for (const [request, expected] of Object.entries(requests)) {
        const body = await sendOverUnix(path, request);
        assertStringIncludes(body, expected, `${name}: ${request}`);
      }
      if (name !== "CGI") continue;
      const redirect = "GET /redirect HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n";
      assertStringIncludes(await sendOverUnix(path, redirect), "http a.example a.example 80 /x?q");
    }
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});
