import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { fetchFastCGI } from "../../gateway.ts";
import { type Ended, runCommandLine, startServe } from "../testing/command_line.ts";
import { ROOT } from "../testing/daemon.ts";
import { deadline } from "../testing/deadline.ts";

const IMPORT = `import { serve } from "${ROOT}mod.ts";\n`;
const FLAGS = ["--allow-read", "--allow-env", "--allow-net=127.0.0.1"];

/** Writes a module into a new folder, uses it, and removes the folder. */
async function withModule(
  name: string,
  source: string,
  use: (path: string, folder: string) => Promise<void>,
): Promise<void> {
  const folder = await Deno.makeTempDir();
  try {
    await Deno.writeTextFile(`${folder}/${name}`, source);
    await use(`${folder}/${name}`, folder);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

function check(module: string, flags = FLAGS): Promise<Ended> {
  return deadline(runCommandLine(["serve", module, "--check"], flags), "the check", 30_000);
}

const CALLS: Record<string, string> = {
  "awaits serve()": `await serve(() => new Response());`,
  "awaits serve() and does not let the error pass":
    `try { await serve(() => new Response()); } catch {}`,
  "calls serve()": `serve(() => new Response());`,
  "calls serve() with an app that it exports": `export default () => new Response();
await serve(() => new Response());`,
};
for (const [name, source] of Object.entries(CALLS)) {
  Deno.test(`serve says what to write in a module that ${name}`, async () => {
    await withModule("app.ts", IMPORT + source, async (module) => {
      for (const more of [["--check"], ["-p", "http", "-l", "127.0.0.1:0"]]) {
        const ended = runCommandLine(["serve", module, ...more], FLAGS);
        const { code, stderr } = await deadline(ended, "the command line", 30_000);
        assertEquals(
          stderr,
          `${module} calls serve() itself, so this command cannot serve its app. Instead of serve(app), write:

  export default app;
  if (import.meta.main) await serve(app);
`,
        );
        assertEquals(code, 2);
      }
    });
  });
}

Deno.test("serve says what to export of an object such as a Hono app", async () => {
  await withModule(
    "app.ts",
    `${IMPORT}await serve({ fetch: () => new Response() });`,
    async (module) => {
      const { stderr } = await check(module);
      assertStringIncludes(
        stderr,
        "\n  export default app.fetch;\n  if (import.meta.main) await serve(app);\n",
      );
    },
  );
});

Deno.test("serve serves the app of a module that calls serve() besides, as the command line says", async () => {
  const source = `${IMPORT}const app = () => new Response("once");
export default app;
serve(app, { port: 0 });
setTimeout(() => serve(app, { port: 0 }), 0);
addEventListener("unhandledrejection", () => console.error("rejected"));`;
  await withModule("app.ts", source, async (module) => {
    await using daemon = startServe(module, [], FLAGS);
    await daemon.says("Serving ");
    await daemon.says("calls serve() itself, which has no effect under this command");
    const address = / on (127\S+)/.exec(daemon.log)![1];
    const response = await fetchFastCGI("http://localhost/", address);
    assertEquals(await response.text(), "once");
    assertEquals((await daemon.stop()).code, 0);
    await daemon.ended;
    assert(!daemon.log.includes("Listening"), daemon.log);
  });
});

const LISTENERS: Record<string, [source: string, by: RegExp, line: string]> = {
  "Deno.serve": [
    `Deno.serve({ hostname: "127.0.0.1", port: 0 }, () => new Response());`,
    /with Deno\.serve\(\) on 127\.0\.0\.1:\d+\./,
    "if (import.meta.main) Deno.serve(app);",
  ],
  "Deno.serve, and waits for its end": [
    `await Deno.serve({ hostname: "127.0.0.1", port: 0 }, () => new Response()).finished;
export default () => new Response();`,
    /with Deno\.serve\(\) on 127\.0\.0\.1:\d+\./,
    "export default app;",
  ],
  "Deno.serve without the permission": [
    `Deno.serve({ hostname: "192.0.2.1", port: 9 }, () => new Response());`,
    /with Deno\.serve\(\)\./,
    "export default app;",
  ],
  "serveFastCGI()": [
    `import { listen, serveFastCGI } from "${ROOT}fastcgi.ts";
serveFastCGI(() => new Response(), await listen("127.0.0.1:0"));`,
    /with Deno\.listen\(\) on 127\.0\.0\.1:\d+\./,
    "export default app;",
  ],
  "a server of Node": [
    `import { createServer } from "node:http";
export const server = createServer((_, response) => response.end());
server.listen(0, "127.0.0.1");`,
    /with listen\(\) of a Node server on 127\.0\.0\.1:\d+\./,
    "const handle = connectToWeb(listener); // what createServer() was given",
  ],
  "srvx's serve()": [
    `import { serve } from "npm:srvx@1.0.8";
export default serve({ fetch: () => new Response(), hostname: "127.0.0.1", port: 0 });`,
    /It exports default \(a server with fetch\)\. It listens by itself, with Deno\.serve\(\)/,
    "export default app;",
  ],
};
for (const [name, [source, by, line]] of Object.entries(LISTENERS)) {
  Deno.test(`serve says what to write in a module that listens by itself, with ${name}`, async () => {
    await withModule("app.ts", source, async (module) => {
      const { code, stderr } = await check(module);
      assert(by.test(stderr), stderr);
      assertStringIncludes(stderr, `\n  ${line}`);
      assertEquals(code, 2);
    });
  });
}

Deno.test("serve names what SvelteKit builds beside a module that listens by itself", async () => {
  const source = `import { createServer } from "node:http";
createServer().listen(0, "127.0.0.1");`;
  await withModule("package.json", "{}", async (_, folder) => {
    const module = `${folder}/build/index.js`;
    await Deno.mkdir(`${folder}/build/server`, { recursive: true });
    await Deno.writeTextFile(module, source);
    await Deno.writeTextFile(`${folder}/build/handler.js`, "");
    const { stderr: old } = await check(module);
    // The next build empties its folder.
    assertStringIncludes(old, `Save these lines as ${folder}/gatehouse.ts, and serve that:`);
    assertStringIncludes(old, `\n  import { handler } from "./build/handler.js";\n`);
    assertStringIncludes(old, `"@universal-middleware/express"; // after: deno add npm:`);

    await Deno.writeTextFile(`${folder}/build/server/server.js`, "");
    const { stderr } = await check(module);
    assertStringIncludes(stderr, `\n  import { server } from "./build/server/server.js";\n`);
  });
});

Deno.test("serve names the preset for a module that Nitro built to listen", async () => {
  await withModule("package.json", "{}", async (_, folder) => {
    await Deno.mkdir(`${folder}/.output/server`, { recursive: true });
    const module = `${folder}/.output/server/index.mjs`;
    await Deno.writeTextFile(
      module,
      `import { createServer } from "node:http"; createServer().listen(0, "127.0.0.1");`,
    );
    const { stderr } = await check(module);
    assertStringIncludes(stderr, "Build it with the preset standard of Nitro 3, or with");
  });
});

Deno.test("serve serves an app whose module has another server, and says so", async () => {
  const source =
    `Deno.serve({ hostname: "127.0.0.1", port: 0, onListen() {} }, () => new Response());
export default () => new Response();`;
  await withModule("app.ts", source, async (module) => {
    const { code, stdout, stderr } = await check(module);
    assertStringIncludes(
      stderr,
      `${module} also listens by itself, with Deno.serve() on 127.0.0.1:`,
    );
    assertEquals([code, stdout], [0, `${module} is an app\n`]);
  });
});

const NAMED: Record<string, string> = {
  "fetch": `export const fetch = (_: Request) => new Response("ok");`,
  "handler": `export function handler(_request: Request) { return new Response("ok"); }`,
  "handler, an object": `export const handler = { fetch: () => new Response("ok") };`,
  "fetch, and another server's handler": `export const fetch = () => new Response("ok");
export const handler = (req: unknown, res: { end(): void }) => void [req, res.end()];`,
};
for (const [name, source] of Object.entries(NAMED)) {
  Deno.test(`serve serves the app of a module that exports ${name}`, async () => {
    await withModule("app.ts", source, async (module) => {
      await using daemon = startServe(module);
      await daemon.says(" on ", 1, 30_000);
      const address = / on (127\S+)/.exec(daemon.log)![1];
      const response = fetchFastCGI("http://localhost/", address);
      assertEquals(await (await deadline(response, "the response")).text(), "ok");
    });
  });
}

/** The lines after that of the bridge. */
const BRIDGED = [
  "export default async (request: Request) =>",
  "  await handle(request) ?? new Response(null, { status: 404 });",
];

/** Modules of other shapes: what is said of their exports, and which lines make an app of them. */
const SHAPES: Record<string, [name: string, source: string, found: string, lines: string[]]> = {
  "{ handler }": [
    "app.ts",
    `export default { text: "ok", handler(_request: Request) { return new Response(this.text); } };`,
    "default (an object with text, handler)",
    [
      `import found from "./app.ts";`,
      "export default (request: Request) => found.handler(request);",
    ],
  ],
  "a named function": [
    "app.ts",
    `export const prerender = true;
export function handle(_request: Request) { return new Response("ok"); }`,
    "handle (a function), prerender (of type boolean)",
    [`import { handle } from "./app.ts";`, "export default handle;"],
  ],
  "a handler of events": [
    "app.ts",
    `export const handler = (_event: unknown) => new Response("ok");`,
    "handler (a function)",
    [`import { handler } from "./app.ts";`, "export default handler;"],
  ],
  "a named app": [
    "app.ts",
    `export const site = { fetch: () => new Response("ok") };`,
    "site (an object with fetch)",
    [`import { site } from "./app.ts";`, "export default site;"],
  ],
  "a function of Node": [
    "app.js",
    `export default (req, res) => res.end("ok");`,
    "default (a function of Node's request and response)",
    [
      `import { connectToWeb } from "npm:@universal-middleware/express@0.6";`,
      `import found from "./app.js";`,
      "const handle = connectToWeb(found);",
      ...BRIDGED,
    ],
  ],
  "an app of Connect": [
    "app.js",
    `export const app = function (a, b, next) { b.end("ok"); };`,
    "app (a function of Node's request and response)",
    [
      `import { connectToWeb } from "npm:@universal-middleware/express@0.6";`,
      `import { app } from "./app.js";`,
      "const handle = connectToWeb(app);",
      ...BRIDGED,
    ],
  ],
  "an app of Koa": [
    "app.js",
    `export default { listen() {}, callback: () => (req, res) => res.end("ok") };`,
    "default (a Koa app)",
    [
      `import { connectToWeb } from "npm:@universal-middleware/express@0.6";`,
      `import found from "./app.js";`,
      "const handle = connectToWeb(found.callback());",
      ...BRIDGED,
    ],
  ],
  "a factory": [
    "app.ts",
    `export default async function createApp() { return { fetch: () => new Response("ok") }; }`,
    "default (a function that creates an app)",
    [`import found from "./app.ts";`, "export default await found();"],
  ],
  "a named factory": [
    "app.ts",
    `export const makeServer = () => () => new Response("ok");`,
    "makeServer (a function that creates an app)",
    [`import { makeServer } from "./app.ts";`, "export default await makeServer();"],
  ],
  "a class": [
    "app.ts",
    `export default class App { fetch() { return new Response("ok"); } }`,
    "default (a class)",
    [`import found from "./app.ts";`, "export default new found();"],
  ],
  "a default of CommonJS": [
    "app.cjs",
    `Object.defineProperty(exports, "__esModule", { value: true });
exports.default = { fetch: () => new Response("ok") };`,
    "default (an object with default)",
    [`import found from "./app.cjs";`, "export default found.default;"],
  ],
  "a handler of CommonJS": [
    "app.cjs",
    `module.exports = { port: 3000, handler: () => new Response("ok") };`,
    "default (an object with port, handler)",
    [
      `import found from "./app.cjs";`,
      "export default (request: Request) => found.handler(request);",
    ],
  ],
};
for (const [shape, [name, source, found, lines]] of Object.entries(SHAPES)) {
  Deno.test(`serve says how to make an app of a module that exports ${shape}`, async () => {
    await withModule(name, source, async (module, folder) => {
      const { code, stderr } = await check(module);
      assertStringIncludes(stderr, "must export an app as its default");
      assertStringIncludes(stderr, `It exports ${found}`);
      const wrapped = `${folder}/gatehouse.ts`;
      const text = lines.join("\n");
      assertStringIncludes(
        stderr,
        `Save these lines as ${wrapped}, and serve that:\n\n  ${text.replaceAll("\n", "\n  ")}\n`,
      );
      assertEquals(code, 2);
      await Deno.writeTextFile(wrapped, text);
      await using daemon = startServe(wrapped, [], ["--allow-all"]);
      await daemon.says(" on ", 1, 30_000);
      const address = / on (127\S+)/.exec(daemon.log)![1];
      const response = fetchFastCGI("http://localhost/", address);
      assertEquals(await (await deadline(response, "the response")).text(), "ok");
    });
  });
}

Deno.test("serve says how to make an app of what React Router builds", async () => {
  const source = "export const entry = {}, routes = {}, assets = {};";
  await withModule("index.js", source, async (module) => {
    const { stderr } = await check(module);
    assertStringIncludes(
      stderr,
      `
  import { createRequestHandler } from "react-router";
  import * as build from "./index.js";
  const handle = createRequestHandler(build);
  export default (request: Request) => handle(request);
`,
    );
  });
});

const NONE: [source: string, found: string][] = [
  ["", "It exports nothing."],
  ["export default 5;", "It exports default (of type number)."],
  ["export const a = null, b = {};", "It exports a (null), b (an object)."],
  [
    "export const a = 1, b = 1, c = 1, d = 1, e = 1, f = 1, g = 1, h = 1, i = 1, j = 1;",
    "h (of type number) and 2 more.",
  ],
];
for (const [source, found] of NONE) {
  Deno.test(`serve names the exports of a module without an app: ${found}`, async () => {
    await withModule("app.ts", source, async (module) => {
      const { code, stderr } = await check(module);
      assertStringIncludes(stderr, found);
      assertEquals(code, 2);
    });
  });
}

/** Defaults that are apps, though they look like something else. */
const APPS: [name: string, source: string][] = [
  ["a function without parameters", "export default () => new Response();"],
  ["a function of a request and its info", "export default (req, info) => new Response(info.log);"],
  [
    "a function with the name of a factory",
    "export default function createApp(request) { return new Response(request.url); }",
  ],
  ["an object with fetch and more", "export default { port: 3000, fetch: () => new Response() };"],
  ["a bound function", "export default (function () { return new Response(); }).bind(null);"],
  ["a module of CommonJS", "module.exports = () => new Response();"],
];
for (const [name, source] of APPS) {
  Deno.test(`serve takes ${name} for an app`, async () => {
    const file = source.startsWith("module") ? "app.cjs" : "app.js";
    await withModule(file, source, async (module) => {
      const { code, stderr } = await check(module);
      assertEquals([code, stderr], [0, ""]);
    });
  });
}

Deno.test("serve leaves it to Deno to end a module that waits for nothing", async () => {
  await withModule("app.ts", "await new Promise(() => {});", async (module) => {
    const { code, stderr } = await check(module);
    assertStringIncludes(stderr, "Top-level await promise never resolved");
    assertEquals(code, 1);
  });
});
