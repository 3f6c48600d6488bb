/**
 * Captures the bytes that the installed web servers send to an application: `deno task capture`, or `deno task capture
 * nginx` for one server. Each server runs on loopback with the configuration of docs/servers.md, as in tests/servers/.
 * A listener sends the same small response to each request and writes the received bytes to tests/testdata/.
 *
 * @module
 */

import { apacheConfig } from "../tests/servers/apache.ts";
import { Client } from "../tests/servers/client.ts";
import { configuration, Rig, snippet, within } from "../tests/servers/harness.ts";
import { nginxCommand } from "../tests/servers/nginx.ts";
import { bytes, concat, text } from "../tests/testing/bytes.ts";
import {
  bodyOf,
  type Capture,
  type CaptureIndex,
  type SentRequest,
  TESTDATA,
} from "../tests/testing/captures.ts";
import {
  endRequest,
  firstRecord,
  nameValuePairs,
  record,
  stream,
  streamEnd,
  Type,
} from "../tests/testing/fastcgi_records.ts";
import { find } from "../tests/testing/needs.ts";

const HOST: [string, string] = ["Host", "example.org"];
const FORM: [string, string] = ["Content-Type", "application/x-www-form-urlencoded"];
const BINARY: [string, string] = ["Content-Type", "application/octet-stream"];

const GET: SentRequest = {
  method: "GET",
  target: "/users/7?a=1&b=two%20words&a=2",
  headers: [
    HOST,
    ["User-Agent", "capture/1.0"],
    ["Accept", "text/html, */*;q=0.1"],
    ["Accept-Language", "de, en;q=0.5"],
    ["Cookie", "session=abc; theme=dark"],
    ["X-Tag", "one"],
    ["X-Tag", "two"],
    ["X-Empty", ""],
  ],
};
const POST: SentRequest = {
  method: "POST",
  target: "/form",
  headers: [HOST, FORM],
  body: "name=Ann&color=blue",
};

/** The requests that the client sends over one connection, by the name of the file. */
const KINDS = {
  get: [GET],
  post: [POST],
  chunked: [{ ...POST, target: "/chunked", chunked: true }],
  large: [{ method: "POST", target: "/large", headers: [HOST, BINARY], body: 66_000 }],
  // Longer than what nginx and mod_proxy_fcgi read ahead: of a shorter body they send the length.
  streamed: [{
    ...POST,
    target: "/streamed",
    headers: [HOST, BINARY],
    body: 20_000,
    chunked: true,
  }],
  head: [{ method: "HEAD", target: "/head", headers: [HOST] }],
  path: [{ method: "GET", target: "/caf%C3%A9/%E2%82%AC%20x?q=%C3%BC", headers: [HOST] }],
  long: [{
    method: "GET",
    target: "/long",
    headers: [HOST, ["X-Long", "0123456789".repeat(500)]],
  }],
  keep: [GET, POST],
} satisfies Record<string, SentRequest[]>;

type Kind = keyof typeof KINDS;
/** The kinds that are captured on each route. A large body and a kept connection are captured on some. */
const USUAL: Kind[] = ["get", "post", "chunked", "head", "path", "long"];

/** A way from a web server to an application. */
interface Route {
  /** The beginning of the names of the files. */
  name: string;
  protocol: Capture["protocol"];
  sender: string;
  kinds: Kind[];
  /** The port that the web server listens on. */
  port: number;
}

interface WebServer {
  /** The program. */
  command: string;
  /** The arguments with which it prints its version. */
  version: string[];
  /** Starts the server with routes to the listeners. */
  start(rig: Rig, fastcgi: string, scgi: string): Promise<Route[]>;
}

const ENV = { PATH: "/usr/local/bin:/usr/bin:/bin" };
const ROOT = "/srv/www";

