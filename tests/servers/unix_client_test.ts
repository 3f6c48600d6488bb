/** What web servers send as REMOTE_ADDR for a client on a Unix socket, such as a proxy in front (rule A30). */
import { assertEquals } from "@std/assert";
import { serveFastCGI } from "../../fastcgi.ts";
import { deadline } from "../testing/deadline.ts";
import { caddyCommand, caddyOptions } from "./caddy.ts";
import { eventually, type Rig, Suite } from "./harness.ts";
import { nginxCommand } from "./nginx.ts";

/** How a server is started: it listens on a Unix socket and passes requests to a port. */
interface WebServer {
  /** What it needs, each with the package that installs it. */
  needs: Record<string, string>;
  /** Returns its command line. */
  command(rig: Rig, socket: string, port: number): [command: string, args: string[]];
  /** What it sends, given the path of its socket. */
  remoteAddr(socket: string): string;
}

const SERVERS: Record<string, WebServer> = {
  nginx: {
    needs: { nginx: "nginx-light", "/etc/nginx/fastcgi_params": "nginx-common" },
    command: (rig, socket, port) =>
      nginxCommand(rig, [
        `server { listen unix:${socket}; include fastcgi_params; location / { fastcgi_pass 127.0.0.1:${port}; } }`,
      ]),
    remoteAddr: () => "unix:",
  },
  lighttpd: {
    needs: { lighttpd: "lighttpd" },
    command: (rig, socket, port) => [
      "lighttpd",
      [
        "-D",
        "-f",
        rig.write(
          "lighttpd.conf",
          `server.document-root = "${rig.dir}"
server.bind = "${socket}"
server.modules = ("mod_fastcgi")
fastcgi.server = ("/" => (("host" => "127.0.0.1", "port" => ${port}, "check-local" => "disable")))
`,
        ),
      ],
    ],
    remoteAddr: (socket) => socket,
  },
  caddy: {
    needs: { caddy: "caddy" },
    command: (rig, socket, port) =>
      caddyCommand(rig, [
        `http:// {
  bind unix/${socket}
  reverse_proxy 127.0.0.1:${port} {
    transport fastcgi
  }
}`,
      ]),
    remoteAddr: () => "@",
  },
  haproxy: {
    needs: { haproxy: "haproxy" },
    command: (rig, socket, port) => [
      "haproxy",
      [
        "-db",
        "-f",
        rig.write(
          "haproxy.cfg",
          `defaults
  mode http
  timeout client 30s
  timeout server 30s
  timeout connect 30s
frontend front
  bind unix@${socket}
  default_backend app
backend app
  use-fcgi-app app
  server app 127.0.0.1:${port} proto fcgi
fcgi-app app
  docroot ${rig.dir}
`,
        ),
      ],
    ],
    remoteAddr: () => "unix",
  },
  h2o: {
    needs: { h2o: "h2o" },
    command: (rig, socket, port) => [
      "h2o",
      [
        "-m",
        "worker",
        "-c",
        rig.write(
          "h2o.yaml",
          `${Deno.uid() === 0 ? "user: root" : ""}
listen: { type: unix, port: ${socket} }
hosts:
  default:
    paths:
      /:
        fastcgi.connect: { host: 127.0.0.1, port: ${port}, type: tcp }
`,
        ),
      ],
    ],
    remoteAddr: () => "localhost",
  },
};

async function isListening(path: string): Promise<boolean> {
  try {
    (await Deno.connect({ transport: "unix", path })).close();
    return true;
  } catch {
    return false;
  }
}

for (const [name, { needs, command, remoteAddr }] of Object.entries(SERVERS)) {
  const suite = new Suite(name, needs, async (rig) => {
    const server = serveFastCGI(
      (request, info) => Response.json([request.url, info.variables.get("REMOTE_ADDR")]),
      Deno.listen({ hostname: "127.0.0.1", port: 0 }),
      { trustForwarded: ["unix"] },
    );
    rig.use({ [Symbol.dispose]: () => void server.shutdown() });
    const socket = `${rig.dir}/${name}.sock`;
    const { port } = server.addr as Deno.NetAddr;
    const options = name === "caddy" ? caddyOptions(rig) : {};
    rig.spawn(name, ...command(rig, socket, port), options);
    await eventually(`${name} listens`, () => isListening(socket));
    return socket;
  });
  suite.test('trustForwarded: ["unix"] trusts a client on a Unix socket (rules A7, A30)', async (path) => {
    using client = Deno.createHttpClient({ proxy: { transport: "unix", path } });
    const headers = {
      "x-forwarded-proto": "https",
      "x-forwarded-host": "www.example",
      // Caddy removes those of a client that is not one of its trusted_proxies.
      forwarded: "proto=https;host=www.example",
    };
    const response = fetch("http://example.org/a", { client, headers });
    assertEquals(await (await deadline(response, "the response")).json(), [
      "https://www.example/a",
      remoteAddr(path),
    ]);
  });
}
