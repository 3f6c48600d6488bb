/** The option `sendFile` and nginx in front of the same application: the same files and fields (rule B24). */
import { assertEquals } from "@std/assert";
import { serveFastCGI } from "../../fastcgi.ts";
import { fastCGIGateway } from "../../gateway.ts";
import { request } from "./client.ts";
import { serve } from "./gateway_server.ts";
import { Suite } from "./harness.ts";
import { nginxCommand } from "./nginx.ts";

/** What the application sends, by the path of the request. */
const RESPONSES: Record<string, { status?: number; headers: Record<string, string> }> = {
  "/fields": {
    status: 404,
    headers: {
      "X-Accel-Redirect": "/files/file",
      "Cache-Control": "private",
      "Content-Disposition": "attachment",
      "Content-Type": "text/x-own",
      Expires: "Thu, 01 Jan 2026 00:00:00 GMT",
      "Set-Cookie": "a=1",
      "X-Other": "1",
      "Content-Language": "de",
      Link: "</a>; rel=next",
      ETag: '"own"',
    },
  },
  "/plain": { headers: { "Content-Type": "text/plain", "X-Accel-Redirect": "/files/file" } },
  "/encoded": { headers: { "Content-Type": "text/plain", "X-Accel-Redirect": "/files/a%20b" } },
  "/query": { headers: { "Content-Type": "text/plain", "X-Accel-Redirect": "/files/file?x=1" } },
  "/missing": { headers: { "Content-Type": "text/plain", "X-Accel-Redirect": "/files/none" } },
};

const both = new Suite("sendFile", { nginx: "nginx-light" }, async (rig) => {
  rig.write("files/file", "0123456789");
  rig.write("files/a b", "a b");
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const app = rig.use(
    Object.assign(
      serveFastCGI((request) => {
        const { status, headers } = RESPONSES[new URL(request.url).pathname];
        return new Response("the body of the application", { status, headers });
      }, listener),
      { [Symbol.dispose]: () => void app.shutdown() },
    ),
  );
  const address = `127.0.0.1:${listener.addr.port}` as const;
  const { port } = await rig.serve("nginx", ["port"], ({ port }) =>
    nginxCommand(rig, [`
server {
  listen 127.0.0.1:${port};
  location / { include fastcgi_params; fastcgi_pass ${address}; }
  location /files/ { internal; alias ${rig.dir}/files/; }
}`]));
  const gateway = fastCGIGateway(address, {
    sendFile: {
      root: `${rig.dir}/files`,
      location: "/files",
      // As plain as can be: the fields of the file itself are not compared.
      serve: async (_request, path) => new Response((await Deno.open(path)).readable),
    },
    log: () => {},
  });
  return { nginx: `127.0.0.1:${port}`, gateway: serve(gateway) };
});

/** Fields of the server, of the connection, and of the file itself. */
const OWN = [
  ...["connection", "date", "server", "content-length", "transfer-encoding"],
  ...["accept-ranges", "etag", "last-modified", "vary"],
];

for (const path of Object.keys(RESPONSES)) {
  for (const method of ["GET", "HEAD", "POST"]) {
    both.test(`${method} ${path} is as with nginx`, async ({ nginx, gateway }) => {
      const get = async (host: string) => {
        const body = method === "POST" ? new TextEncoder().encode("form") : undefined;
        const { status, head, text } = await request(host, method, path, { body });
        // A page of nginx about an error is another one.
        if (status >= 300) return { status };
        const fields = head.fields.filter(([name]) => !OWN.includes(name));
        return { status, text, fields: fields.map((field) => field.join(": ")).sort() };
      };
      assertEquals(await get(gateway), await get(nginx));
    });
  }
}
