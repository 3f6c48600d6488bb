/** The behaviours that must be the same behind every web server, and the known differences between servers. */
import { assert, assertEquals, assertFalse, assertStringIncludes } from "@std/assert";
import { toByteString } from "../../wire/byte_string.ts";
import { Client, type HTTPResponse, request, requestHTTP2, Witness } from "./client.ts";
import { eventually, type Rig, type Suite } from "./harness.ts";

/** One route to the app through a web server, and how it differs from the others. */
export interface Site {
  /** Host and port. */
  host: string;
  /** The path that the app's routes are below. */
  base?: string;
  protocol?: "cgi" | "fastcgi" | "scgi";
  /** The Host that the app sees, if not the one that the client sent (rule A9). */
  seenHost?: string;
  /** What it does with an absolute target, if it does not pass on a host other than Host (rule A11). */
  absolute?: "rejected" | "no route";
  /** SCRIPT_NAME and PATH_INFO for /caf%C3%A9%2Fx (rules A15, A16). */
  split?: { scriptName?: string; pathInfo?: string };
  /** PATH_INFO for /d/./x/../y//z, or SCRIPT_NAME if the server sends no PATH_INFO (rule A14). */
  dots?: string;
  /** How a chunked upload reaches the app: with a length, without one, or not at all, with a status (rules A21, A22). */
  chunked?: "buffered" | "streamed" | number;
  /** Whether the server sends the rest of the body once the response has begun (rule C13). */
  pipes?: "perhaps";
  /** Whether Authorization reaches the app (rule A28). */
  authorization?: boolean;
  /** How two Cookie fields, of `a=1` and `b=2`, reach the app. @default "a=1; b=2" */
  cookies?: string;
  /** What happens to the app when the client disconnects during the response (rules B22, C21). */
  disconnect?: "aborted" | "killed";
  /** What the client sees of a truncated response: an error, a whole body, or an error page after it (rule B17). */
  truncated?: "error" | "whole" | "page";
  /** Reads the app's log, if it is not in error.log; false if the server drops it. */
  log?: ((rig: Rig) => string) | false;
  /** Whether the server closes the connection after a HEAD request. */
  closesAfterHead?: boolean;
  /** Whether the server passes the Status field on to the client (rule B1). */
  leaksStatus?: boolean;
  /** The type that the server adds to a response without a body. */
  emptyType?: string;
  /** Whether the server reverses the order of fields of the same name. */
  reverses?: boolean;
  /** Whether the server takes the bytes of a field for Latin-1, and sends them as UTF-8. */
  encodesFields?: boolean;
}

/** A request as the app sees it. */
export interface Seen {
  method: string;
  url: string;
  headers: Record<string, string>;
  protocol: string;
  scriptName: string;
  pathInfo: string;
  variables: Record<string, string>;
}

/**
 * Registers a test of each behaviour for one site of a server.
 *
 * @param lacks The behaviours that the server does not have.
 */
export function behaviours<T>(
  suite: Suite<T>,
  name: string,
  site: (started: T) => Site,
  lacks: string[] = [],
): void {
  for (const behaviour of lacks) assert(Object.hasOwn(BEHAVIOURS, behaviour), behaviour);
  for (const [behaviour, run] of Object.entries(BEHAVIOURS)) {
    if (lacks.includes(behaviour)) continue;
    suite.test(`${name}: ${behaviour}`, (started, rig) => {
      const given = site(started);
      return run({ base: "", protocol: "fastcgi", ...given }, rig);
    });
  }
}

type Given = Site & { base: string };

/** Sends a GET request and returns it as the app sees it. */
export async function see(
  { host, base = "" }: Site,
  path: string,
  fields: string[][] = [],
): Promise<Seen> {
  const response = await request(host, "GET", base + path, { fields });
  assertEquals(response.status, 200, response.text);
  return JSON.parse(response.text);
}

/** Checks the host that the app sees of a request over HTTP/2 without TLS. */
export async function checkAuthority(port: number, base = ""): Promise<void> {
  for (const name of ["example.org:8443", "example.org", "[::1]:8443"]) {
    const text = await requestHTTP2(`127.0.0.1:${port}`, base + "/host", name);
    const { url, headers }: Seen = JSON.parse(text);
    assertEquals([url, headers.host], [`http://${name}/host`, name]);
  }
}

