/** A WebDAV server in PHP, sabre/dav, behind the gateway and behind nginx: the same steps have the same responses. */
import { assertEquals, assertStringIncludes } from "@std/assert";
import { fastCGIGateway } from "../../gateway.ts";
import { request } from "./client.ts";
import { serve } from "./gateway_server.ts";
import { type Rig, Suite } from "./harness.ts";
import { nginxCommand } from "./nginx.ts";
import { PHP_FPM, startFPM } from "./php.ts";

/** Each server has a folder of its own, so that both begin with none. */
const SCRIPT = `<?php
error_reporting(E_ALL & ~E_DEPRECATED);
date_default_timezone_set("UTC");
require_once "Sabre/autoload.php";
$folder = __DIR__ . "/data-" . $_SERVER["FOLDER"];
$server = new \\Sabre\\DAV\\Server(new \\Sabre\\DAV\\FS\\Directory($folder));
$server->setBaseUri("/dav.php/");
$server->addPlugin(new \\Sabre\\DAV\\Locks\\Plugin(new \\Sabre\\DAV\\Locks\\Backend\\File("$folder.locks")));
$server->exec();
`;

interface Step {
  method: string;
  path: string;
  fields?: Record<string, string>;
  body?: string;
  status: number;
}

const PROPERTIES = `<?xml version="1.0"?><propfind xmlns="DAV:"><prop><getcontentlength/>` +
  `<resourcetype/><lockdiscovery/></prop></propfind>`;
const LOCK = `<?xml version="1.0"?><lockinfo xmlns="DAV:"><lockscope><exclusive/></lockscope>` +
  `<locktype><write/></locktype><owner>ann</owner></lockinfo>`;
const LENGTHY = "0123456789".repeat(20_000);

/** TOKEN is that of the lock, HOST the server's. */
const STEPS: Step[] = [
  { method: "OPTIONS", path: "/", status: 200 },
  { method: "MKCOL", path: "/folder", status: 201 },
  { method: "MKCOL", path: "/folder", status: 405 },
  { method: "PUT", path: "/folder/a%20file", body: LENGTHY, status: 201 },
  {
    method: "PUT",
    path: "/folder/a%20file",
    fields: { "If-None-Match": "*" },
    body: "x",
    status: 412,
  },
  { method: "GET", path: "/folder/a%20file", status: 200 },
  { method: "HEAD", path: "/folder/a%20file", status: 200 },
  {
    method: "GET",
    path: "/folder/a%20file",
    fields: { Range: "bytes=100000-100009" },
    status: 206,
  },
  { method: "GET", path: "/folder/none", status: 404 },
  { method: "PROPFIND", path: "/", fields: { Depth: "1" }, body: PROPERTIES, status: 207 },
  { method: "PROPFIND", path: "/folder/", fields: { Depth: "0" }, status: 207 },
  {
    method: "COPY",
    path: "/folder/a%20file",
    fields: { Destination: "http://HOST/dav.php/caf%C3%A9", Depth: "0" },
    status: 201,
  },
  {
    method: "MOVE",
    path: "/caf%C3%A9",
    fields: { Destination: "http://HOST/dav.php/folder/moved", Overwrite: "F" },
    status: 201,
  },
  { method: "LOCK", path: "/folder/moved", body: LOCK, status: 200 },
  { method: "PUT", path: "/folder/moved", body: "without the token", status: 423 },
  {
    method: "PUT",
    path: "/folder/moved",
    fields: { If: "(<TOKEN>)" },
    body: "with the token",
    status: 204,
  },
  {
    method: "UNLOCK",
    path: "/folder/moved",
    fields: { "Lock-Token": "<TOKEN>" },
    status: 204,
  },
  { method: "DELETE", path: "/folder", status: 204 },
  { method: "PROPFIND", path: "/folder", fields: { Depth: "0" }, status: 404 },
];