const SERVERS: Record<string, WebServer> = {
  nginx: {
    command: "nginx",
    version: ["-v"],
    async start(rig, fastcgi, scgi) {
      const port = await rig.serve("nginx", ["stock", "keep", "scgi"], (port) => {
        const server = (port: number, location: string) =>
          `server { listen 127.0.0.1:${port}; root ${ROOT}; ${location} }`;
        return nginxCommand(rig, [
          server(port.stock, snippet("nginx", "stock", { "unix:/run/app.sock": fastcgi })),
          configuration(
            ..."nginx --name scgi --protocol scgi --backend".split(" "),
            scgi,
            "--listen",
            `127.0.0.1:${port.scgi}`,
          ).replace("client_max_body_size 20m;", `root ${ROOT};`),
          snippet("nginx", "keep", {
            "127.0.0.1:9000": fastcgi,
            "listen 80;": `listen 127.0.0.1:${port.keep}; root ${ROOT};`,
          }),
        ]);
      }, { env: ENV });
      const fcgi = { protocol: "fastcgi", sender: "ngx_http_fastcgi_module" } as const;
      const scgiModule = { protocol: "scgi", sender: "ngx_http_scgi_module" } as const;
      return [
        { ...fcgi, name: "fastcgi", port: port.stock, kinds: [...USUAL, "large"] },
        { ...fcgi, name: "fastcgi-unbuffered", port: port.keep, kinds: ["streamed", "keep"] },
        { ...scgiModule, name: "scgi", port: port.scgi, kinds: [...USUAL, "large"] },
      ];
    },
  },

  apache: {
    command: "apache2",
    version: ["-v"],
    async start(rig, fastcgi, scgi) {
      const relay = writeRelay(rig, fastcgi);
      const root = `DocumentRoot ${ROOT}\n`;
      const config = (port: number, ...args: string[]) =>
        configuration("apache", "--listen", `127.0.0.1:${port}`, ...args)
          .replace("  AllowEncodedSlashes", `  ${root}$&`);
      const modules = "mpm_event alias env proxy proxy_fcgi proxy_scgi fcgid".split(" ");
      const port = await rig.serve("apache2", ["fastcgi", "split", "scgi", "fcgid"], (port) => {
        const virtual = apacheConfig(rig, modules, {
          [port.split]: root + snippet("apache", "split", { "127.0.0.1:9000": fastcgi }),
          [port.fcgid]: root +
            snippet("apache", "fcgid-wrapper", {
              "<Location /hello>": "<Location />",
              "/srv/app/hello.ts": relay,
            }),
        });
        const file = rig.write(
          "apache.conf",
          `${virtual}
${config(port.fastcgi, "--backend", fastcgi)}
${config(port.scgi, "--protocol", "scgi", "--backend", scgi)}
FcgidIPCDir ${rig.dir}/fcgid
FcgidProcessTableFile ${rig.dir}/fcgid_shm
FcgidInitialEnv DENO_DIR ${rig.dir}/cache
`,
        );
        return ["apache2", ["-DFOREGROUND", "-f", file]];
      }, { env: ENV });
      const proxy = { protocol: "fastcgi", sender: "mod_proxy_fcgi" } as const;
      return [
        {
          ...proxy,
          name: "fastcgi",
          port: port.fastcgi,
          kinds: [...USUAL, "streamed", "large", "keep"],
        },
        { ...proxy, name: "fastcgi-split", port: port.split, kinds: ["get", "path"] },
        // mod_proxy_scgi rejects chunked coding with 411.
        {
          name: "scgi",
          protocol: "scgi",
          sender: "mod_proxy_scgi",
          port: port.scgi,
          kinds: USUAL.filter((kind) => kind !== "chunked"),
        },
        { name: "fcgid", protocol: "fastcgi", sender: "mod_fcgid", port: port.fcgid, kinds: USUAL },
      ];
    },
  },

  lighttpd: {
    command: "lighttpd",
    version: ["-v"],
    async start(rig, fastcgi, scgi) {
      const serve = async (name: string, backend: string) => {
        const { port } = await rig.serve(`lighttpd (${name})`, ["port"], ({ port }) => {
          const file = rig.write(
            `lighttpd-${name}.conf`,
            `
server.bind = "127.0.0.1"
server.port = ${port}
server.document-root = "/srv"
server.errorlog = "${rig.logFile("error.log")}"
server.upload-dirs = ( "${rig.dir}/cache" )
${configuration("lighttpd", "--protocol", name, "--backend", backend)}
`,
          );
          return ["lighttpd", ["-D", "-f", file]];
        }, { env: ENV });
        return port;
      };
      return [
        {
          name: "fastcgi",
          protocol: "fastcgi",
          sender: "mod_fastcgi",
          port: await serve("fastcgi", fastcgi),
          kinds: [...USUAL, "large"],
        },
        {
          name: "scgi",
          protocol: "scgi",
          sender: "mod_scgi",
          port: await serve("scgi", scgi),
          kinds: USUAL,
        },
      ];
    },
  },

  caddy: {
    command: "caddy",
    version: ["version"],
    async start(rig, fastcgi) {
      const { port } = await rig.serve("caddy", ["port"], ({ port }) => {
        const args = ["--listen", `127.0.0.1:${port}`, "--backend", fastcgi];
        const site = configuration("caddy", ...args)
          .replace("  bind 127.0.0.1", `$&\n  root * ${ROOT}`);
        const file = rig.write("Caddyfile", `{\nadmin off\n}\n${site}`);
        return ["caddy", ["run", "--config", file, "--adapter", "caddyfile"]];
      }, { env: { ...ENV, HOME: rig.dir, XDG_CONFIG_HOME: rig.dir, XDG_DATA_HOME: rig.dir } });
      const minor = Number((await versionOf(SERVERS.caddy)).split(".")[1]);
      // Since 2.9 Caddy rejects chunked coding with 411.
      const kinds = USUAL.filter((kind) => kind !== "chunked" || minor < 9);
      return [{
        name: "fastcgi",
        protocol: "fastcgi",
        sender: "fastcgi transport",
        port,
        kinds: [...kinds, "large"],
      }];
    },
  },

  haproxy: {
    command: "haproxy",
    version: ["-v"],
    async start(rig, fastcgi) {
      const port = await rig.serve("haproxy", ["tcp", "multiplexed"], (port) => {
        const config = configuration(
          "haproxy",
          "--name",
          "tcp",
          "--listen",
          `127.0.0.1:${port.tcp}`,
          "--backend",
          fastcgi,
        );
        const multiplexed = snippet("haproxy", "multiplexed", { "127.0.0.1:9000": fastcgi });
        const file = rig.write(
          "haproxy.cfg",
          `
global
  nbthread 1
${config}
frontend multiplexed
  bind 127.0.0.1:${port.multiplexed}
  default_backend app
${multiplexed}
`.replaceAll("docroot /", `docroot ${ROOT}`),
        );
        return ["haproxy", ["-db", "-f", file]];
      }, { env: ENV });
      const mux = { protocol: "fastcgi", sender: "mux_fcgi" } as const;
      return [
        { ...mux, name: "fastcgi", port: port.tcp, kinds: [...USUAL, "large"] },
        { ...mux, name: "fastcgi-multiplexed", port: port.multiplexed, kinds: ["keep"] },
      ];
    },
  },

  h2o: {
    command: "h2o",
    version: ["-v"],
    async start(rig, fastcgi) {
      const [, connect] = configuration("h2o", "--backend", fastcgi).split("      /:\n");
      const ports = await rig.serve("h2o", ["tcp", "keep"], (ports) => {
        const hosts = Object.entries(ports).map(([name, port]) => `
  ${name}:
    listen: { host: 127.0.0.1, port: ${port} }
    paths:
      /:
${connect}
${name === "keep" ? "        fastcgi.timeout.keepalive: 5000" : ""}`);
        const file = rig.write(
          "h2o.yaml",
          `
${Deno.uid() === 0 ? "user: root" : ""}
error-log: ${rig.logFile("error.log")}
pid-file: ${rig.dir}/h2o.pid
hosts:${hosts.join("\n")}
`,
        );
        return ["h2o", ["-m", "worker", "-c", file]];
      }, { env: ENV });
      const handler = { protocol: "fastcgi", sender: "fastcgi handler" } as const;
      return [
        { ...handler, name: "fastcgi", port: ports.tcp, kinds: [...USUAL, "large"] },
        { ...handler, name: "fastcgi", port: ports.keep, kinds: ["keep"] },
      ];
    },
  },
};

