/**
 * The app that `deno task operate` operates: it keeps its data in SQLite, streams, takes uploads, fails, leaks, and loops.
 * Each response names the worker's process.
 */
import { DatabaseSync } from "node:sqlite";
import type { Handler } from "../../mod.ts";

/** How many chunks a streamed response has, and how long it waits after each, in milliseconds. */
export const CHUNKS = 20;
const CHUNK_DELAY = 10;
const CHUNK = "0123456789".repeat(100);
/** How much memory a request of `/leak` leaks, in bytes. */
const LEAK = 2 ** 21;
/** The file with the process id of the worker that loops. */
const LOOPING = `${Deno.env.get("OPERATE_DIRECTORY")}/looping`;

const leaked: Uint8Array[] = [];
let database: DatabaseSync | undefined;
let begun: Deno.FsFile | undefined;

/** Records which worker has begun a request. */
function begin(number: string): void {
  const path = `${Deno.env.get("OPERATE_DIRECTORY")}/begun.log`;
  begun ??= Deno.openSync(path, { append: true, create: true });
  begun.writeSync(new TextEncoder().encode(`${number} ${Deno.pid}\n`));
}

function open(): DatabaseSync {
  const opened = new DatabaseSync(`${Deno.env.get("OPERATE_DIRECTORY")}/data.sqlite`);
  opened.exec(`
    PRAGMA busy_timeout = 5000;
    PRAGMA journal_mode = WAL;
    PRAGMA synchronous = NORMAL;
    CREATE TABLE IF NOT EXISTS effects (id TEXT PRIMARY KEY, count INTEGER NOT NULL);
    CREATE TABLE IF NOT EXISTS notes (id TEXT PRIMARY KEY, text TEXT NOT NULL);
  `);
  return opened;
}

const wait = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

async function digest(bytes: Uint8Array<ArrayBuffer>): Promise<string> {
  return new Uint8Array(await crypto.subtle.digest("SHA-256", bytes)).toHex();
}

function respond(body: BodyInit, status = 200): Response {
  return new Response(body, { status, headers: { "x-worker": String(Deno.pid) } });
}

const app: Handler = async (request) => {
  const { pathname, searchParams } = new URL(request.url);
  const id = searchParams.get("id") ?? "";
  const number = searchParams.get("n");
  if (number !== null) begin(number);
  database ??= open();
  switch (`${request.method} ${pathname}`) {
    case "GET /hello":
      return respond("hello\n");
    case "GET /slow":
      await wait(300);
      return respond("slow\n");
    case "GET /note": {
      const row = database.prepare("SELECT text FROM notes WHERE id = ?").get(id);
      return row === undefined ? respond("none", 404) : respond(String(row.text));
    }
    case "PUT /note":
      database.prepare("INSERT OR REPLACE INTO notes VALUES (?, ?)").run(id, await request.text());
      return respond("kept\n");
    case "POST /effect":
      await request.bytes();
      database.prepare(
        "INSERT INTO effects VALUES (?, 1) ON CONFLICT DO UPDATE SET count = count + 1",
      ).run(id);
      // The effect is there, and the client does not know it yet.
      await wait(20);
      return respond("done\n", 201);
    case "PUT /upload":
      return respond(await digest(await request.bytes()));
    case "GET /stream": {
      let left = CHUNKS;
      const chunks = new ReadableStream({
        async pull(controller) {
          if (left-- === 0) return controller.close();
          controller.enqueue(new TextEncoder().encode(CHUNK));
          await wait(CHUNK_DELAY);
        },
      });
      return respond(chunks);
    }
    case "GET /fail":
      throw new Error("meant to fail");
    case "GET /leak":
      leaked.push(new Uint8Array(LEAK).fill(1));
      return respond(`${leaked.length}\n`);
    case "POST /loop":
      // Names the worker that must end by --worker-timeout.
      Deno.writeTextFileSync(LOOPING, String(Deno.pid));
      for (;;);
    default:
      return respond("unknown", 404);
  }
};

export default app;
