import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { fetchFastCGI, fetchSCGI } from "../gateway.ts";
import type { Address } from "../gateway.ts";
import authorizer from "../examples/authorizer.ts";
import { Role } from "../wire/fastcgi.ts";
import { serveOne } from "./testing/fastcgi_client.ts";
import { parseResponse } from "./testing/response.ts";
import { served, startServe } from "./testing/command_line.ts";
import { Daemon, ROOT } from "./testing/daemon.ts";
import { deadline } from "./testing/deadline.ts";
import { testWith } from "./testing/needs.ts";
import { assertFits } from "./testing/page_width.ts";
import { handDown } from "./testing/hand_down.ts";
import { eventually, freePort } from "./servers/harness.ts";

type Send = (path: string, init?: RequestInit) => Promise<Response>;

const SCRIPT_ORIGIN = "http://localhost:8000";
const MOUNT = "/cgi-bin/app.ts";
const FORWARDED = ["authorization", "cookie", "last-event-id", "origin", "sec-fetch-site"];

/** Returns the flags of an example's first line, with the folder of a test in place of its own. */
async function flagsOf(name: string, env: Record<string, string>): Promise<string[]> {
  const [first] = (await Deno.readTextFile(`${ROOT}examples/${name}.ts`)).split("\n");
  return first.match(/--allow-\S+/g)!.map((flag) =>
    flag.replace(/\/var\/lib\/\w+$/, env.GUESTBOOK?.replace(/\/[^/]*$/, "") ?? env.UPLOADS)
  );
}

