/** Hostile applications: what they write becomes an error, a truncated body, or nothing worse than they may say (rule F1). */
import { assert, assertEquals } from "@std/assert";
import { existsSync } from "node:fs";
import { cgiGateway, fastCGIGateway, scgiGateway } from "../../gateway.ts";
import { text } from "../testing/bytes.ts";
import { StoppedClock } from "../testing/clock.ts";
import { deadline, eventually } from "../testing/deadline.ts";
import { beginRequest, endRequest, getValues, record, Type } from "../testing/fastcgi_records.ts";
import { turns } from "../testing/serving.ts";
import { Application, type Peer } from "./application.ts";
import { FRONTS, readSCGI } from "./fronts.ts";

/** A status, or a status and the whole body, or a status and `null` for a body that is truncated. */
type Outcome = number | [status: number, body: string | null];

const lines: string[] = [];
const log = (line: string) => void lines.push(line);
const LONG = "a".repeat(70_000);
const HEAD = "Content-Type: text/plain\r\n";
const NPH = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";

/** What an application writes, and what the client gets. */
const RESPONSES: Record<string, [response: string, outcome: Outcome]> = {
  "a good response": [`${HEAD}\r\nhello`, [200, "hello"]],
  "nothing": ["", 502],
  "a body alone": ["hello", 502],
  "an empty line": ["\r\n", 502],
  "an empty line and a body": ["\n\nhello", 502],
  "no empty line": [HEAD, 502],
  "half a line": ["Content-Ty", 502],
  "a line without a colon": [`${HEAD}hello\r\n\r\n`, 502],
  "none of the fields of CGI": ["X-Other: 1\n\nhello", [200, "hello"]],
  "a name with a blank": [`${HEAD}A B: 1\n\n`, [200, ""]],
  "a blank before the colon": ["Content-Type : text/plain\n\n", 502],
  "a blank before the colon of a length": [`${HEAD}Content-Length : 2\n\nhello`, [200, "hello"]],
  "an empty name": [`${HEAD}: 1\n\n`, [200, ""]],
  "a comment that hides earlier output": [`<!--: spam\n${HEAD}\nhello`, [200, "hello"]],
  "a name with a blank and a CR in its value": [`${HEAD}A B: 1\rSet-Cookie: b=1\n\n`, 502],
  "a colon in a folded line": [`${HEAD}X: a\n B: c\n\n`, 502],
  "a byte order mark": [`\xef\xbb\xbf${HEAD}\n`, 502],
  "a NUL in a name": [`${HEAD}X\0Y: 1\n\n`, 502],
  "a NUL in a value": [`${HEAD}X: a\0b\n\n`, 502],
  "a NUL in a body": [`${HEAD}\na\0b`, [200, "a\0b"]],
  "a CR in a value": [`${HEAD}X: a\rSet-Cookie: b=1\n\n`, 502],
  "lines that end in CR": ["Content-Type: text/plain\r\rhello", 502],
  "a vertical tab in a value": [`${HEAD}X: a\x0bb\n\n`, 502],
  "a DEL in a value": [`${HEAD}X: a\x7fb\n\n`, 502],
  "a folded line": [`${HEAD}X: a\n b\n\n`, 502],
  "a line of blanks": [`${HEAD} \n\nhello`, 502],
  "a status that is text": ["Status: OK\n\n", 502],
  "an empty status": ["Status:\n\n", 502],
  "a status of two digits": ["Status: 20\n\n", 502],
  "a status of four digits": ["Status: 2000\n\n", 502],
  "a status without a blank": ["Status: 200OK\n\n", 502],
  "a negative status": ["Status: -200\n\n", 502],
  "a status in hexadecimal": ["Status: 0xC8\n\n", 502],
  "a status below 100": ["Status: 099\n\n", 502],
  "a status above 599": ["Status: 600\n\n", 502],
  "100 Continue": ["Status: 100 Continue\n\n", 502],
  "101 Switching Protocols": ["Status: 101\nUpgrade: websocket\n\n", 502],
  "103 Early Hints": ["Status: 103\nLink: </a>\n\n", 502],
  "two statuses": ["Status: 404\nStatus: 200\n\nhello", 502],
  "the same status twice": ["Status: 404\nStatus: 404 Not Found\n\nhello", [404, "hello"]],
  "a status line of 100": ["HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", 502],
  "a status line of HTTP/2": ["HTTP/2 200\r\n\r\n", 502],
  "a status line of four digits": ["HTTP/1.1 2000 OK\r\n\r\n", 502],
  "a status line in the middle": [`${HEAD}HTTP/1.1 200 OK\r\n\r\n`, 502],
  "two types": ["Content-Type: a/b\nContent-Type: c/d\n\n", [200, ""]],
  "two locations": ["Location: http://a/\nLocation: http://b/\n\n", 502],
  "two lengths": [`${HEAD}Content-Length: 1\nContent-Length: 5\n\nhello`, 502],
  "a list of lengths": [`${HEAD}Content-Length: 5, 5\n\nhello`, 502],
  "a length with a plus": [`${HEAD}Content-Length: +5\n\nhello`, 502],
  "a negative length": [`${HEAD}Content-Length: -5\n\nhello`, 502],
  "a length in hexadecimal": [`${HEAD}Content-Length: 0x5\n\nhello`, 502],
  "a length with an exponent": [`${HEAD}Content-Length: 5e0\n\nhello`, 502],
  "an empty length": [`${HEAD}Content-Length:\n\nhello`, [200, "hello"]],
  "an empty length and another": [`${HEAD}Content-Length:\nContent-Length: 2\n\nhello`, [
    200,
    "he",
  ]],
  "a length beyond 64 bits": [`${HEAD}Content-Length: 18446744073709551621\n\nhello`, 502],
  "a body shorter than its length": [`${HEAD}Content-Length: 9\n\nhello`, [200, null]],
  "a body longer than its length": [`${HEAD}Content-Length: 2\n\nhello`, [200, "he"]],
  "a second response": [
    `${HEAD}Content-Length: 2\n\nokHTTP/1.1 200 OK\r\n\r\nevil`,
    [200, "ok"],
  ],
  "a head without end": [`${HEAD}X: ${LONG}`, 502],
  "a head that is too long": [`${HEAD}X: ${LONG}\n\nhello`, 502],
  "fields without end": [HEAD + "X: 1\n".repeat(20_000), 502],
  "a local redirect without end": ["Location: /?ITSELF\n\n", 502],
  "a coding of the connection": [
    `${HEAD}Transfer-Encoding: chunked\nContent-Length: 5\n\nhello`,
    [200, "hello"],
  ],
  "chunks with a length": [
    `${HEAD}Transfer-Encoding: chunked\nContent-Length: 15\n\n5\r\nhello\r\n0\r\n\r\n`,
    [200, "5\r\nhello\r\n0\r\n\r\n"],
  ],
  "chunks": [`${HEAD}Transfer-Encoding: chunked\n\n5\r\nhello\r\n0\r\n\r\n`, [200, "hello"]],
  "a coding that is not that of the body": [`${HEAD}Transfer-Encoding: chunked\n\nhello`, [
    200,
    null,
  ]],
  "a type that the connection drops": [`${HEAD}Connection: content-type\n\nhello`, 502],
  "a 204 with a body": ["Status: 204\nContent-Length: 5\n\nhello", [204, ""]],
  "a 304 with a body": ["Status: 304\n\nhello", [304, ""]],
  "chunks without the last": [`${NPH}5\r\nhello\r\n`, [200, null]],
  "a chunk that is cut off": [`${NPH}9\r\nhello`, [200, null]],
  "a chunk longer than its size": [`${NPH}3\r\nhello\r\n0\r\n\r\n`, [200, null]],
  "a negative chunk size": [`${NPH}-5\r\nhello\r\n0\r\n\r\n`, [200, null]],
  "a chunk size beyond 64 bits": [`${NPH}10000000000000005\r\nhello\r\n0\r\n\r\n`, [200, null]],
  "a chunk size of text": [`${NPH}hello\r\n`, [200, null]],
};

