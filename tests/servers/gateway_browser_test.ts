/** A PHP application from Debian's packages, used by a browser through `fastCGIGateway()`. */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { fastCGIGateway } from "../../gateway.ts";
import { eventually, type Program, type Rig, Suite, within } from "./harness.ts";
import { PHP_FPM, startFPM } from "./php.ts";

const WIKI = "/usr/share/dokuwiki";
const TYPES: Record<string, string> = {
  css: "text/css",
  gif: "image/gif",
  ico: "image/x-icon",
  js: "text/javascript",
  png: "image/png",
  svg: "image/svg+xml",
};

interface Started {
  url: string;
  chromium: Program;
  log: string[];
}

const servers: AsyncDisposable[] = [];
Deno.test.afterAll(async () => {
  for (const server of servers) await server[Symbol.asyncDispose]();
});

const wiki = new Suite("gateway: DokuWiki in a browser", {
  [PHP_FPM]: "php-fpm",
  [`${WIKI}/doku.php`]: "dokuwiki",
  "/var/lib/dokuwiki/data/pages/wiki/syntax.txt": "dokuwiki",
  chromium: "chromium",
  openssl: "openssl",
}, async (rig): Promise<Started> => {
  await configure(rig);
  const log: string[] = [];
  const php = fastCGIGateway(`unix:${rig.dir}/fpm.sock`, {
    root: WIKI,
    allowedHosts: [],
    log: (line) => log.push(line),
  });
  const server = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen() {} }, (request, info) => {
    return serveFile(new URL(request.url).pathname) ?? php(request, info);
  });
  servers.push({
    async [Symbol.asyncDispose]() {
      php[Symbol.dispose]();
      await server.shutdown();
    },
  });
  return { url: `http://127.0.0.1:${server.addr.port}`, chromium: startChromium(rig), log };
});

/** Copies the wiki's configuration and pages, and starts PHP-FPM with the copies. */
async function configure(rig: Rig): Promise<void> {
  const run = (command: string, ...args: string[]) => {
    const { success, stderr } = new Deno.Command(command, { args }).outputSync();
    assert(success, new TextDecoder().decode(stderr));
  };
  const [conf, data] = [`${rig.dir}/conf`, `${rig.dir}/data`];
  run("cp", "-rL", "/etc/dokuwiki", conf);
  run("cp", "-rL", "/var/lib/dokuwiki/data", data);
  rig.write(
    "conf/local.php",
    `<?php $conf['title'] = 'Wiki'; $conf['useacl'] = 1; $conf['superuser'] = '@admin'; $conf['savedir'] = '${data}';`,
  );
  rig.write("conf/acl.auth.php", "# <?php exit()?>\n*\t@ALL\t1\n*\t@user\t8\n");
  // crypt() with MD5 of "pass & word".
  const hash = new TextDecoder().decode(
    new Deno.Command("openssl", { args: ["passwd", "-1", "-salt", "saltsalt", "pass & word"] })
      .outputSync().stdout,
  ).trim();
  rig.write("conf/users.auth.php", `tester:${hash}:Tess Ter:tess@example.com:user\n`);
  const prepend = rig.write(
    "prepend.php",
    `<?php define('DOKU_MAIN_CONF', '${conf}/'); define('DOKU_CONF', '${conf}/');`,
  );
  if (Deno.uid() === 0) run("chown", "-R", "www-data", conf, data);
  await startFPM(rig, {
    listen: `${rig.dir}/fpm.sock`,
    children: 3,
    lines: `php_admin_value[session.save_path] = ${rig.dir}/cache
php_admin_value[auto_prepend_file] = ${prepend}`,
  });
}

/** Serves a static file; returns undefined for a path that needs PHP. */
function serveFile(path: string): Response | undefined {
  const type = TYPES[/\.(\w+)$/.exec(path)?.[1] ?? ""];
  if (type === undefined || path.includes("..")) return undefined;
  try {
    return new Response(Deno.readFileSync(WIKI + path), { headers: { "content-type": type } });
  } catch {
    return new Response(null, { status: 404 });
  }
}

function startChromium(rig: Rig): Program {
  const flags = "--headless=new --no-sandbox --disable-gpu --disable-dev-shm-usage --no-first-run";
  return rig.spawn("Chromium", "chromium", [
    ...flags.split(" "),
    "--remote-debugging-port=0",
    `--user-data-dir=${rig.dir}/browser`,
    "about:blank",
  ], { env: { HOME: rig.dir } });
}

/** A page of the browser, driven over the DevTools protocol. */
class Page implements Disposable {
  #socket: WebSocket;
  #session = "";
  #last = 0;
  #waiting = new Map<number, (message: { result?: unknown; error?: unknown }) => void>();
  #loads: (() => void)[] = [];