/** Writes a program for mod_fcgid, which starts its applications itself: the program forwards to the listener. */
function writeRelay(rig: Rig, address: string): string {
  const [hostname, port] = address.split(":");
  const path = rig.write(
    "relay.ts",
    `#!/usr/bin/env -S ${rig.bin}/deno run --no-prompt --no-config --allow-all
import { inheritedListener } from "${rig.root}/fastcgi.ts";

const pass = async (from, to) => {
  const buffer = new Uint8Array(65536);
  for (let count; (count = await from.read(buffer).catch(() => null)) !== null;) {
    for (let at = 0; at < count;) at += await to.write(buffer.subarray(at, count));
  }
  await to.closeWrite?.();
};
for await (const front of await inheritedListener()) {
  const back = await Deno.connect({ hostname: "${hostname}", port: ${port} });
  pass(front, back);
  pass(back, front).then(() => front.close());
}
`,
  );
  Deno.chmodSync(path, 0o755);
  return path;
}

async function versionOf({ command, version }: WebServer): Promise<string> {
  const { stdout, stderr } = await new Deno.Command(find(command)!, { args: version }).output();
  return /\d+\.\d+\.\d+/.exec(text(stdout) + text(stderr))![0];
}

/** A response that is valid for every method, HEAD too. */
const RESPONSE = bytes("Status: 204 No Content\r\n\r\n");