/** Gets a response over HTTP. */
async function get(url: string): Promise<[status: number, body: string | null]> {
  const response = await deadline(
    fetch(url, { redirect: "manual" }),
    `a response to ${url}`,
  ).catch(() => null);
  // A body that fails at once: the connection closes before its head is sent.
  if (response === null) return [200, null];
  const body = await deadline(response.bytes(), `the body of ${url}`).then(text, () => null);
  return [response.status, body];
}

/** Checks a response, and that the log says why it failed: a client sees only the status, or that it is truncated. */
function check(name: string, got: [number, string | null], outcome: Outcome): void {
  const logged = lines.splice(0);
  if (got[0] >= 500 || got[1] === null) assert(logged.length > 0, `${name} is logged`);
  if (typeof outcome === "number") assertEquals(got[0], outcome, name);
  else assertEquals(got, outcome, name);
}

for (const [gatewayName, start] of Object.entries(FRONTS)) {
  Deno.test(`${gatewayName} makes no success of a hostile response`, async () => {
    const entries = Object.entries(RESPONSES);
    const responses = entries.map(([, [response]], i) => response.replace("ITSELF", String(i)));
    await using front = await start(responses, { log });
    await using server = Deno.serve(
      { hostname: "127.0.0.1", port: 0, onListen() {} },
      front.gateway,
    );
    const url = `http://127.0.0.1:${server.addr.port}/`;
    for (const [i, [name, [, outcome]]] of entries.entries()) {
      check(name, await get(`${url}?${i}`), outcome);
    }
    // None of them has left anything behind.
    for (let i = 0; i < 5; i++) assertEquals(await get(`${url}?0`), [200, "hello"]);
  });
}

