import { assert, assertEquals, assertFalse, assertMatch, assertStringIncludes } from "@std/assert";
import { Demo } from "../scripts/demo_app.ts";
import {
  exampleCard,
  EXAMPLES,
  pageEnd,
  pageHead,
  pathOf,
  TRANSPORTS,
} from "../scripts/demo_page.ts";
import { importMapFlags } from "./testing/command_line.ts";
import { ROOT } from "./testing/daemon.ts";
import { deadline } from "./testing/deadline.ts";

const ORIGIN = "http://localhost:8000";
const CANARY = "from-the-shell";

Deno.test("the demonstration runs each example over each transport, and its links work", async () => {
  Deno.env.set("GATEHOUSE_CANARY", CANARY);
  await using demo = await deadline(Demo.start(), "the demonstration to start", 60_000);
  Deno.env.delete("GATEHOUSE_CANARY");
  const get = (path: string) => deadline(demo.fetch(new Request(ORIGIN + path)), path);

  const response = await get("/");
  assertEquals(response.headers.get("content-type"), "text/html; charset=utf-8");
  const page = await deadline(response.text(), "the page", 60_000);
  assertFalse(page.includes('class="failed"'), page);
  assertEquals(page.match(/<span class="time">\d+(\.\d)? ms<\/span>/g)?.length, 24);
  const links = [...page.matchAll(/<a href="([^"]*)"><span class="name">(.*?)<\/span>(.*?)<\/a>/g)]
    .map(([, href, action, transport]) => [href, action + transport]);
  assertEquals(
    links,
    EXAMPLES.flatMap((example) =>
      TRANSPORTS.map((transport) => [
        pathOf(transport, example) + example.path,
        `${example.action} over ${transport}`,
      ])
    ),
  );
  for (const [href] of links) {
    const { status, body } = await get(href);
    await body?.cancel();
    assertEquals(status, 200, href);
  }

  for (const transport of TRANSPORTS) {
    const shown = await (await get(`/${transport.toLowerCase()}/environment.ts`)).text();
    assertStringIncludes(shown, "<th>REQUEST_METHOD</th><td>GET</td>");
    assertFalse(/GATEHOUSE_CANARY|<th>(HOME|USER|SHELL|PWD)</.test(shown), transport);
    assertFalse(shown.includes(CANARY));
  }
  for (const path of ["/none", "/cgi/", "/cgi/none.ts", "/http/../cli.ts"]) {
    assertEquals((await get(path)).status, 404, path);
  }
});

Deno.test("the page shows a failure in place of a time, escaped", () => {
  const card = exampleCard(EXAMPLES[0], {
    CGI: { failure: "<500>" },
    FastCGI: 1,
    SCGI: 4,
    HTTP: 2,
  });
  assertStringIncludes(card, '<span class="failed">&#60;500&#62;</span>');
  assertMatch(card, /width: 25\.0%.*\n.*width: 100\.0%.*\n.*width: 50\.0%/);
});

const hasChromium = new Deno.Command("sh", { args: ["-c", "command -v chromium"] }).outputSync()
  .success;
const required = Deno.env.get("GATEHOUSE_REQUIRE_SERVERS") === "1";

for (const width of [360, 1200]) {
  const missing = hasChromium ? "" : " (chromium missing: apt-get install chromium)";
  Deno.test({
    name: `the page fits into ${width} pixels${missing}`,
    ignore: !hasChromium && !required,
    async fn() {
      const [first, ...others] = EXAMPLES.map((example, i) =>
        exampleCard(example, {
          CGI: 12_345.6,
          FastCGI: 0.1,
          SCGI: i === 0 ? { failure: "500 " + "x".repeat(200) } : 1,
          HTTP: 99,
        })
      );
      const page = pageHead() + first + others.join("") + pageEnd();
      // The measured page itself runs no script.
      const frame =
        `<!doctype html><iframe src="/page" style="border:0;width:${width}px;height:900px"
onload="const { scrollWidth, clientWidth } = this.contentDocument.documentElement;
document.title = scrollWidth + ' in ' + clientWidth"></iframe>`;
      await using server = Deno.serve(
        { hostname: "127.0.0.1", port: 0, onListen() {} },
        (request) =>
          new Response(request.url.endsWith("/page") ? page : frame, {
            headers: { "content-type": "text/html" },
          }),
      );
      const profile = await Deno.makeTempDir();
      const child = new Deno.Command("chromium", {
        args: [
          ..."--headless=new --no-sandbox --disable-gpu --disable-dev-shm-usage --no-first-run"
            .split(" "),
          `--user-data-dir=${profile}`,
          "--window-size=1400,1000",
          "--dump-dom",
          `http://127.0.0.1:${server.addr.port}/`,
        ],
        env: { HOME: profile },
        stdout: "piped",
        stderr: "null",
      }).spawn();
      const { stdout } = await deadline(child.output(), "chromium", 60_000);
      await Deno.remove(profile, { recursive: true });
      const [, scroll, client] = /<title>(\d+) in (\d+)</.exec(new TextDecoder().decode(stdout))!;
      assert(Number(client) > width - 30, client);
      assertEquals(scroll, client);
    },
  });
}

/** Runs the demo. */
function demo(port: number): Deno.ChildProcess {
  return new Deno.Command(Deno.execPath(), {
    args: [
      "run",
      "--no-prompt",
      "--allow-all",
      ...importMapFlags(),
      `${ROOT}scripts/demo.ts`,
      "--port",
      String(port),
    ],
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
    env: { NO_COLOR: "1" },
  }).spawn();
}

Deno.test("the demo listens where --port says, and ends at SIGTERM", async () => {
  const child = demo(0);
  const reader = child.stdout.pipeThrough(new TextDecoderStream()).getReader();
  let output = "";
  while (!output.includes("in a browser")) {
    const { value = "", done } = await deadline(reader.read(), `the demo: ${output}`, 60_000);
    output += value;
    if (done) throw new Error(output + await new Response(child.stderr).text());
  }
  const [, port] = /Open http:\/\/localhost:(\d+)\//.exec(output)!;
  assertStringIncludes(await (await fetch(`http://localhost:${port}/`)).text(), "<title>");
  child.kill("SIGTERM");
  await reader.cancel();
  await child.stderr.cancel();
  assertEquals((await deadline(child.status, "the demo to end")).code, 0);
});

Deno.test("the demo says what to do if its port is in use", async () => {
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const { port } = listener.addr;
  const { code, stderr } = await deadline(demo(port).output(), "the demo to end", 60_000);
  assertStringIncludes(
    new TextDecoder().decode(stderr),
    `Port ${port} is in use. Try --port ${port + 1}`,
  );
  assertEquals(code, 1);
});
