import { assert, assertEquals } from "@std/assert";
import { deadline } from "./deadline.ts";

/** Asserts that a page needs no horizontal scrolling in a window of a width in pixels. Needs chromium. */
export async function assertFits(page: string, width: number): Promise<void> {
  // The measured page itself runs no script.
  const frame = `<!doctype html><iframe src="/page" style="border:0;width:${width}px;height:900px"
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
      ..."--headless=new --no-sandbox --disable-gpu --disable-dev-shm-usage --no-first-run".split(
        " ",
      ),
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
}
