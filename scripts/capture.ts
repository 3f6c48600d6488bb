/**
 * Captures anew what the installed web servers send to an application: `deno task capture`, or `deno task capture nginx`
 * for one of them. Each server runs on loopback with the configuration of docs/servers.md, as in tests/servers/; a
 * listener records what comes into tests/testdata/ and sends the same small response each time.
 *
 * @module
 */

import { apacheConfig } from "../tests/servers/apache.ts";
import { Client } from "../tests/servers/client.ts";
import { Rig, snippet, within } from "../tests/servers/harness.ts";
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

/** What the client sends: the requests of one connection, by the name of the file. */
const KINDS = {
  get: [GET],
  post: [POST],
  chunked: [{ ...POST, target: "/chunked", chunked: true }],
  large: [{ method: "POST", target: "/large", headers: [HOST, BINARY], body: 66_000 }],
  // More than nginx and mod_proxy_fcgi read ahead: with less, they send a length.
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
/** What is captured of each way that a server connects, but for a large body and a connection that is kept. */
const USUAL: Kind[] = ["get", "post", "chunked", "head", "path", "long"];

/** A way from a web server to an application. */
interface Route {
  /** What files' names begin with. */
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
  /** Prints the version. */
  version: string[];
  /** Starts it with routes to the listeners. */
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
          server(port.scgi, snippet("nginx", "scgi", { "127.0.0.1:4000": scgi })),
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
      const modules = "mpm_event alias env proxy proxy_fcgi proxy_scgi fcgid".split(" ");
      const port = await rig.serve("apache2", ["fastcgi", "split", "scgi", "fcgid"], (port) => {
        const config = apacheConfig(rig, modules, {
          [port.fastcgi]: root + snippet("apache", "tcp", { "127.0.0.1:9000": fastcgi }),
          [port.split]: root + snippet("apache", "split", { "127.0.0.1:9000": fastcgi }),
          [port.scgi]: root + snippet("apache", "scgi", { "127.0.0.1:4000": scgi }),
          [port.fcgid]: root +
            snippet("apache", "fcgid-wrapper", {
              "<Location /hello>": "<Location />",
              "/srv/app/hello.ts": relay,
            }),
        });
        const file = rig.write(
          "apache.conf",
          `${config}
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
        // It refuses chunked coding with 411.
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
      const serve = async (name: string, replace: Record<string, string>) => {
        const { port } = await rig.serve(`lighttpd (${name})`, ["port"], ({ port }) => {
          const file = rig.write(
            `lighttpd-${name}.conf`,
            `
server.bind = "127.0.0.1"
server.port = ${port}
server.document-root = "/srv"
server.errorlog = "${rig.logFile("error.log")}"
server.upload-dirs = ( "${rig.dir}/cache" )
${snippet("lighttpd", name, replace)}
`,
          );
          return ["lighttpd", ["-D", "-f", file]];
        }, { env: ENV });
        return port;
      };
      const [host, port] = fastcgi.split(":");
      const [scgiHost, scgiPort] = scgi.split(":");
      return [
        {
          name: "fastcgi",
          protocol: "fastcgi",
          sender: "mod_fastcgi",
          port: await serve("tcp", { "127.0.0.1": host, "9000": port }),
          kinds: [...USUAL, "large"],
        },
        {
          name: "scgi",
          protocol: "scgi",
          sender: "mod_scgi",
          port: await serve("scgi", { "127.0.0.1": scgiHost, "4000": scgiPort }),
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
        const site = snippet("caddy", "tcp", {
          "127.0.0.1:9000": fastcgi,
          "example.com {": `http://:${port} {\n  bind 127.0.0.1\n  root * ${ROOT}`,
        });
        const file = rig.write("Caddyfile", `{\nadmin off\n}\n${site}`);
        return ["caddy", ["run", "--config", file, "--adapter", "caddyfile"]];
      }, { env: { ...ENV, HOME: rig.dir, XDG_CONFIG_HOME: rig.dir, XDG_DATA_HOME: rig.dir } });
      const minor = Number((await versionOf(SERVERS.caddy)).split(".")[1]);
      // Since 2.9 it refuses chunked coding with 411.
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
        const names = ["tcp", "multiplexed"] as const;
        const fronts = names.map((name) => `
frontend ${name}
  bind 127.0.0.1:${port[name]}
  default_backend ${name}
${
          snippet("haproxy", name, { "backend app": `backend ${name}`, "127.0.0.1:9000": fastcgi })
            .replace("fcgi-app app\n  docroot /", `fcgi-app ${name}\n  docroot ${ROOT}`)
            .replace("use-fcgi-app app", `use-fcgi-app ${name}`)
        }`);
        const file = rig.write(
          "haproxy.cfg",
          `
global
  log stderr format raw daemon
  nbthread 1
defaults
  mode http
  timeout connect 5s
  timeout client 30s
  timeout server 30s
${fronts.join("\n")}
`,
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
      const [host, port] = fastcgi.split(":");
      const connect = snippet("yaml", "h2o-tcp", { "127.0.0.1": host, "9000": port })
        .replaceAll(/^/gm, "        ");
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

/** Writes a program for mod_fcgid, which starts applications by itself: passes connections on to the listener. */
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

/** Fits every method, HEAD too. */
const RESPONSE = bytes("Status: 204 No Content\r\n\r\n");

/** Reads from one connection, and sends the response whenever a request is whole. */
type Application = (received: Uint8Array) => { send?: Uint8Array; rest: Uint8Array; end?: boolean };

/** Reads records; a request ends with its FCGI_STDIN. */
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

/** Reads a netstring, and the body that CONTENT_LENGTH tells of. */
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

/** Records what each connection carries. */
class Recorder implements Disposable {
  #listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  /** What came over each connection since {@linkcode take} was last called. */
  #received = new Map<Deno.Conn, Uint8Array[]>();
  #application: () => Application;

  constructor(application: () => Application) {
    this.#application = application;
    this.#accept();
  }

  get address(): string {
    return `127.0.0.1:${this.#listener.addr.port}`;
  }

  /** What came since it was last called, which must be over one connection; that may be one that was kept. */
  take(name: string): Uint8Array {
    const received = [...this.#received.values()];
    this.#received.clear();
    if (received.length !== 1) {
      throw new Error(`${name}: there must be 1 connection: there are ${received.length}`);
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

/** A body as two chunks and the last one. */
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
    // At once: what nginx and mod_proxy_fcgi send depends on how much of the body comes with the head.
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
  else console.log(`${server} is not installed: its captures stay as they are`);
}