const GOOD = `${HEAD}\r\nhello`;

/** What a FastCGI application does with its connection, and what the client gets. */
const RECORDS: Record<string, [run: (peer: Peer) => Promise<void> | void, outcome: Outcome]> = {
  "no record": [() => {}, 502],
  "version 2": [(peer) => peer.write(new Uint8Array([2, 6, 0, 1, 0, 0, 0, 0])), 502],
  "an HTTP response": [
    (peer) => peer.write(new TextEncoder().encode("HTTP/1.1 200 OK\r\n\r\nhello")),
    502,
  ],
  "FCGI_STDOUT of another id": [async (peer) => {
    await peer.write(record(Type.stdout, 77, new TextEncoder().encode(GOOD)));
    await peer.write(endRequest(peer.received.id));
  }, 502],
  "FCGI_END_REQUEST of another id": [async (peer) => {
    await peer.stdout(GOOD);
    await peer.write(endRequest(77));
  }, [200, null]],
  "FCGI_END_REQUEST alone": [(peer) => peer.write(endRequest(peer.received.id)), 502],
  "FCGI_END_REQUEST in the head": [async (peer) => {
    await peer.stdout(HEAD);
    await peer.write(endRequest(peer.received.id));
  }, 502],
  "FCGI_END_REQUEST before the end of FCGI_STDOUT, with a status": [async (peer) => {
    await peer.stdout(GOOD);
    await peer.end(1, 0, false);
  }, [200, null]],
  "FCGI_END_REQUEST that is too short": [async (peer) => {
    await peer.stdout(GOOD);
    await peer.write(record(Type.endRequest, peer.received.id, new Uint8Array(4)));
  }, [200, null]],
  "FCGI_CANT_MPX_CONN": [(peer) => peer.end(0, 1), 502],
  "FCGI_OVERLOADED": [(peer) => peer.end(0, 2), 503],
  "FCGI_UNKNOWN_ROLE": [(peer) => peer.end(0, 3), 502],
  "an unknown protocol status": [(peer) => peer.end(0, 200), 502],
  "a record that is cut off in the head": [
    (peer) => peer.write(record(Type.stdout, peer.received.id, new Uint8Array(100)).slice(0, 50)),
    502,
  ],
  "a record that is cut off in the body": [async (peer) => {
    await peer.stdout(GOOD);
    await peer.write(record(Type.stdout, peer.received.id, new Uint8Array(100)).slice(0, 50));
  }, [200, null]],
  "a body without an end": [(peer) => peer.stdout(GOOD), [200, null]],
  "FCGI_STDERR alone": [(peer) => peer.stderr("failed\n"), 502],
  "the end of FCGI_STDOUT first": [async (peer) => {
    await peer.write(record(Type.stdout, peer.received.id));
    await peer.write(endRequest(peer.received.id));
  }, 502],
  "records of a web server, an unknown type and management records": [async (peer) => {
    const { id } = peer.received;
    await peer.write(beginRequest(id));
    await peer.write(record(Type.params, id));
    await peer.write(record(200, id, new Uint8Array(9)));
    await peer.write(record(200, 0, new Uint8Array(9)));
    await peer.write(getValues("FCGI_MAX_CONNS"));
    await peer.response(GOOD);
  }, [200, "hello"]],
  "records after FCGI_END_REQUEST": [async (peer) => {
    await peer.response(GOOD);
    await peer.stdout("evil");
  }, [200, "hello"]],
};

