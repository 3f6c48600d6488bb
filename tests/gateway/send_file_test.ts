/** The option `sendFile`: files that an application names with X-Accel-Redirect and X-Sendfile (rule B24). */
import { assert, assertEquals, assertMatch, assertThrows } from "@std/assert";
import { cgiGateway, fetchCGI, type SendFileOptions } from "../../gateway.ts";
import { type Front, FRONTS } from "./fronts.ts";

const CONTENT = "0123456789";
const ETAG = '"of the file"';

/** Sends a file as a library does, as far as the tests go: with ranges, and not again if the client has it. */
async function serveFile(request: Request, path: string): Promise<Response> {
  if (request.method !== "GET" && request.method !== "HEAD") {
    return new Response(null, { status: 405 });
  }
  const file = await Deno.readFile(path);
  const headers = new Headers({
    "accept-ranges": "bytes",
    "content-type": "application/octet-stream",
    "cache-control": "no-cache",
    etag: ETAG,
  });
  if (request.headers.get("if-none-match") === ETAG) {
    headers.delete("content-type");
    return new Response(null, { status: 304, headers });
  }
  const [_, from, to] = /^bytes=(\d+)-(\d+)$/.exec(request.headers.get("range") ?? "") ?? [];
  if (from !== undefined && Number(from) >= file.length) {
    return new Response("out of range", { status: 416, headers: { "content-type": "text/plain" } });
  }
  const body = from === undefined ? file : file.slice(Number(from), Number(to) + 1);
  if (from !== undefined) headers.set("content-range", `bytes ${from}-${to}/${file.length}`);
  headers.set("content-length", String(body.length));
  return new Response(body, { status: from === undefined ? 200 : 206, headers });
}

/** A folder of files, one beside it, and links. */
class Files implements Disposable {
  readonly dir: string = Deno.realPathSync(Deno.makeTempDirSync());
  readonly root: string = `${this.dir}/files`;

  constructor() {
    Deno.mkdirSync(`${this.root}/sub`, { recursive: true });
    Deno.mkdirSync(`${this.dir}/files-of-others`);
    for (
      const name of ["file", "sub/file", "a b", "caf\u00e9", "per%cent", "../secret", "x?y"]
    ) {
      Deno.writeTextFileSync(`${this.root}/${name}`, CONTENT);
    }
    Deno.writeTextFileSync(`${this.dir}/files-of-others/secret`, CONTENT);
    Deno.symlinkSync(`${this.root}/file`, `${this.root}/inside`);
    Deno.symlinkSync(`${this.dir}/secret`, `${this.root}/outside`);
    Deno.symlinkSync("../secret", `${this.root}/sub/outside`);
    Deno.symlinkSync(this.dir, `${this.root}/up`);
    // A link to the folder itself.
    Deno.symlinkSync(this.root, `${this.dir}/link`);
  }

  option(options: Partial<SendFileOptions> = {}): SendFileOptions {
    return { root: this.root, serve: serveFile, ...options };
  }

  [Symbol.dispose](): void {
    Deno.removeSync(this.dir, { recursive: true });
  }
}

const origin = "http://localhost/";

for (const [name, start] of Object.entries(FRONTS)) {
  Deno.test(`sendFile: ${name} sends the file that the application names`, async () => {
    using files = new Files();
    const fields = [
      "Content-Type: text/x-own",
      "Content-Disposition: attachment",
      "Cache-Control: private",
      "Expires: 0",
      "Set-Cookie: a=1",
      "Set-Cookie: b=2",
    ].join("\r\n");
    const head =
      `Status: 404 Ignored\r\nX-Other: 1\r\nContent-Length: 7\r\nETag: "own"\r\n${fields}`;
    await using front = await start([
      `${head}\r\nX-Accel-Redirect: /file\r\n\r\nignored`,
      `${head}\r\nX-Sendfile: ${files.root}/sub/file\r\n\r\nignored`,
      `Location: /elsewhere\r\nX-Accel-Redirect: /file\r\n\r\n`,
    ], { sendFile: files.option() });
    for (const i of [0, 1]) {
      const response = await front.gateway(new Request(`${origin}?${i}`));
      assertEquals([response.status, await response.text()], [200, CONTENT]);
      assertEquals([...response.headers], [
        ["accept-ranges", "bytes"],
        ["cache-control", "private"],
        ["content-disposition", "attachment"],
        ["content-length", "10"],
        ["content-type", "text/x-own"],
        ["etag", ETAG],
        ["expires", "0"],
        ["set-cookie", "a=1"],
        ["set-cookie", "b=2"],
      ]);
    }
    const response = await front.gateway(new Request(`${origin}?2`));
    assertEquals([response.status, await response.text()], [200, CONTENT]);
    assertEquals(response.headers.get("location"), null);
  });

  Deno.test(`sendFile: ${name} passes the fields on without the option`, async () => {
    await using front = await start(["X-Sendfile: /a\r\nX-Accel-Redirect: /b\r\n\r\nbody"], {});
    const response = await front.gateway(new Request(`${origin}?0`));
    const { headers } = response;
    assertEquals([headers.get("x-sendfile"), headers.get("x-accel-redirect")], ["/a", "/b"]);
    assertEquals(await response.text(), "body");
  });
}

