/** The ambiguous requests of tests/testing/smuggling.ts, through each gateway (rule F2). */
import { assert, assertEquals } from "@std/assert";
import { serveFastCGI } from "../../fastcgi.ts";
import { cgiGateway, fastCGIGateway, type Gateway, scgiGateway } from "../../gateway.ts";
import { serveHTTP } from "../../http.ts";
import { serveSCGI } from "../../scgi.ts";
import { Observer, smuggle } from "../testing/smuggling.ts";

const log = () => {};
const local = () => Deno.listen({ hostname: "127.0.0.1", port: 0 });
const portOf = (addr: Deno.Addr) => (addr as Deno.NetAddr).port;

/** Sends all cases through a gateway, and checks that it serves the ordinary request. */
async function through(gateway: Gateway, observer: Observer): Promise<void> {
  await using front = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen() {} }, gateway);
  assertEquals(await smuggle(front.addr.port, observer), []);
  assertEquals(observer.seen.filter(({ path }) => path.endsWith("-0")), [
    { path: "/a-0", body: "hello" },
    { path: "/b-0", body: "" },
  ]);
}

Deno.test("no request is smuggled through fastCGIGateway()", async () => {
  const observer = new Observer();
  await using server = serveFastCGI(observer.app, local(), { log });
  using gateway = fastCGIGateway(`127.0.0.1:${portOf(server.addr)}`, { log });
  await through(gateway, observer);
});

Deno.test("no request is smuggled through scgiGateway()", async () => {
  const observer = new Observer();
  await using server = serveSCGI(observer.app, local(), { log });
  using gateway = scgiGateway(`127.0.0.1:${portOf(server.addr)}`, { log });
  await through(gateway, observer);
});

Deno.test("no request is smuggled through cgiGateway()", async () => {
  const root = await Deno.makeTempDir();
  const observer = new Observer();
  try {
    // Writes the body to a file, and responds with its length.
    const text = `#!/bin/sh
file=$(mktemp ${root}/seen.XXXXXX)
head -c "\${CONTENT_LENGTH:-0}" > "$file"
mv "$file" "$file.$(echo "$PATH_INFO" | tr / _)"
echo "Content-Type: text/plain"; echo
printf '<%s %s>' "$PATH_INFO" "\${CONTENT_LENGTH:-0}"
`;
    await Deno.writeTextFile(`${root}/script`, text, { mode: 0o755 });
    await Deno.chmod(`${root}/script`, 0o755);
    using gateway = cgiGateway({ script: `${root}/script`, maxProcesses: 200, log });
    // The files are complete only after the responses.
    const collect = new Proxy(observer, {
      get: (target, name) => name === "seen" ? seenIn(root) : Reflect.get(target, name),
    });
    await through(gateway, collect);
  } finally {
    await Deno.remove(root, { recursive: true });
  }
});

/** Returns the requests that the script received, sorted by path. */
function seenIn(root: string): Observer["seen"] {
  return [...Deno.readDirSync(root)]
    .filter(({ name }) => /^seen\.\w+\._[ab]-/.test(name))
    .map(({ name }) => ({
      path: name.replace(/^seen\.\w+\._/, "/"),
      body: Deno.readTextFileSync(`${root}/${name}`),
    }))
    .sort((a, b) => a.path < b.path ? -1 : 1);
}

Deno.test("no request is smuggled past serveHTTP()", async () => {
  const observer = new Observer();
  const options = { hostname: "127.0.0.1", port: 0, onListen() {}, log };
  await using server = serveHTTP(observer.app, options);
  assertEquals(await smuggle(portOf(server.addr), observer), []);
  assert(observer.seen.length > 5);
});