/** Decodes the bytes of one connection, and returns the response when a request is complete. */
type Application = (received: Uint8Array) => { send?: Uint8Array; rest: Uint8Array; end?: boolean };

/** Decodes FastCGI records. A request is complete when its FCGI_STDIN ends. */
function fastCGIApplication(): Application {
  let keep = false;
  return (received) => {
    const first = firstRecord(received);
    if (first === undefined) return { rest: received };
    const { record: { type, id, content }, rest } = first;
    if (type === Type.beginRequest) keep = (content[2] & 1) === 1;
    if (type === Type.getValues) {
      const values = nameValuePairs([["FCGI_MPXS_CONNS", "1"], ["FCGI_MAX_REQS", "100"]]);
      return { send: record(Type.getValuesResult, 0, values), rest };
    }
    if (type !== Type.stdin || content.length > 0) return { rest };
    const send = concat([
      stream(Type.stdout, id, RESPONSE),
      streamEnd(Type.stdout, id),
      endRequest(id),
    ]);
    return { send, rest, end: !keep };
  };
}

/** Decodes a netstring and a body of CONTENT_LENGTH bytes. */
function scgiApplication(): Application {
  return (received) => {
    const length = /^(\d+):/.exec(text(received.subarray(0, 10)));
    if (length === null) return { rest: received };
    const start = length[0].length;
    const end = start + Number(length[1]);
    if (received.length <= end) return { rest: received };
    const fields = text(received.subarray(start, end)).split("\0");
    const body = Number(fields[fields.indexOf("CONTENT_LENGTH") + 1]);
    const whole = end + 1 + body;
    if (received.length < whole) return { rest: received };
    return { send: RESPONSE, rest: received.subarray(whole), end: true };
  };
}

/** Records the received bytes of each connection. */
class Recorder implements Disposable {
  #listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  /** The bytes of each connection since the last call of {@linkcode take}. */
  #received = new Map<Deno.Conn, Uint8Array[]>();
  #application: () => Application;

  constructor(application: () => Application) {
    this.#application = application;
    this.#accept();
  }

  get address(): string {
    return `127.0.0.1:${this.#listener.addr.port}`;
  }

