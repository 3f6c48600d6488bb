/** Workers that are replaced after a number of requests, behind nginx as `config` prints it. */
import { assert, assertEquals } from "@std/assert";
import { served, startServe } from "../testing/command_line.ts";
import { Client } from "./client.ts";
import { configuration, Suite, within } from "./harness.ts";
import { nginxCommand } from "./nginx.ts";

const CLIENTS = 8;
const REQUESTS = 20_000;
/** After how many a worker is replaced. */
const MAX = 1500;

const APP = `
export default async (request) => {
  const body = await request.text();
  return new Response(request.method + body, { headers: { "x-worker": Deno.pid } });
};
`;

const suite = new Suite(
  "nginx with workers that are replaced",
  { nginx: "nginx-light", "/etc/nginx/fastcgi_params": "nginx-common" },
  async (rig) => {
    const socket = `unix:${rig.dir}/app.sock`;
    const workers = startServe(
      rig.write("app/app.ts", APP),
      ["--workers", "2", "--max-requests", String(MAX), "--mode", "666", "--listen", socket],
      ["--allow-read", "--allow-write", "--allow-env", "--allow-run", "--allow-net"],
    );
    rig.use({ [Symbol.dispose]: () => void workers[Symbol.asyncDispose]() });
    await served(workers);
    const { port } = await rig.serve(
      "nginx",
      ["port"],
      ({ port }) => {
        const args = ["--listen", `127.0.0.1:${port}`, "--backend", socket, "--workers", "2"];
        return nginxCommand(rig, [configuration("nginx", ...args)]);
      },
    );
    return { host: `127.0.0.1:${port}`, workers };
  },
);

suite.test(`--max-requests loses none of ${REQUESTS} requests`, async ({ host, workers }) => {
  const seen = new Set<string>();
  let done = 0;
  const send = async () => {
    let client = await Client.connect(host);
    while (done < REQUESTS) {
      const number = String(done++);
      const [method, body] = done % 4 === 0 ? ["POST", number] : ["GET", ""];
      const fields = body === "" ? [] : [["Content-Length", String(body.length)]];
      await client.sendHead(method, `/?${number}`, fields);
      await client.send(new TextEncoder().encode(body));
      const { status, text, head } = await client.readResponse();
      assertEquals([status, text], [200, method + body], workers.log);
      seen.add(head.get("x-worker")!);
      // nginx closes a connection after some requests.
      if (head.get("connection") !== "close") continue;
      client[Symbol.dispose]();
      client = await Client.connect(host);
    }
    client[Symbol.dispose]();
  };
  const all = Promise.all(Array.from({ length: CLIENTS }, send));
  await within(`${REQUESTS} responses`, all, 180_000);
  assert(seen.size >= 6, `${seen.size} workers: ${workers.log}`);
});