/** Returns bytes without a short period. */
function sample(length: number): Uint8Array<ArrayBuffer> {
  const numbers = new Uint32Array(Math.ceil(length / 4));
  for (let i = 0; i < numbers.length; i++) numbers[i] = Math.imul(i, 2654435761);
  return new Uint8Array(numbers.buffer, 0, length);
}

async function sha256(bytes: Uint8Array): Promise<string> {
  return new Uint8Array(await crypto.subtle.digest("SHA-256", bytes as BufferSource)).toHex();
}

/** Reads the first chunk of a streamed body, "first\n". */
export async function readFirst(parts: AsyncIterator<Uint8Array>): Promise<string> {
  let text = "";
  while (text !== "first\n") {
    const { done, value } = await parts.next();
    assertFalse(done, `the body must continue: ${text}`);
    text += new TextDecoder().decode(value);
  }
  return text;
}

const BINARY = [["Content-Type", "application/octet-stream"]];

const BEHAVIOURS: Record<string, (site: Given, rig: Rig) => Promise<void>> = {
  "GET returns the body": async (site) => {
    const { status, head, text } = await request(site.host, "GET", site.base + "/hello");
    assertEquals([status, text], [200, "Hello\n"]);
    assertEquals(head.all("content-type"), ["text/plain;charset=UTF-8"]);
    assertEquals(head.all("status"), site.leaksStatus ? ["200 OK"] : []);
  },

  "HEAD returns no body": async (site) => {
    using client = await Client.connect(site.host);
    await client.sendHead("HEAD", site.base + "/hello");
    const { status, head } = await client.readResponse("HEAD");
    assertEquals(status, 200);
    assertEquals(head.all("content-type"), ["text/plain;charset=UTF-8"]);
    if (site.closesAfterHead) {
      assertEquals(head.get("connection"), "close");
      return await client.expectEnd();
    }
    await client.sendHead("GET", site.base + "/hello");
    assertEquals((await client.readResponse()).text, "Hello\n");
  },

  "POST returns a body of 10 MB that the app buffers": async (site) => {
    const body = sample(10_000_000);
    const response = await request(site.host, "POST", site.base + "/echo", {
      body,
      fields: BINARY,
    });
    assertEquals([response.status, response.body.length], [200, body.length]);
    assertEquals(await sha256(response.body), await sha256(body));
  },

  "POST returns a body of 10 MB that the app streams": async (site) => {
    const body = sample(10_000_000);
    using client = await Client.connect(site.host);
    await client.sendHead("POST", site.base + "/pipe", [
      ["Content-Length", String(body.length)],
      ...BINARY,
    ]);
    // A server that has responded may stop reading the body or close the connection.
    client.send(body).catch(() => {});
    const head = await client.readHead();
    assertEquals(head.status, 200);
    const { bytes, outcome } = await client.readCut(head);
    assertEquals(await sha256(bytes), await sha256(body.subarray(0, bytes.length)));
    const whole = bytes.length === body.length;
    // The end of an SCGI response is that of its connection.
    if (site.protocol !== "scgi") assertEquals(outcome, whole ? "whole" : "error");
    if (site.pipes !== "perhaps") assert(whole);
  },

  "POST uploads a chunked body": async (site) => {
    const body = sample(300_000);
    using client = await Client.connect(site.host);
    await client.sendHead("POST", site.base + "/sum", [
      ["Transfer-Encoding", "chunked"],
      ...BINARY,
    ]);
    const send = async () => {
      for (let at = 0; at < body.length; at += 70_000) {
        await client.sendChunk(body.subarray(at, at + 70_000));
      }
      await client.sendChunk(new Uint8Array());
    };
    const sent = send().catch(() => {});
    const { status, text } = await client.readResponse();
    await sent;
    if (typeof site.chunked === "number") return assertEquals(status, site.chunked);
    assertEquals(status, 200, text);
    assertEquals(JSON.parse(text), {
      length: body.length,
      sha256: await sha256(body),
      declared: site.chunked === "streamed" ? null : String(body.length),
    });
  },

  "a stream sends its first chunk before the app makes the next": async (site) => {
    using witness = new Witness();
    using client = await Client.connect(site.host);
    await client.sendHead("GET", `${site.base}/stream?witness=${witness.port}`);
    assertEquals(await witness.next("the app streams"), "ready");
    const parts = client.readParts(await client.readHead());
    let text = await readFirst(parts);
    await witness.write("go on");
    for await (const part of parts) text += new TextDecoder().decode(part);
    assertEquals(text, "first\nlast\n");
  },

  "two cookies reach the client as two fields": async (site) => {
    const { head } = await request(site.host, "GET", site.base + "/cookies");
    const cookies = ["a=1; Path=/", "b=2; HttpOnly"];
    assertEquals(head.all("set-cookie"), site.reverses ? cookies.reverse() : cookies);
  },

  "204 has no body, and the connection stays usable": async (site) => {
    using client = await Client.connect(site.host);
    await client.sendHead("GET", site.base + "/nothing");
    const { status, head } = await client.readResponse();
    assertEquals(status, 204);
    assertEquals(head.all("content-type"), site.emptyType === undefined ? [] : [site.emptyType]);
    await client.sendHead("GET", site.base + "/hello");
    assertEquals((await client.readResponse()).text, "Hello\n");
  },

  "a redirect reaches the client": async (site) => {
    const { status, head } = await request(site.host, "GET", site.base + "/redirect");
    assertEquals(status, 303);
    assertEquals(new URL(head.get("location")!, "http://" + site.host).pathname, "/hello");
  },

  "a Location without a redirect status reaches the client": async (site) => {
    const { status, head, text } = await request(site.host, "GET", site.base + "/created");
    assertEquals([status, text], [201, "Made\n"]);
    assertEquals(new URL(head.get("location")!, "http://" + site.host).pathname, "/hello");
  },

  "the host and port that the client sent reach the app": async (site) => {
    for (const name of ["example.org:8443", "example.org", "[::1]:8443"]) {
      const { text } = await request(site.host, "GET", site.base + "/host", { name });
      const { url, headers }: Seen = JSON.parse(text);
      const seen = site.seenHost === undefined ? name : name.replace(/:\d+$/, "");
      assertEquals([url, headers.host], [`http://${seen}/host`, seen]);
    }
  },

  "the host of an absolute target reaches the app in place of Host": async (site) => {
    const send = (host: string, name: string) =>
      request(site.host, "GET", `http://${host}${site.base}/host?q`, { name });
    const check = ({ text }: HTTPResponse, host: string) => {
      const { url, headers }: Seen = JSON.parse(text);
      assertEquals([url, headers.host], [`http://${host}/host?q`, host]);
    };
    const name = "target.example:8443";
    const other = await send("target.example", "other.example:8443");
    if (site.absolute === "no route") return assertEquals(other.status, 404);
    check(await send(name, name), site.seenHost === undefined ? name : "target.example");
    if (site.absolute === "rejected") return assertEquals(other.status, 400);
    check(other, "target.example");
  },

  "an encoded path and query reach the app": async (site) => {
    const path = "/caf%C3%A9%2Fx?q=a+b";
    const seen = await see(site, path);
    const host = site.seenHost ?? site.host;
    assertEquals(seen.url, `http://${host}${path}`);
    assertEquals(seen.protocol, site.protocol);
    assertEquals([seen.scriptName, seen.pathInfo], [site.base, "/café/x"]);
    assertEquals(seen.variables.QUERY_STRING, "q=a+b");
    assertEquals(
      { scriptName: seen.variables.SCRIPT_NAME, pathInfo: seen.variables.PATH_INFO },
      { scriptName: site.base, pathInfo: "/café/x", ...site.split },
    );
  },

  "a path with dot segments and double slashes reaches the app": async (site) => {
    const seen = await see(site, "/d/./x/../y//z");
    const { SCRIPT_NAME, PATH_INFO } = seen.variables;
    assertEquals(new URL(seen.url).pathname, "/d/y//z");
    assertEquals(PATH_INFO || SCRIPT_NAME, site.dots ?? "/d/y/z");
  },

  "header fields reach the app": async (site) => {
    const { headers, variables } = await see(site, "/headers", [
      ["X-Text", "caf\u00e9, \u00fc"],
      ["Cookie", "a=1; b=2"],
      ["Proxy", "http://evil.example"],
      ["Authorization", "Basic dTpw"],
      ["X-Forwarded-Proto", "https"],
      ["TE", "trailers"],
    ]);
    const sent = toByteString("caf\u00e9, \u00fc");
    assertEquals(headers["x-text"], site.encodesFields ? toByteString(sent) : sent);
    assertEquals(headers.cookie, "a=1; b=2");
    assertEquals([headers.proxy, headers.te, variables.HTTP_PROXY], [
      undefined,
      undefined,
      undefined,
    ]);
    assertEquals(headers.authorization, site.authorization === false ? undefined : "Basic dTpw");
    assertEquals(variables.REMOTE_ADDR, "127.0.0.1");
  },

  "two Cookie fields reach the app": async (site) => {
    const { headers } = await see(site, "/headers", [["Cookie", "a=1"], ["Cookie", "b=2"]]);
    assertEquals(headers.cookie, site.cookies ?? "a=1; b=2");
  },

  "an error is logged and not shown": async (site, rig) => {
    const mark = crypto.randomUUID();
    const { status, text } = await request(site.host, "GET", `${site.base}/throw?mark=${mark}`);
    assertEquals(status, 500);
    assertFalse(text.includes("secret"), text);
    if (site.log === false) return;
    const log = site.log ?? ((rig: Rig) => rig.read("error.log"));
    const stack = new RegExp(`the cause, which is secret ${mark}[^]*app\\.ts:\\d+`);
    await eventually("the stack is in the log", () => stack.test(log(rig)));
  },

  "a response whose body fails is truncated": async (site) => {
    using witness = new Witness();
    using client = await Client.connect(site.host);
    const target = `${site.base}/fail?witness=${witness.port}`;
    await client.sendHead("GET", target, [["Connection", "close"]]);
    assertEquals(await witness.next("the app streams"), "ready");
    const head = await client.readHead();
    assertEquals(head.status, 200);
    const parts = client.readParts(head);
    // A server that has sent nothing yet may respond differently.
    const first = await readFirst(parts);
    await witness.write("fail");
    const { bytes, outcome } = await client.readCut(head, parts);
    const text = first + new TextDecoder().decode(bytes);
    // mod_fcgid appends an error page of its own.
    if (site.truncated === "page") return assertStringIncludes(text, "first\n<!DOCTYPE HTML");
    assertEquals(text, "first\n");
    // Without a length, the end of a CGI or SCGI response is the end of its connection.
    assertEquals(outcome, site.truncated ?? (site.protocol === "fastcgi" ? "error" : "whole"));
  },

  "a response sent before the body is read reaches the client": async (site) => {
    const { status, text } = await request(site.host, "POST", site.base + "/early", {
      body: sample(10_000_000),
      fields: BINARY,
    });
    assertEquals([status, text], [413, "Too much\n"]);
  },

  "a path that looks like a host stays a path": async (site) => {
    const seen = await see(site, "//evil.example/x");
    assertEquals(seen.url, `http://${site.seenHost ?? site.host}//evil.example/x`);
  },

  "TRACE does not reach the app": async (site) => {
    const { status, head, text } = await request(site.host, "TRACE", site.base + "/hello");
    // Apache responds by itself where it serves files.
    if (status === 200) assertEquals(head.get("content-type"), "message/http");
    else assert([405, 501].includes(status), `${status}`);
    assert(text !== "Hello\n");
  },

  "a client that disconnects aborts the request": async (site) => {
    using witness = new Witness();
    const client = await Client.connect(site.host);
    await client.sendHead("GET", `${site.base}/endless?witness=${witness.port}`);
    assertEquals(await witness.next("the app starts"), "started");
    const head = await client.readHead();
    assertEquals(head.status, 200);
    const { done } = await client.readParts(head).next();
    assert(!done);
    client[Symbol.dispose]();
    const last = await witness.next("the request aborts");
    if (site.disconnect !== "killed") return assertEquals(last, "aborted");
    // The app may see the abort before it is killed.
    if (last !== undefined) {
      assertEquals([last, await witness.next("the app ends")], ["aborted", undefined]);
    }
  },

  "the server keeps serving": async (site) => {
    const responses = await Promise.all(
      Array.from({ length: 8 }, () => request(site.host, "GET", site.base + "/hello")),
    );
    assertEquals(responses.map(({ text }) => text), Array(8).fill("Hello\n"));
  },
};