/** A gateway to an application that sends one response, and what the gateway logs. */
class Naming implements AsyncDisposable {
  readonly log: string[];
  #front: Front;

  private constructor(front: Front, log: string[]) {
    this.#front = front;
    this.log = log;
  }

  static async start(response: string, sendFile: SendFileOptions): Promise<Naming> {
    const log: string[] = [];
    const options = { sendFile, log: (line: string) => log.push(line) };
    return new Naming(await FRONTS["fastCGIGateway()"]([response], options), log);
  }

  fetch(init: RequestInit = {}): Promise<Response> {
    return this.#front.gateway(new Request(`${origin}?0`, init));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#front[Symbol.asyncDispose]();
  }
}

Deno.test("sendFile: a range, a file that the client has, and a range that there is not", async () => {
  using files = new Files();
  const head = "Content-Type: text/x-own\r\nSet-Cookie: a=1\r\nCache-Control: private";
  await using app = await Naming.start(
    `${head}\r\nX-Accel-Redirect: /file\r\n\r\n`,
    files.option(),
  );
  const send = async (headers: HeadersInit) => {
    const response = await app.fetch({ headers });
    const get = (name: string) => response.headers.get(name);
    return [
      response.status,
      await response.text(),
      get("content-type"),
      get("content-range"),
      get("cache-control"),
      get("set-cookie"),
    ];
  };
  const own = "text/x-own";
  assertEquals(
    await send({ range: "bytes=2-4" }),
    [206, "234", own, "bytes 2-4/10", "private", "a=1"],
  );
  assertEquals(await send({ "if-none-match": ETAG }), [304, "", null, null, "private", "a=1"]);
  assertEquals(await send({ range: "bytes=20-21" }), [
    416,
    "out of range",
    "text/plain",
    null,
    "private",
    "a=1",
  ]);
});

Deno.test("sendFile: If-Range with another version gets all of the file", async () => {
  using files = new Files();
  let served = 0;
  const serve = (request: Request, path: string) => {
    served++;
    return serveFile(request, path);
  };
  await using app = await Naming.start(
    "X-Accel-Redirect: /file\r\n\r\n",
    files.option({ serve }),
  );
  for (
    const [ifRange, status, calls] of [
      [ETAG, 206, 1],
      ['"another"', 200, 2],
      [`W/${ETAG}`, 200, 2],
      ["Thu, 01 Jan 1970 00:00:00 GMT", 200, 2],
    ] as const
  ) {
    served = 0;
    const headers = { range: "bytes=2-4", "if-range": ifRange };
    const response = await app.fetch({ headers });
    const body = status === 206 ? "234" : CONTENT;
    assertEquals([response.status, await response.text(), served], [status, body, calls], ifRange);
  }
});

Deno.test("sendFile: HEAD has the headers of GET and no body; other methods get the file", async () => {
  using files = new Files();
  await using app = await Naming.start("X-Accel-Redirect: /file\r\n\r\n", files.option());
  const head = await app.fetch({ method: "HEAD" });
  assertEquals([head.status, head.headers.get("content-length"), await head.text()], [
    200,
    "10",
    "",
  ]);
  const post = await app.fetch({ method: "POST", body: "form" });
  assertEquals([post.status, await post.text()], [200, CONTENT]);
});

Deno.test("sendFile: an empty Content-Type leaves the file's", async () => {
  using files = new Files();
  const text = "Content-Type:\r\nX-Accel-Redirect: /file\r\n\r\n";
  await using app = await Naming.start(text, files.option());
  const response = await app.fetch();
  assertEquals(response.headers.get("content-type"), "application/octet-stream");
  await response.body?.cancel();
});

/** Values of the fields, each with whether it names a file. DIR is the folder of the folder. */
const ACCEL: Record<string, boolean> = {
  "/files/file": true,
  "/files/sub/file": true,
  "/files/a b": true,
  "/files/a%20b": true,
  "/files/caf\u00c3\u00a9": true,
  "/files/caf%C3%A9": true,
  "/files/per%25cent": true,
  "/files/x%3Fy": true,
  "/files/file?download=1": true,
  "/files/inside": true,
  "/files//file": true,
  "/files": false,
  "/files/": false,
  "/files/sub": false,
  "/files/none": false,
  "/file": false,
  "/filesfile": false,
  "/files-of-others/secret": false,
  "file": false,
  "": false,
  "/files/x?y": false,
  "/files/caf\u00e9": false,
  "/files/caf%E9": false,
  "/files/../secret": false,
  "/files/%2e%2e/secret": false,
  "/files/.%2E/secret": false,
  "/files/..%2fsecret": false,
  "/files/sub%2Ffile": false,
  "/files/sub%5Cfile": false,
  "/files/sub/../file": false,
  "/files/%252e%252e/secret": false,
  "/files/file%00": false,
  "/files/outside": false,
  "/files/sub/outside": false,
  "/files/up/secret": false,
  "/files/up/files-of-others/secret": false,
  "//files/file": false,
  "http://localhost/files/file": false,
  "@named": false,
};

