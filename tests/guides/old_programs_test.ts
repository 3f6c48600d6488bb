/** docs/old-programs.md, run word for word. */
import { assertEquals } from "@std/assert";
import { fpmConfig, PHP_FPM } from "../servers/php.ts";
import { eventually, freePort, Program as Server } from "../servers/harness.ts";
import { Program } from "../testing/daemon.ts";
import { testWith } from "../testing/needs.ts";
import { type Block, blocksOf, Machine } from "./guide.ts";

const NEEDS = {
  [PHP_FPM]: "php-fpm",
  git: "git",
  curl: "curl",
  perl: "libcgi-pm-perl",
  "/usr/lib/git-core/git-http-backend": "git",
  "/usr/lib/cgit/cgit.cgi": "cgit",
};
/** The folders of the page for the files that its text names. */
const PLACES: Record<string, string> = {
  cgitrc: "srv/git/cgitrc",
  "guest.pl": "srv/cgi-bin/guest.pl",
  "index.php": "srv/www/index.php",
};

testWith(NEEDS, "docs/old-programs.md works as written", async () => {
  await using machine = new Machine();
  await using _php = await startPHP(machine);
  await using shell = machine.shell();
  await using servers = new AsyncDisposableStack();
  let port = 0;
  const here = (text: string) =>
    text.replaceAll("sudo ", "").replaceAll("127.0.0.1:8000", `127.0.0.1:${port}`).replaceAll(
      "8000",
      String(port),
    )
      .replaceAll("/srv/", `${machine.home}/srv/`)
      .replaceAll("/run/php/php-fpm.sock", `${machine.home}/php.sock`);
  const blocks = blocksOf("old-programs.md");
  for (const [i, block] of blocks.entries()) {
    const { file, text } = block;
    // The page's programs are servers: each gets its own port.
    if (file?.endsWith(".ts")) port = freePort();
    const name = file ?? (block.info === "cgitrc" ? "cgitrc" : undefined);
    if (name !== undefined) machine.write(PLACES[name] ?? name, here(text));
    else if (block.info === "server") {
      const args = ["-c", `exec ${here(text).trim()}`];
      const options = { args, cwd: machine.home, clearEnv: true, env: machine.env() };
      const program = servers.use(new Program("sh", { ...options }));
      await eventually("the server listens", async () => {
        if (/^error/m.test(program.log)) throw new Error(program.log);
        return await fetch(`http://127.0.0.1:${port}/`).then((response) => response.body?.cancel())
          .then(() => true, () => false);
      });
    } else if (block.language === "sh") {
      const { output } = await shell.run(here(text));
      assertEquals(output, expected(blocks[i + 1]), text);
    }
  }
  const outside = await fetch(`http://127.0.0.1:${port}/%2e%2e%2f..%2fetc/passwd.css`);
  assertEquals([outside.status, await outside.text()], [400, "400 Bad Request\n"]);
});

function expected(next: Block | undefined): string {
  return next?.language === "text" && next.info === "" ? next.text : "";
}

async function startPHP(machine: Machine): Promise<AsyncDisposable> {
  const pool = { listen: `${machine.home}/php.sock`, children: 1 };
  const config = machine.write("fpm.conf", fpmConfig(`${machine.home}/fpm.log`, pool));
  const server = new Server("PHP-FPM", PHP_FPM, {
    args: ["--nodaemonize", "--fpm-config", config],
  });
  await eventually("PHP-FPM is ready", () => {
    try {
      return Deno.readTextFileSync(`${machine.home}/fpm.log`).includes("ready to handle");
    } catch {
      return false;
    }
  });
  return { [Symbol.asyncDispose]: () => server.stop() };
}
