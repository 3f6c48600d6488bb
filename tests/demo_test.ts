import { assertEquals, assertFalse, assertMatch, assertStringIncludes } from "@std/assert";
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
import { testWith } from "./testing/needs.ts";
import { assertFits } from "./testing/page_width.ts";

const CANARY = "from-the-shell";

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
    env: { NO_COLOR: "1", GATEHOUSE_CANARY: CANARY },
  }).spawn();
}

/** A demo that serves. */
class Serving {
  readonly #child = demo(0);
  readonly #stdout = this.#child.stdout.pipeThrough(new TextDecoderStream()).getReader();

  /** Starts it, and waits until it serves. @returns Its origin. */
  async start(): Promise<string> {
    let output = "";
    while (!output.includes("in a browser")) {
      const { value = "", done } = await deadline(
        this.#stdout.read(),
        `the demo: ${output}`,
        60_000,
      );
      output += value;
      if (done) throw new Error(output + await new Response(this.#child.stderr).text());
    }
    return `http://localhost:${/Open http:\/\/localhost:(\d+)\//.exec(output)![1]}`;
  }

  /** Stops it. @returns Its exit code. */
  async stop(): Promise<number> {
    this.#child.kill("SIGTERM");
    await this.#stdout.cancel();
    await this.#child.stderr.cancel();
    return (await deadline(this.#child.status, "the demo to end")).code;
  }
}

Deno.test("the demonstration runs each example over each transport, its links work, and it ends at SIGTERM", async () => {
  const serving = new Serving();
  const origin = await serving.start();
  const get = (path: string) => deadline(fetch(origin + path, { redirect: "manual" }), path);

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
    const { status, body } = await get(path);
    await body?.cancel();
    assertEquals(status, 404, path);
  }
  assertEquals(await serving.stop(), 0);
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

for (const width of [360, 1200]) {
  testWith({ chromium: "chromium" }, `the page fits into ${width} pixels`, async () => {
    const [first, ...others] = EXAMPLES.map((example, i) =>
      exampleCard(example, {
        CGI: 12_345.6,
        FastCGI: 0.1,
        SCGI: i === 0 ? { failure: "500 " + "x".repeat(200) } : 1,
        HTTP: 99,
      })
    );
    await assertFits(pageHead() + first + others.join("") + pageEnd(), width);
  });
}

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