  /**
   * Returns the bytes received since the last call.
   *
   * @throws {Error} If they arrived over more than one connection, or none did.
   */
  take(name: string): Uint8Array {
    const received = [...this.#received.values()];
    this.#received.clear();
    if (received.length !== 1) {
      throw new Error(
        `Cannot capture ${name} as it must use 1 connection: current value is ${received.length}`,
      );
    }
    return concat(received[0]);
  }

  async #accept(): Promise<void> {
    for await (const conn of this.#listener) this.#record(conn).catch(() => {});
  }

  async #record(conn: Deno.Conn): Promise<void> {
    using _closed = conn;
    const application = this.#application();
    const buffer = new Uint8Array(65536);
    let rest = new Uint8Array();
    for (let count; (count = await conn.read(buffer)) !== null;) {
      const chunk = buffer.slice(0, count);
      if (!this.#received.has(conn)) this.#received.set(conn, []);
      this.#received.get(conn)!.push(chunk);
      rest = concat([rest, chunk]);
      for (let before = -1; rest.length !== before;) {
        before = rest.length;
        const { send, end, rest: after } = application(rest);
        rest = after.slice();
        for (let at = 0; send && at < send.length;) at += await conn.write(send.subarray(at));
        if (end) return;
      }
    }
  }

  [Symbol.dispose](): void {
    this.#listener.close();
  }
}

/** Encodes a body as two chunks and the last, empty one. */
function inChunks(body: Uint8Array): Uint8Array {
  const chunks = [body.subarray(0, 5), body.subarray(5), new Uint8Array()];
  return concat(chunks.flatMap((chunk) => [
    bytes(`${chunk.length.toString(16)}\r\n`),
    chunk,
    bytes("\r\n"),
  ]));
}

/** Sends requests over one connection to the web server. */
async function send(host: string, requests: SentRequest[]): Promise<void> {
  using client = await Client.connect(host);
  for (const request of requests) {
    const { method, target, headers, chunked } = request;
    const body = bodyOf(request);
    const length: [string, string][] = chunked
      ? [["Transfer-Encoding", "chunked"]]
      : request.body === undefined
      ? []
      : [["Content-Length", String(body.length)]];
    const fields = [...headers, ...length].map((field) => field.join(": "));
    const head = [`${method} ${target} HTTP/1.1`, ...fields, "", ""].join("\r\n");
    // In one write: what nginx and mod_proxy_fcgi send depends on how much of the body arrives with the head.
    await client.send(concat([bytes(head), chunked ? inChunks(body) : body]));
    const { status } = await client.readResponse(method);
    if (status !== 204) throw new Error(`${method} ${target}: ${status}`);
  }
}

async function capture(server: string): Promise<void> {
  const version = await versionOf(SERVERS[server]);
  const directory = new URL(`${server}-${version}/`, TESTDATA);
  const captures: Capture[] = [];
  const files = new Map<string, Uint8Array>();
  await using rig = new Rig();
  using fastcgi = new Recorder(fastCGIApplication);
  using scgi = new Recorder(scgiApplication);
  try {
    const routes = await SERVERS[server].start(rig, fastcgi.address, scgi.address);
    for (const { name, protocol, sender, kinds, port } of routes) {
      const recorder = protocol === "scgi" ? scgi : fastcgi;
      for (const kind of kinds) {
        const file = `${name}-${kind}.bin`;
        const requests: SentRequest[] = KINDS[kind];
        await within(`${server}: ${file}`, send(`127.0.0.1:${port}`, requests));
        files.set(file, recorder.take(file));
        captures.push({ file, protocol, sender, requests });
      }
    }
  } catch (error) {
    console.error(rig.takeLog());
    throw error;
  }
  for (const { name } of Deno.readDirSync(TESTDATA)) {
    if (name.startsWith(`${server}-`)) {
      Deno.removeSync(new URL(name, TESTDATA), { recursive: true });
    }
  }
  Deno.mkdirSync(directory);
  const index: CaptureIndex = { server, version, captures };
  Deno.writeTextFileSync(new URL("index.json", directory), JSON.stringify(index, null, 2) + "\n");
  for (const [file, bytes] of files) Deno.writeFileSync(new URL(file, directory), bytes);
  console.log(`${server} ${version}: ${files.size} files`);
}

Deno.mkdirSync(TESTDATA, { recursive: true });
for (const server of Deno.args.length > 0 ? Deno.args : Object.keys(SERVERS)) {
  if (find(SERVERS[server].command)) await capture(server);
  else console.log(`${server} is not installed: its captures are not changed`);
}