const dav = new Suite("gateway: sabre/dav", {
  [PHP_FPM]: "php-fpm",
  nginx: "nginx-light",
  "/usr/share/php/Sabre/autoload.php": "php-sabre-dav php-xml php-mbstring",
}, async (rig: Rig) => {
  rig.write("www/dav.php", SCRIPT);
  for (const folder of ["www", "www/data-gateway", "www/data-nginx"]) {
    Deno.mkdirSync(`${rig.dir}/${folder}`, { recursive: true });
    Deno.chmodSync(`${rig.dir}/${folder}`, 0o777);
  }
  // A folder that all users may write to has no scripts that run.
  Deno.chmodSync(`${rig.dir}/www`, 0o755);
  for (const name of ["gateway", "nginx"]) {
    Deno.chmodSync(rig.write(`www/data-${name}.locks`, ""), 0o666);
  }
  const socket = `${rig.dir}/fpm.sock`;
  await startFPM(rig, { listen: socket, children: 2 });
  const root = `${rig.dir}/www`;
  const { port } = await rig.serve("nginx", ["port"], ({ port }) =>
    nginxCommand(rig, [`
server {
  listen 127.0.0.1:${port};
  root ${root};
  location ~ ^(?<script>/dav\\.php)(?<rest>/.*)?$ {
    include fastcgi_params;
    fastcgi_param SCRIPT_NAME $script;
    fastcgi_param SCRIPT_FILENAME ${root}$script;
    fastcgi_param PATH_INFO $rest;
    fastcgi_param FOLDER nginx;
    fastcgi_pass unix:${socket};
  }
}`]));
  const gateway = fastCGIGateway(`unix:${socket}`, {
    root,
    variables: { FOLDER: "gateway" },
    log: () => {},
  });
  return { gateway: serve(gateway), nginx: `127.0.0.1:${port}` };
});

/** Fields of the server and of the connection, and how the body is framed. */
const OWN = ["connection", "date", "server", "content-length", "transfer-encoding"];

/** A client of one server, which remembers the token of its lock. */
class DAV {
  #host: string;
  #token = "";

  constructor(host: string) {
    this.#host = host;
  }

  async take({ method, path, fields = {}, body }: Step) {
    const sent = Object.entries(fields).map(([name, value]) => [
      name,
      value.replace("TOKEN", this.#token).replace("HOST", this.#host),
    ]);
    const bytes = body === undefined ? undefined : new TextEncoder().encode(body);
    const { status, head, text } = await request(this.#host, method, `/dav.php${path}`, {
      fields: sent,
      body: bytes,
    });
    if (method === "LOCK") this.#token = /opaquelocktoken:[\w-]+/.exec(text)![0];
    const plain = (text: string) =>
      text.replaceAll(this.#host, "HOST").replaceAll(this.#token || "TOKEN", "TOKEN")
        // The times and the path of the files are those of each folder, and the disk has other users.
        .replaceAll(/<d:quota-([\w-]+)>.*?<\/d:quota-\1>/g, "OWN")
        .replaceAll(/data-(?:gateway|nginx)/g, "FOLDER")
        .replaceAll(/(?<=^(?:etag|last-modified): ).*/g, "OWN").replaceAll(
          /<d:(?:getlastmodified|getetag)\b.*?<\/d:\w+>/g,
          "OWN",
        ).replaceAll(/<d:timeout>.*?<\/d:timeout>/g, "OWN");
    const kept = head.fields.filter(([name]) => !OWN.includes(name));
    return {
      status,
      text: plain(text),
      fields: kept.map((field) => plain(field.join(": "))).sort(),
    };
  }
}

dav.test("each step is as behind nginx", async ({ gateway, nginx }) => {
  const [ours, theirs] = [new DAV(gateway), new DAV(nginx)];
  for (const step of STEPS) {
    const seen = await ours.take(step);
    const name = `${step.method} ${step.path}`;
    assertEquals(seen, await theirs.take(step), name);
    assertEquals(seen.status, step.status, `${name}: ${seen.text.slice(0, 1000)}`);
    if (step.path === "/folder/a%20file" && step.method === "GET") {
      assertEquals(seen.text, step.status === 206 ? "0123456789" : LENGTHY);
    }
    if (step.method === "PROPFIND" && step.path === "/") {
      assertStringIncludes(seen.text, "/folder/");
    }
  }
});
