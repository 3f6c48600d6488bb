import { assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { fetchFastCGI } from "../gateway.ts";
import { parseAnswer } from "./testing/answer.ts";
import { Daemon, ROOT } from "./testing/daemon.ts";
import { deadline } from "./testing/deadline.ts";

type Ask = (path: string, init?: RequestInit) => Promise<Response>;

const MOUNT = "/cgi-bin/app.ts";

/** Runs the example by its own first line, as a web server would. */
function askScript(name: string): Ask {
  return async (path, init) => {
    const request = new Request(`http://localhost:8000${MOUNT}${path}`, init);
    const url = new URL(request.url);
    const body = await request.bytes();
    const file = `${ROOT}examples/${name}.ts`;
    const flags = (await Deno.readTextFile(file)).split("\n")[0].match(/--allow-\S+/g)!;
    const child = new Deno.Command(Deno.execPath(), {
      args: ["run", "--no-prompt", ...flags, file],
      env: {
        GATEWAY_INTERFACE: "CGI/1.1",
        REQUEST_METHOD: request.method,
        REQUEST_URI: url.pathname + url.search,
        QUERY_STRING: url.search.slice(1),
        SCRIPT_NAME: MOUNT,
        PATH_INFO: decodeURIComponent(url.pathname.slice(MOUNT.length)),
        HTTP_HOST: url.host,
        HTTP_COOKIE: request.headers.get("cookie") ?? "",
        CONTENT_TYPE: request.headers.get("content-type") ?? "",
        CONTENT_LENGTH: body.length ? String(body.length) : "",
      },
      stdin: "piped",
      stdout: "piped",
      stderr: "piped",
    }).spawn();
    const writer = child.stdin.getWriter();
    writer.write(body).catch(() => {});
    writer.close().catch(() => {});
    const output = await deadline(child.output(), `${name}.ts to answer`);
    assertEquals(output.code, 0, new TextDecoder().decode(output.stderr));
    const { status, headers, body: sent } = parseAnswer(output.stdout);
    return new Response(sent.length ? sent as Uint8Array<ArrayBuffer> : null, { status, headers });
  };
}

async function withTransports(name: string, test: (ask: Ask) => Promise<void>): Promise<void> {
  await test(askScript(name));
  for (const protocol of ["fastcgi", "http"]) {
    await using daemon = new Daemon([
      "--allow-read",
      "--allow-env",
      "--allow-net",
      `${ROOT}cli.ts`,
      "serve",
      `${ROOT}examples/${name}.ts`,
      "--protocol",
      protocol,
      "--base-path",
      MOUNT,
      "--listen",
      "127.0.0.1:0",
    ]);
    await daemon.says(" on ");
    const address = / on (\S+)/.exec(daemon.log)![1];
    await test((path, init) => {
      const url = `http://${address}${MOUNT}${path}`;
      const asked = protocol === "http"
        ? fetch(url, init)
        : fetchFastCGI(new Request(url, init), address as "127.0.0.1:0");
      return deadline(asked, `${name}.ts over ${protocol}`);
    });
  }
}

Deno.test("examples/hello.ts greets over every transport", () =>
  withTransports("hello", async (ask) => {
    const response = await ask("");
    assertEquals(response.status, 200);
    assertEquals(await response.text(), "Hello from Gatehouse\n");
  }));

Deno.test("examples/environment.ts shows the variables, escaped", () =>
  withTransports("environment", async (ask) => {
    const text = await (await ask("/a?b=<script>&c=%22")).text();
    assertStringIncludes(text, "<th>REQUEST_METHOD</th><td>GET</td>");
    assertMatch(text, /<th>REQUEST_URI<\/th><td>[^<]*\?b=(?:%3C|&#60;)script/);
    assertEquals(text.includes("<script>"), false);
  }));

Deno.test("examples/form.ts reads query, path, fields and a file", () =>
  withTransports("form", async (ask) => {
    const form = new FormData();
    form.set("name", "<Ann> & é");
    form.set("file", new File([new Uint8Array(100_000)], "zeros.bin"));
    const text = await (await ask("/some/p%20th?color=blue", { method: "POST", body: form }))
      .text();
    assertStringIncludes(text, "path: /some/p th\nquery color: blue\n");
    assertStringIncludes(text, "field name: &#60;Ann&#62; &#38; é\n");
    assertMatch(text, /file file: zeros.bin, 100000 bytes, SHA-256 [0-9a-f]{64}/);
    const url = await (await ask("", { method: "POST", body: new URLSearchParams({ a: "1" }) }))
      .text();
    assertStringIncludes(url, "field a: 1");
  }));

Deno.test("examples/hono.ts has the same routes everywhere, a cookie and a session", () =>
  withTransports("hono", async (ask) => {
    assertEquals(await (await ask("/greet/you")).text(), "Hello, you\n");
    assertEquals((await ask("/nowhere")).status, 404);
    const colored = await ask("/color/blue", { headers: { cookie: "color=red" } });
    assertEquals(await colored.text(), "Your color was red, and is blue\n");
    assertMatch(colored.headers.getSetCookie().join("\n"), /^color=blue; /m);
    let cookie = "";
    for (const visit of [1, 2, 3]) {
      const response = await ask("/visits", cookie ? { headers: { cookie } } : {});
      assertEquals(await response.text(), `Visit ${visit}\n`);
      cookie = response.headers.getSetCookie().map((line) => line.split(";")[0]).join("; ");
    }
  }));

Deno.test("examples can be run by their first line", async () => {
  for (const { name } of Deno.readDirSync(`${ROOT}examples`)) {
    const { mode } = await Deno.stat(`${ROOT}examples/${name}`);
    assertEquals(mode! & 0o111, 0o111, name);
    const [first] = (await Deno.readTextFile(`${ROOT}examples/${name}`)).split("\n");
    assertMatch(
      first,
      /^#!\/usr\/bin\/env -S deno run --allow-(?:env --allow-net|net --allow-read --allow-write=\/run\/php)$/,
      name,
    );
  }
});