Deno.test("fastCGIGateway() makes no success of hostile records", async () => {
  for (const [name, [run, outcome]] of Object.entries(RECORDS)) {
    await using application = new Application(async (peer) => {
      // A lost GET is sent again, over a new connection.
      if (await peer.request() !== undefined) await run(peer);
    });
    using gateway = fastCGIGateway(application.address, { log });
    await using server = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen() {} }, gateway);
    check(name, await get(`http://127.0.0.1:${server.addr.port}/`), outcome);
  }
});

/** Waits until the gateway closes the connection. */
async function hang(peer: Peer): Promise<void> {
  const buffer = new Uint8Array(1000);
  while (await deadline(peer.conn.read(buffer).catch(() => null), "the end") !== null);
}

const TIMES: Record<string, [written: string, outcome: Outcome]> = {
  "nothing": ["", 504],
  "half a head": [HEAD, 504],
  "half a body": [GOOD, [200, null]],
  "half a body with a length": [`${HEAD}Content-Length: 9\n\nhello`, [200, null]],
};

Deno.test("gateways end a response that does not go on", async () => {
  const options = { log, timeout: 300 };
  const root = await Deno.makeTempDir();
  try {
    for (const [name, [written, outcome]] of Object.entries(TIMES)) {
      let wrote: boolean;
      await using fastcgi = new Application(async (peer) => {
        await peer.request();
        if (written !== "") await peer.stdout(written);
        wrote = true;
        await hang(peer);
      });
      await using scgi = new Application(async (peer) => {
        await readSCGI(peer);
        await peer.write(new TextEncoder().encode(written));
        wrote = true;
        await hang(peer);
      });
      const script = `${root}/script`;
      await Deno.writeTextFile(`${root}/written`, written);
      await Deno.writeTextFile(
        script,
        `#!/bin/sh\ncat ${root}/written\n: > ${root}/wrote\nsleep 100\n`,
      );
      await Deno.chmod(script, 0o755);
      using toFastCGI = fastCGIGateway(fastcgi.address, options);
      using toSCGI = scgiGateway(scgi.address, options);
      using toCGI = cgiGateway({ script, ...options });
      for (const gateway of [toFastCGI, toSCGI, toCGI]) {
        await using server = Deno.serve(
          { hostname: "127.0.0.1", port: 0, onListen() {} },
          gateway,
        );
        // The time begins when all was written, however long a busy machine takes for that.
        using clock = new StoppedClock();
        wrote = false;
        const getting = get(`http://127.0.0.1:${server.addr.port}/`);
        await eventually("the application's bytes", () => wrote || existsSync(`${root}/wrote`));
        await turns();
        clock.run();
        check(name, await getting, outcome);
      }
      await Deno.remove(`${root}/wrote`);
    }
  } finally {
    await Deno.remove(root, { recursive: true });
  }
});