const SENDFILE: Record<string, boolean> = {
  "DIR/files/file": true,
  "DIR/files/a b": true,
  "DIR/files/a%20b": true,
  "DIR/files/x?y": true,
  "DIR/files/inside": true,
  // A path through a link that leads in.
  "DIR/link/file": true,
  "DIR/files/none": false,
  "DIR/files": false,
  "DIR/secret": false,
  "DIR/files-of-others/secret": false,
  "DIR/files/../secret": false,
  "DIR/files/..%2Fsecret": false,
  "DIR/files/outside": false,
  "DIR/files/up/secret": false,
  "/etc/passwd": false,
  "/file": false,
  "file": false,
  "files/file": false,
};

for (
  const [field, values] of Object.entries({ "X-Accel-Redirect": ACCEL, "X-Sendfile": SENDFILE })
) {
  for (const [value, sent] of Object.entries(values)) {
    Deno.test(`sendFile: ${field}: ${value} ${sent ? "names a file" : "is 404 and logged"}`, async () => {
      using files = new Files();
      const text = `Set-Cookie: a=1\r\n${field}: ${value.replace("DIR", files.dir)}\r\n\r\n`;
      await using app = await Naming.start(text, files.option({ location: "/files" }));
      const response = await app.fetch();
      const body = await response.text();
      if (sent) return assertEquals([response.status, body, app.log], [200, CONTENT, []]);
      assertEquals([response.status, body], [404, "404 Not Found\n"]);
      assertEquals(app.log.length, 1);
      assertMatch(app.log[0], new RegExp(`^Cannot send the file of ${field.toLowerCase()} "`));
    });
  }
}

Deno.test("sendFile: the folder may be a link, and the path is without links", async () => {
  using files = new Files();
  const paths: string[] = [];
  const serve = (_request: Request, path: string) => {
    paths.push(path);
    return new Response();
  };
  await using app = await Naming.start(
    "X-Accel-Redirect: /inside\r\n\r\n",
    { root: `${files.dir}/link/`, serve },
  );
  assertEquals((await app.fetch()).status, 200);
  assertEquals(paths, [`${files.root}/file`]);
});

Deno.test("sendFile: an error of the function is 500 and logged", async () => {
  using files = new Files();
  const serve = () => Promise.reject(new Error("the disk has failed"));
  await using app = await Naming.start("X-Accel-Redirect: /file\r\n\r\n", files.option({ serve }));
  assertEquals((await app.fetch()).status, 500);
  assertMatch(app.log.join("\n"), /the disk has failed/);
});

Deno.test("sendFile: a script goes on after it has named the file", async () => {
  using files = new Files();
  const script = `${files.dir}/script`;
  // It waits until the client has the file.
  const text = `#!/bin/sh
printf 'X-Accel-Redirect: /file\\n\\nsome of a body'
n=0
while [ ! -e ${files.dir}/sent ] && [ $n -lt 500 ]; do sleep 0.02; n=$((n + 1)); done
[ $n -lt 500 ] && : > ${files.dir}/after
`;
  await Deno.writeTextFile(script, text, { mode: 0o755 });
  using gateway = cgiGateway({ script, sendFile: files.option() });
  const response = await gateway(new Request(origin));
  assertEquals(await response.text(), CONTENT);
  Deno.writeTextFileSync(`${files.dir}/sent`, "");
  for (let n = 0; n < 1000; n++) {
    if ([...Deno.readDirSync(files.dir)].some(({ name }) => name === "after")) return;
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  assert(false, "the script has ended early");
});

Deno.test("fetchCGI() sends the file that a script names", async () => {
  using files = new Files();
  const script = `${files.dir}/script`;
  const text = "#!/bin/sh\nprintf 'X-Accel-Redirect: /file\\n\\n'\n";
  await Deno.writeTextFile(script, text, { mode: 0o755 });
  const response = await fetchCGI(origin, { script, sendFile: files.option() });
  assertEquals(await response.text(), CONTENT);
});

Deno.test("sendFile: a location that is no path is an error", () => {
  const serve = () => new Response();
  for (const location of ["files", "", "/a/../b", "/."] as `/${string}`[]) {
    assertThrows(
      () => cgiGateway({ script: "/x", sendFile: { root: "/srv", location, serve } }),
      TypeError,
      `the location of sendFile must be a path such as "/files": current value is "${location}"`,
    );
  }
});

Deno.test("sendFile: without a function it is an error", () => {
  const sendFile = { root: "/srv" } as SendFileOptions;
  assertThrows(
    () => cgiGateway({ script: "/x", sendFile }),
    TypeError,
    "sendFile.serve must be a function: current value is undefined",
  );
});
