/** Clients that leave while a response streams: nothing is printed past the option `log`, nor to it. */
import { assertEquals } from "@std/assert";
import { Daemon, ROOT } from "../testing/daemon.ts";
import { deadline } from "../testing/deadline.ts";

/** Serves a gateway before an application whose response never ends. Says so when a client has left. */
const PROGRAM = `
import { serveFastCGI } from "${ROOT}fastcgi.ts";
import { cgiGateway, fastCGIGateway, scgiGateway } from "${ROOT}gateway.ts";
import { serveSCGI } from "${ROOT}scgi.ts";

const [kind, script] = Deno.args;
function app() {
  let timer;
  const body = new ReadableStream({
    start: (controller) => {
      timer = setInterval(() => controller.enqueue(new TextEncoder().encode("part\\n")), 5);
    },
    cancel: () => clearInterval(timer),
  });
  return new Response(body, { headers: { "content-type": "text/plain" } });
}
const log = (line) => console.error("logged", line);
const listen = () => Deno.listen({ hostname: "127.0.0.1", port: 0 });
const gateways = {
  cgi: () => cgiGateway({ script, bufferBody: false, log }),
  fastcgi: () => fastCGIGateway("127.0.0.1:" + serveFastCGI(app, listen()).addr.port, { log }),
  scgi: () => scgiGateway("127.0.0.1:" + serveSCGI(app, listen()).addr.port, { log }),
};
const gateway = gateways[kind]();
Deno.serve({
  hostname: "127.0.0.1",
  port: 0,
  onListen: ({ port }) => console.error("port", port, "."),
}, (request, info) => {
  const left = () => setTimeout(() => console.error("left"));
  info.completed.then(left, left);
  // Without \`info\` the gateway looks at the signal from the start.
  return gateway(request);
});
`;

const SCRIPT = `#!/bin/sh
echo "Content-Type: text/plain"; echo
while echo part; do sleep 0.01; done
`;

const GET = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
const POST = "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\npart";

for (const kind of ["cgi", "fastcgi", "scgi"]) {
  Deno.test(`a client that leaves ${kind}Gateway() leaves no line behind`, async () => {
    const folder = await Deno.makeTempDir();
    try {
      const [program, script] = [`${folder}/program.ts`, `${folder}/script`];
      await Deno.writeTextFile(program, PROGRAM);
      await Deno.writeTextFile(script, SCRIPT, { mode: 0o755 });
      // Else Deno prints a notice about signals.
      const flags = ["--no-check", "--allow-all", "--unstable-no-legacy-abort"];
      await using daemon = new Daemon([...flags, program, kind, script], {
        env: { NO_COLOR: "1" },
      });
      await daemon.says(" .");
      const port = Number(/port (\d+)/.exec(daemon.log)![1]);
      const requests = [GET, GET, POST, POST];
      for (const [i, request] of requests.entries()) {
        const client = await Deno.connect({ hostname: "127.0.0.1", port });
        await client.write(new TextEncoder().encode(request));
        let seen = "";
        const buffer = new Uint8Array(1000);
        while (!seen.includes("part")) {
          const count = await deadline(client.read(buffer), "the response");
          seen += new TextDecoder().decode(buffer.subarray(0, count!));
        }
        client.close();
        await daemon.says("left", i + 1);
      }
      await daemon.stop();
      await daemon.ended;
      const lines = daemon.log.split("\n").filter((line) => !/^(?:port .*|left|)$/.test(line));
      assertEquals(lines, []);
    } finally {
      await Deno.remove(folder, { recursive: true });
    }
  });
}