  private constructor(socket: WebSocket) {
    this.#socket = socket;
    socket.onmessage = ({ data }) => {
      const message = JSON.parse(data);
      if (message.id) this.#waiting.get(message.id)?.(message);
      if (message.method === "Page.loadEventFired") this.#loads.splice(0).forEach((load) => load());
    };
  }

  static async open(chromium: Program): Promise<Page> {
    let address: string | undefined;
    await eventually("Chromium listens", () => {
      address = /DevTools listening on (ws:\S+)/.exec(chromium.output)?.[1];
      return address !== undefined;
    });
    const socket = new WebSocket(address!);
    await within("Chromium's socket", new Promise((resolve) => socket.onopen = resolve));
    const page = new Page(socket);
    const { targetId } = await page.#send("Target.createTarget", { url: "about:blank" });
    const { sessionId } = await page.#send("Target.attachToTarget", { targetId, flatten: true });
    page.#session = sessionId;
    await page.#send("Page.enable", {});
    // If these background requests of the wiki arrive late, they sign out the user who has just signed in.
    await page.#send("Network.enable", {});
    await page.#send("Network.setBlockedURLs", { urls: ["*taskrunner.php*", "*fetch.php*"] });
    return page;
  }

  // deno-lint-ignore no-explicit-any
  async #send(method: string, params: unknown): Promise<any> {
    const id = ++this.#last;
    const { promise, resolve } = Promise.withResolvers<{ result?: unknown; error?: unknown }>();
    this.#waiting.set(id, resolve);
    this.#socket.send(JSON.stringify({
      id,
      method,
      params,
      ...(this.#session ? { sessionId: this.#session } : {}),
    }));
    const { result, error } = await within(method, promise, 30_000);
    assertEquals(error, undefined);
    return result;
  }

  /** Runs an action that navigates to another page, and waits until that page has loaded. */
  async #load(action: () => Promise<unknown>): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#loads.push(resolve);
    await action();
    await within("the page loads", promise, 30_000);
  }

  async goto(url: string): Promise<void> {
    await this.#load(() => this.#send("Page.navigate", { url }));
  }

  /** Runs a script in the page that navigates to another page. */
  async submit(script: string): Promise<void> {
    await this.#load(() => this.run(script));
  }

  async run<T>(script: string): Promise<T> {
    const { result, exceptionDetails } = await this.#send("Runtime.evaluate", {
      expression: script,
      returnByValue: true,
    });
    assertEquals(exceptionDetails, undefined);
    return result.value;
  }

  [Symbol.dispose](): void {
    this.#socket.close();
  }
}

wiki.test("a user signs in, writes a page and finds it", async ({ url, chromium, log }) => {
  using page = await Page.open(chromium);
  await page.goto(`${url}/doku.php?id=start&do=login`);
  assertStringIncludes(await page.run("document.title"), "Wiki");
  // PHP generates the wiki's style sheet and script; its images are files.
  const sheets = await page.run<string[]>(
    "[...document.styleSheets].filter((sheet) => sheet.cssRules.length > 0).map(({ href }) => href)",
  );
  assert(sheets.some((href) => href?.includes("/lib/exe/css.php")), String(sheets));
  assertEquals(await page.run("typeof jQuery"), "function");
  await page.submit(`
    document.querySelector("#dw__login [name=u]").value = "tester";
    document.querySelector("#dw__login [name=p]").value = "wrong";
    document.querySelector("#dw__login [type=submit]").click()`);
  assertStringIncludes(await page.run("document.body.innerText"), "username or password was wrong");
  await page.submit(`
    document.querySelector("#dw__login [name=u]").value = "tester";
    document.querySelector("#dw__login [name=p]").value = "pass & word";
    document.querySelector("#dw__login [type=submit]").click()`);
  assertStringIncludes(await page.run("document.body.innerText"), "Tess Ter");

  await page.goto(`${url}/doku.php?id=caf%C3%A9:new_page&do=edit`);
  await page.submit(`
    document.querySelector("#wiki__text").value = "====== Überschrift ======\\n" + "Zeile & <Text>\\n".repeat(3000);
    document.querySelector("#edbtn__save").click()`);
  assertEquals(
    await page.run("document.querySelector('h1.sectionedit1').innerText"),
    "Überschrift",
  );

  await page.goto(`${url}/doku.php?do=search&q=%C3%9Cberschrift`);
  assertStringIncludes(await page.run("document.body.innerText"), "new_page");

  // A large script that PHP generates.
  const status = await page.run(`
    (() => {
      const request = new XMLHttpRequest();
      request.open("GET", "/lib/exe/js.php", false);
      request.send();
      return request.status + " " + (request.responseText.length > 50_000);
    })()`);
  assertEquals(status, "200 true");
  assertEquals(log.filter((line) => !line.includes("Warning")), []);
});