/** Runs the example by its own first line, as a web server does. */
function scriptSender(name: string, env: Record<string, string>): Send {
  return async (path, init) => {
    const request = new Request(`${SCRIPT_ORIGIN}${MOUNT}${path}`, init);
    const url = new URL(request.url);
    const body = await request.bytes();
    const file = `${ROOT}examples/${name}.ts`;
    const flags = await flagsOf(name, env);
    const child = new Deno.Command(Deno.execPath(), {
      args: ["run", "--no-prompt", ...flags, file],
      env: {
        ...env,
        GATEWAY_INTERFACE: "CGI/1.1",
        REQUEST_METHOD: request.method,
        REQUEST_URI: url.pathname + url.search,
        QUERY_STRING: url.search.slice(1),
        SCRIPT_NAME: MOUNT,
        PATH_INFO: decodeURIComponent(url.pathname.slice(MOUNT.length)),
        HTTP_HOST: url.host,
        ...Object.fromEntries(
          FORWARDED.filter((name) => request.headers.has(name)).map((name) => [
            `HTTP_${name.replaceAll("-", "_").toUpperCase()}`,
            request.headers.get(name)!,
          ]),
        ),
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
    const output = await deadline(child.output(), `${name}.ts to respond`, 60_000);
    assertEquals(output.code, 0, new TextDecoder().decode(output.stderr));
    const { status, headers, body: sent } = parseResponse(output.stdout);
    return new Response(sent.length ? sent as Uint8Array<ArrayBuffer> : null, { status, headers });
  };
}

/** Tests an example as a script, and as a daemon over each protocol with the permissions of its first line. */
async function withTransports(
  name: string,
  test: (send: Send, origin: string, daemon?: Daemon) => Promise<void>,
  env: Record<string, string> = {},
): Promise<void> {
  await test(scriptSender(name, env), SCRIPT_ORIGIN);
  for (const protocol of ["fastcgi", "scgi", "http"]) {
    const flags = (await flagsOf(name, env)).filter((flag) => !flag.startsWith("--allow-read"));
    await using daemon = startServe(
      `${ROOT}examples/${name}.ts`,
      ["--protocol", protocol, "--base-path", MOUNT],
      [...flags, "--allow-read"],
      { env },
    );
    const address = await served(daemon) as Address;
    await test(
      (path, init) => {
        const url = `http://${address}${MOUNT}${path}`;
        const request = new Request(url, { redirect: "manual", ...init });
        const response = protocol === "http"
          ? fetch(request)
          : protocol === "scgi"
          ? fetchSCGI(request, address)
          : fetchFastCGI(request, address);
        return deadline(response, `${name}.ts over ${protocol}`, 60_000);
      },
      `http://${address}`,
      daemon,
    );
  }
}

Deno.test("examples/hello.ts greets over every transport", () =>
  withTransports("hello", async (send) => {
    const response = await send("");
    assertEquals(response.status, 200);
    assertEquals(await response.text(), "Hello from Gatehouse\n");
  }));

for (const name of ["environment", "form", "guestbook", "login"]) {
  Deno.test(`the page of examples/${name}.ts fits a phone, and has dark colors where the browser has`, async () => {
    const directory = await Deno.makeTempDir();
    const env = { GUESTBOOK: `${directory}/guestbook.db`, SESSION_SECRET: "a secret of this test" };
    const page = await (await scriptSender(name, env)("/")).text();
    assertMatch(page, /^<!doctype html>\n<html lang="en">/);
    assertStringIncludes(page, '<meta name="viewport" content="width=device-width">');
    assertStringIncludes(page, '<meta name="color-scheme" content="light dark">');
    await Deno.remove(directory, { recursive: true });
  });
}

testWith(
  { chromium: "chromium" },
  "the table of examples/environment.ts fits a phone",
  async () => {
    const path = `/${"x".repeat(200)}?${"y".repeat(200)}`;
    await assertFits(await (await scriptSender("environment", {})(path)).text(), 360);
  },
);

Deno.test("examples/environment.ts shows the variables, escaped", () =>
  withTransports("environment", async (send) => {
    const text = await (await send("/a?b=<script>&c=%22")).text();
    assertStringIncludes(text, "<th>REQUEST_METHOD</th><td>GET</td>");
    assertMatch(text, /<th>REQUEST_URI<\/th><td>[^<]*\?b=(?:%3C|&#60;)script/);
    assertEquals(text.includes("<script>"), false);
  }));

Deno.test("examples/form.ts reads query, path, fields and a file", () =>
  withTransports("form", async (send) => {
    const form = new FormData();
    form.set("name", "<Ann> & é");
    form.set("file", new File([new Uint8Array(100_000)], "zeros.bin"));
    const text = await (await send("/some/p%20th?color=blue", { method: "POST", body: form }))
      .text();
    assertStringIncludes(text, "path: /some/p th\nquery color: blue\n");
    assertStringIncludes(text, "field name: &#60;Ann&#62; &#38; é\n");
    assertMatch(text, /file file: zeros.bin, 100000 bytes, SHA-256 [0-9a-f]{64}/);
    const url = await (await send("", { method: "POST", body: new URLSearchParams({ a: "1" }) }))
      .text();
    assertStringIncludes(url, "field a: 1");
    form.set("file", new File([new Uint8Array(11_000_000)], "zeros.bin"));
    const long = await send("", { method: "POST", body: form });
    assertEquals([long.status, await long.text()], [413, "The form is too long\n"]);
  }));

const SESSION_SECRET = { SESSION_SECRET: "a secret of the tests, of some length" };

for (const name of ["login", "hono"]) {
  Deno.test(`examples/${name}.ts does not start behind a web server without a secret`, async () => {
    const flags = await flagsOf(name, {});
    const script = new Daemon([...flags, `${ROOT}examples/${name}.ts`], {
      env: { GATEWAY_INTERFACE: "CGI/1.1", REQUEST_METHOD: "GET" },
    });
    assertEquals((await deadline(script.child.status, "the script")).code, 1);
    const app = `${ROOT}examples/${name}.ts`;
    await using daemon = startServe(app, [], [...flags, "--allow-read"]);
    await deadline(Promise.all([script.ended, daemon.ended]), "what they log");
    for (const { log } of [script, daemon]) assertStringIncludes(log, "Set SESSION_SECRET");
    // On its own, which nobody else reaches.
    const program = await handDown({ host: "127.0.0.1", port: 0 }, 0, {}, [
      ...flags,
      `${ROOT}examples/${name}.ts`,
    ]);
    program.closeOurs();
    const fetched = fetchFastCGI("http://localhost/", program.address);
    const response = await deadline(fetched, `${name}.ts to respond: ${program.log}`);
    assertEquals(response.status, 200);
    await response.body?.cancel();
    assertEquals(await program.stop(), 0);
  });
}

Deno.test("examples/hono.ts has the same routes everywhere, a cookie and a session", () =>
  withTransports("hono", async (send) => {
    assertEquals(await (await send("/greet/you")).text(), "Hello, you\n");
    assertEquals((await send("/nowhere")).status, 404);
    const colored = await send("/color/blue", { headers: { cookie: "color=red" } });
    assertEquals(await colored.text(), "Your color was red and is now blue\n");
    assertMatch(colored.headers.getSetCookie().join("\n"), /^color=blue; /m);
    let cookie = "";
    for (const visit of [1, 2, 3]) {
      const response = await send("/visits", cookie ? { headers: { cookie } } : {});
      assertEquals(await response.text(), `Visit ${visit}\n`);
      cookie = response.headers.getSetCookie().map((line) => line.split(";")[0]).join("; ");
    }
  }, SESSION_SECRET));

Deno.test("examples/guestbook.ts stores entries, escapes them, and redirects after a form", async () => {
  const directory = await Deno.makeTempDir();
  const entries: string[] = [];
  await withTransports("guestbook", async (send, origin) => {
    const name = `<b>Ann ${entries.length}</b>`;
    entries.unshift(name.replaceAll("<", "&#60;").replaceAll(">", "&#62;"));
    const body = new URLSearchParams({ name, message: "é & '; DROP TABLE entry" });
    const signed = await send("", { method: "POST", body });
    assertEquals([signed.status, signed.headers.get("location")], [303, MOUNT]);
    const text = await (await send("")).text();
    assertStringIncludes(text, `action="${MOUNT}"`);
    assertStringIncludes(text, "<dd>é &#38; &#39;; DROP TABLE entry</dd>");
    // All transports share one file: each shows the entries of the previous ones.
    assertEquals([...text.matchAll(/<dt>(.*), [\d :-]{19}<\/dt>/g)].map(([, by]) => by), entries);
    const empty = await send("", { method: "POST", body: new URLSearchParams({ name: " " }) });
    assertEquals(empty.status, 400);
    await empty.body?.cancel();
    const sites: [name: string, value: string, status: number][] = [
      ["sec-fetch-site", "cross-site", 403],
      ["sec-fetch-site", "same-site", 403],
      ["origin", "https://other.example", 403],
      ["origin", "null", 403],
    ];
    for (const [name, value, status] of sites) {
      const forged = await send("", { method: "POST", body, headers: { [name]: value } });
      assertEquals(forged.status, status, value);
      await forged.body?.cancel();
    }
    for (const [name, value] of [["sec-fetch-site", "same-origin"], ["origin", origin]]) {
      const own = await send("", { method: "POST", body, headers: { [name]: value } });
      assertEquals(own.status, 303, value);
      entries.unshift(entries[0]);
    }
    const long = new URLSearchParams({ name: "Ann", message: "x".repeat(20_000) });
    const refused = await send("", { method: "POST", body: long });
    assertEquals(refused.status, 413);
    await refused.body?.cancel();
    // Two at once: one waits for the other's write.
    const both = await Promise.all([1, 2].map(() => send("", { method: "POST", body })));
    assertEquals(both.map(({ status }) => status), [303, 303]);
    entries.unshift(entries[0], entries[0]);
  }, { GUESTBOOK: `${directory}/guestbook.db` });
  await Deno.remove(directory, { recursive: true });
});

const MEGABYTE = 1_048_576;

/** Returns the peak memory of a process, in bytes. */
function peakMemory({ child }: Daemon): number {
  // Deno reads /proc only with --allow-all.
  const { stdout } = new Deno.Command("cat", { args: [`/proc/${child.pid}/status`] }).outputSync();
  return Number(/VmHWM:\s*(\d+)/.exec(new TextDecoder().decode(stdout))![1]) * 1024;
}

Deno.test("examples/upload.ts writes uploads to disk in constant memory, and reports their progress", async () => {
  const directory = await Deno.makeTempDir();
  await withTransports("upload", async (send, _origin, daemon) => {
    const put = async (name: string, megabytes: number) => {
      const body = new Uint8Array(megabytes * MEGABYTE).fill(7);
      // SCGI sends the length first.
      const headers = { "content-length": String(body.length) };
      const response = await send(`/${name}`, { method: "PUT", body, headers });
      assertEquals(response.status, 201);
      assertEquals(await response.json(), { bytes: body.length, complete: true });
      assertEquals((await Deno.stat(`${directory}/${name}`)).size, body.length);
    };
    await put("small.bin", 16);
    const before = daemon && peakMemory(daemon);
    await put("large.bin", 96);
    const growth = daemon ? peakMemory(daemon) - before! : 0;
    assert(growth < 48 * MEGABYTE, `memory grew by ${growth} bytes`);
    await Deno.writeTextFile(`${directory}/.begun.bin.part`, "12345");
    const progress = [];
    for (const name of ["begun.bin", "small.bin"]) {
      progress.push(await (await send(`/${name}`)).json());
    }
    assertEquals(progress, [{ bytes: 5, complete: false }, {
      bytes: 16 * MEGABYTE,
      complete: true,
    }]);
    for (const path of ["/none", "/.hidden", "/a%2Fb", "/a%5Cb", ""]) {
      const { status, body } = await send(path);
      await body?.cancel();
      assertEquals(status, 404, path);
    }
  }, { UPLOADS: directory });
  await Deno.remove(directory, { recursive: true });
});

Deno.test("examples/upload.ts does not mix two uploads of one name, by whatever process", async () => {
  const directory = await Deno.makeTempDir();
  const env = { UPLOADS: directory };
  const byScript = scriptSender("upload", env);
  await withTransports("upload", async (send, _origin, daemon) => {
    if (daemon === undefined) return;
    const { readable, writable } = new TransformStream<Uint8Array, Uint8Array<ArrayBuffer>>();
    const first = send("/one.bin", {
      method: "PUT",
      body: readable,
      // SCGI sends the length first.
      headers: { "content-length": "200000" },
    });
    const writer = writable.getWriter();
    await writer.write(new Uint8Array(100_000).fill(1));
    await eventually("the first upload is in progress", async () => {
      const response = await send("/one.bin");
      const progress = response.status === 200 ? await response.json() : await response.text();
      return progress.complete === false && progress.bytes > 0;
    });
    for (const other of [send, byScript]) {
      const second = await other("/one.bin", { method: "PUT", body: new Uint8Array(10).fill(2) });
      assertEquals(second.status, 409);
      await second.body?.cancel();
    }
    await writer.write(new Uint8Array(100_000).fill(1));
    await writer.close();
    const response = await first;
    assertEquals([response.status, await response.json()], [201, {
      bytes: 200_000,
      complete: true,
    }]);
    const written = await Deno.readFile(`${directory}/one.bin`);
    assertEquals([written.length, written.every((byte) => byte === 1)], [200_000, true]);
    // What a process has left behind is overwritten, be it longer or not.
    await Deno.writeFile(`${directory}/.one.bin.part`, new Uint8Array(300_000));
    const next = await byScript("/one.bin", { method: "PUT", body: new Uint8Array(10).fill(2) });
    assertEquals(await next.json(), { bytes: 10, complete: true });
    assertEquals((await Deno.readFile(`${directory}/one.bin`)).length, 10);
    await Deno.remove(`${directory}/one.bin`);
  }, env);
  await Deno.remove(directory, { recursive: true });
});

Deno.test("examples/events.ts sends events, and continues after the last event id", () =>
  withTransports("events", async (send) => {
    const idsOf = async (response: Response) => {
      assertEquals(response.headers.get("content-type"), "text/event-stream");
      const text = await response.text();
      assertMatch(text, /^(id: \d+\ndata: \d{4}-\S+Z\n\n){10}$/);
      return [...text.matchAll(/id: (\d+)/g)].map(([, id]) => Number(id));
    };
    assertEquals(await idsOf(await send("?interval=1")), [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
    const next = await send("?interval=1", { headers: { "last-event-id": "10" } });
    assertEquals((await idsOf(next))[0], 11);
  }));

Deno.test("examples/login.ts logs in and out, by a signed cookie", () =>
  withTransports("login", async (send, origin) => {
    const post = (query: string, fields: Record<string, string>, from = origin) =>
      send(query, {
        method: "POST",
        body: new URLSearchParams(fields),
        headers: { origin: from },
      });
    assertStringIncludes(await (await send("")).text(), "Who are you?");
    const password = "open sesame";
    for (const wrong of [{ user: "ann", password: "x" }, { user: "bob", password }, {}]) {
      assertEquals((await post("", wrong as Record<string, string>)).status, 403);
    }
    const foreign = await post("", { user: "ann", password }, "http://evil.example");
    assertEquals([foreign.status, foreign.headers.getSetCookie()], [403, []]);
    const entered = await post("", { user: "ann", password });
    const [line] = entered.headers.getSetCookie();
    assertEquals([entered.status, entered.headers.get("location")], [303, "?"]);
    assertMatch(line, /; HttpOnly; SameSite=Lax$/);
    const [cookie] = line.split(";");
    const hello = await (await send("", { headers: { cookie } })).text();
    assertStringIncludes(hello, "Hello, ann");
    const forged = cookie.replace("ann", "bob");
    const unknown = await (await send("", { headers: { cookie: forged } })).text();
    assertStringIncludes(unknown, "Who are you?");
    const left = await post("?action=logout", {});
    assertMatch(left.headers.getSetCookie()[0], /^session=; Max-Age=0/);
    const long = await post("", { user: "ann", password: "x".repeat(20_000) });
    assertEquals(long.status, 413);
  }, SESSION_SECRET));

Deno.test("examples/authorizer.ts allows members, and rejects others", async () => {
  const headers = { authorization: `Basic ${btoa("ann:open sesame")}` };
  await withTransports("authorizer", async (send) => {
    const rejected = await send("");
    assertEquals([rejected.status, await rejected.text()], [401, "Members only\n"]);
    assertMatch(rejected.headers.get("www-authenticate")!, /^Basic realm=/);
    const allowed = await send("", { headers });
    assertEquals([allowed.status, await allowed.text()], [200, ""]);
  });
  const parts = (variables: Record<string, string>) => ({ role: Role.authorizer, variables });
  const { authorization } = headers;
  const allowed = await serveOne(authorizer, parts({ HTTP_AUTHORIZATION: authorization }));
  assertEquals([allowed.status, allowed.headers.get("variable-member")], [200, "ann"]);
  assertEquals((await serveOne(authorizer, parts({}))).status, 401);
});

testWith(
  { "redis-server": "redis-server" },
  "examples/visits.ts has the same sessions in each process",
  async () => {
    const directory = await Deno.makeTempDir();
    const port = freePort();
    {
      const redis = new Deno.Command("redis-server", {
        args: `--bind 127.0.0.1 --port ${port} --dir ${directory} --requirepass secret`.split(" "),
        stdout: "null",
      }).spawn();
      await using _redis = {
        async [Symbol.asyncDispose]() {
          redis.kill("SIGTERM");
          await deadline(redis.status, "the end of Redis");
        },
      };
      const start = (protocol: string) =>
        startServe(
          `${ROOT}examples/visits.ts`,
          ["--protocol", protocol],
          ["--allow-env", "--allow-net=127.0.0.1", "--allow-read"],
          { env: { REDIS_URL: `redis://:secret@127.0.0.1:${port}` } },
        );
      await using one = start("fastcgi");
      await using two = start("scgi");
      const [first, second] = [await served(one) as Address, await served(two) as Address];
      const send: Send = (path, init) =>
        fetchFastCGI(new Request(`http://localhost${path}`, init), first);
      const sendOther: Send = (path, init) =>
        fetchSCGI(new Request(`https://localhost${path}`, init), second);
      const visit = async (send: Send, method: string, cookie = "") => {
        const response = await deadline(send("/", { method, headers: { cookie } }), "a response");
        return { text: await response.text(), cookie: response.headers.get("set-cookie")! };
      };

      const { text, cookie } = await visit(send, "POST");
      assertEquals(text, "Visits: 1 of 1\n");
      assertMatch(cookie, /^session=[\da-f-]{36}; Path=\/; HttpOnly; SameSite=Lax; Max-Age=86400$/);
      const session = cookie.split(";")[0];
      assertEquals((await visit(sendOther, "GET", `a=b; ${session}`)).text, "Visits: 1 of 1\n");
      const again = await visit(sendOther, "POST", session);
      assertEquals(again.text, "Visits: 2 of 2\n");
      assertEquals(again.cookie, `${cookie}; Secure`);
      assertEquals((await visit(send, "POST", "session=forged")).text, "Visits: 1 of 3\n");
      assertEquals((await visit(send, "GET", session)).text, "Visits: 2 of 3\n");
      assertEquals(await (await send("/health")).text(), "ok\n");
    }
    await Deno.remove(directory, { recursive: true });
  },
);

Deno.test("examples can be run by their first line", async () => {
  for (const { name } of Deno.readDirSync(`${ROOT}examples`)) {
    const { mode } = await Deno.stat(`${ROOT}examples/${name}`);
    assertEquals(mode! & 0o111, 0o111, name);
    const [first] = (await Deno.readTextFile(`${ROOT}examples/${name}`)).split("\n");
    assertMatch(
      first,
      /^#!\/usr\/bin\/env -S deno run(?: --allow-(?:env|net|read|write=\/run\/php|(?:read|write)=\/var\/lib\/\w+))+$/,
      name,
    );
  }
});
