import { assertEquals } from "@std/assert";
import { Hono } from "hono";
import { serveFastCGI } from "../fastcgi.ts";
import { cgiGateway, fastCGIGateway, scgiGateway } from "../gateway.ts";
import { serveSCGI } from "../scgi.ts";

const listen = () => Deno.listen({ hostname: "127.0.0.1", port: 0 });
const addressOf = (addr: Deno.Addr) => `127.0.0.1:${(addr as Deno.NetAddr).port}`;
const NAMES = ["SCRIPT_NAME", "PATH_INFO", "REMOTE_ADDR", "REMOTE_USER"];

Deno.test("gateways of every kind compose in Hono, behind its middleware", async () => {
  const root = Deno.makeTempDirSync({ prefix: "gatehouse" });
  Deno.chmodSync(root, 0o755);
  Deno.writeTextFileSync(
    `${root}/a.cgi`,
    `#!/bin/sh\necho "Content-Type: text/plain"; echo
printf '%s' "$SCRIPT_NAME $PATH_INFO $REMOTE_ADDR $REMOTE_USER"; cat\n`,
  );
  Deno.chmodSync(`${root}/a.cgi`, 0o755);
  const app = async (request: Request, info: { variables: ReadonlyMap<string, string> }) =>
    new Response(
      NAMES.map((name) => info.variables.get(name)).join(" ") + await request.text(),
    );
  try {
    await using fastcgi = serveFastCGI(app, listen());
    await using scgi = serveSCGI(app, listen());
    const users = new WeakMap<Request, string>();
    const options = {
      variables: (request: Request) => ({ REMOTE_USER: users.get(request) ?? "" }),
    };
    using scripts = cgiGateway({ ...options, root, basePath: "/cgi-bin" });
    using first = fastCGIGateway(addressOf(fastcgi.addr), { ...options, basePath: "/first" });
    using second = scgiGateway(addressOf(scgi.addr), { ...options, basePath: "/second" });
    const front = new Hono<{ Bindings: Deno.ServeHandlerInfo }>();
    front.use(async (c, next) => {
      users.set(c.req.raw, "ann");
      await next();
      c.header("X-Front", "1");
    });
    front.all("/cgi-bin/*", (c) => scripts(c.req.raw, c.env));
    front.all("/first/*", (c) => first(c.req.raw, c.env));
    front.all("/second/*", (c) => second(c.req.raw, c.env));
    await using server = Deno.serve(
      { hostname: "127.0.0.1", port: 0, onListen() {} },
      front.fetch,
    );
    const base = `http://127.0.0.1:${server.addr.port}`;
    const expected = {
      "/cgi-bin/a.cgi/x": "/cgi-bin/a.cgi /x 127.0.0.1 ann",
      "/first/x/y": "/first /x/y 127.0.0.1 ann",
      "/second/x": "/second /x 127.0.0.1 ann",
    };
    for (const [path, text] of Object.entries(expected)) {
      const response = await fetch(base + path, { method: "POST", body: "!" });
      assertEquals([await response.text(), response.headers.get("x-front")], [text + "!", "1"]);
    }
    assertEquals((await fetch(`${base}/cgi-bin/none`)).status, 404);
  } finally {
    await Deno.remove(root, { recursive: true });
  }
});
