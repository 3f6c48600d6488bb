/**
 * Sends uploads that no handler reads, over connections that cannot pause, and looks how much memory the server takes
 * and whether it serves others meanwhile: `deno task uploads [--uploads N] [--size MiB] [--total MiB]`. `--total` is the
 * server's `maxBufferedTotal`; 0 for no limit.
 */
import { parseArgs } from "@std/cli/parse-args";
import { serveFastCGI } from "../fastcgi.ts";
import { deadline } from "../tests/testing/deadline.ts";
import { FastCGIClient, request, variables } from "../tests/testing/fastcgi_client.ts";
import {
  beginRequest,
  getValues,
  params,
  stdin,
  stdinEnd,
} from "../tests/testing/fastcgi_records.ts";

const MIB = 2 ** 20;
/** The memory that the server may take beyond its limit: of reads, and of what V8 has not freed yet. */
const TOLERANCE = 128 * MIB;
/** How long anything may take, in milliseconds. */
const LIMIT = 300_000;
const POST = { REQUEST_METHOD: "POST", REQUEST_URI: "/unread" };

/** Serves: the requests of `/unread` wait for one of `/open` and read their bodies then. */
async function serve(path: string, maxBufferedTotal: number): Promise<void> {
  const gate = Promise.withResolvers<void>();
  const server = serveFastCGI(
    async (request) => {
      if (request.url.endsWith("/open")) gate.resolve();
      if (request.url.endsWith("/unread")) await gate.promise;
      return new Response(await request.bytes());
    },
    Deno.listen({ transport: "unix", path }),
    { maxBufferedTotal, log() {} },
  );
  console.log("serving");
  await server.finished;
}

/** The resident memory of a process, in bytes. */
function memoryOf(pid: number): number {
  const status = Deno.readTextFileSync(`/proc/${pid}/status`);
  return Number(/VmRSS:\s*(\d+)/.exec(status)![1]) * 1024;
}

async function connect(path: string): Promise<FastCGIClient> {
  return new FastCGIClient(await Deno.connect({ transport: "unix", path }));
}

/** Sends one upload, of which the response waits. */
async function upload(path: string, size: number, part: Uint8Array): Promise<FastCGIClient> {
  const client = await connect(path);
  // The connection may then carry other requests, so that it does not pause.
  await client.send(getValues("FCGI_MPXS_CONNS"), beginRequest(1), params(1, variables(POST)));
  for (let at = 0; at < size; at += MIB) await client.send(part);
  await client.send(stdinEnd(1));
  return client;
}

/** Reads the response of an upload. */
async function statusOf(client: FastCGIClient): Promise<string> {
  const { status, headers } = await client.response(1);
  client.close();
  return `${status}${headers.has("retry-after") ? " with Retry-After" : ""}`;
}

/** Sends requests with small bodies until stopped. @returns The longest time that one took, in milliseconds. */
async function others(path: string, stop: AbortSignal, counted: (served: boolean) => void) {
  let longest = 0;
  while (!stop.aborted) {
    const begun = performance.now();
    const client = await connect(path);
    await client.send(
      request({ body: new Uint8Array(1000), variables: { REQUEST_METHOD: "POST" } }),
    );
    const { status, body } = await deadline(client.response(), "a small request", LIMIT);
    client.close();
    counted(status === 200 && body.length === 1000);
    longest = Math.max(longest, performance.now() - begun);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  return longest;
}

/** Starts the server in a process of its own. */
async function startServer(path: string, total: number): Promise<Deno.ChildProcess> {
  const child = new Deno.Command(Deno.execPath(), {
    args: [
      "run",
      "--no-prompt",
      "--no-config",
      "--allow-all",
      `--import-map=${Deno.env.get("GATEHOUSE_IMPORT_MAP")}`,
      import.meta.filename!,
      "--serve",
      path,
      String(total),
    ],
    stdout: "piped",
  }).spawn();
  await deadline(child.stdout.getReader().read(), "the server");
  return child;
}

async function measure(): Promise<boolean> {
  const args = parseArgs(Deno.args, { string: ["uploads", "size", "total"] });
  const count = Number(args.uploads ?? 200);
  const size = Number(args.size ?? 64) * MIB;
  const total = Number(args.total ?? 256) * MIB || Infinity;
  const directory = await Deno.makeTempDir();
  const path = `${directory}/socket`;
  const child = await startServer(path, total);
  const counts = { served: 0, failed: 0, sent: 0 };
  const stop = new AbortController();
  const small = others(path, stop.signal, (served) => counts[served ? "served" : "failed"]++);
  await new Promise((resolve) => setTimeout(resolve, 1000));
  const base = memoryOf(child.pid);
  let most = base;
  const watch = setInterval(() => most = Math.max(most, memoryOf(child.pid)), 20);
  const report = setInterval(() => {
    console.log(`${counts.sent} sent, ${Math.round(memoryOf(child.pid) / MIB)} MiB`);
  }, 2000);
  const part = stdin(1, new Uint8Array(MIB));
  const sending = Array.from({ length: count }, async () => {
    const client = await upload(path, size, part);
    counts.sent++;
    return client;
  });
  const clients = await deadline(Promise.all(sending), "the uploads", LIMIT);
  stop.abort();
  const longest = await small;
  clearInterval(watch);
  clearInterval(report);
  const opener = await connect(path);
  await opener.send(request({ variables: { REQUEST_URI: "/open" } }));
  await opener.response();
  opener.close();
  const statuses: string[] = [];
  for (const client of clients) statuses.push(await statusOf(client));
  child.kill("SIGKILL");
  await child.status;
  await Deno.remove(directory, { recursive: true });
  console.log(`Uploads: ${count} of ${size / MIB} MiB, of which no handler has read a byte`);
  console.log(
    `Memory: ${Math.round(base / MIB)} MiB before, ${Math.round(most / MIB)} MiB at most`,
  );
  console.log(
    `Others: ${counts.served} served, ${counts.failed} not, the longest took ${
      Math.round(longest)
    } ms`,
  );
  for (const [status, all] of Object.entries(Object.groupBy(statuses, (status) => status))) {
    console.log(`Then read: ${all!.length} got ${status}`);
  }
  return most - base < total + TOLERANCE && counts.failed === 0 && counts.served > 0;
}

const [mode, path, total] = Deno.args;
if (mode === "--serve") await serve(path, Number(total));
else if (!await measure()) Deno.exit(1);
