/** Hostile input must not cost more than its length (rule F8): each decoder, header rule and regular expression, at growing lengths. */
import process from "node:process";
import { Redactor } from "../debug/redact.ts";
import { AssertionError } from "@std/assert";
import { LineLog } from "../io/line_log.ts";
import { mountPrefix, requestFields, requestHref, requestURL } from "../bridge/request.ts";
import { remoteAddress, trustedForwarded } from "../server/forwarded.ts";
import { ResponseReader } from "../gateway/response.ts";
import { decodeTarget, fileNames, hasBadName, splitScript } from "../gateway/script_path.ts";
import { decodeDebugFormat, toText } from "../wire/byte_string.ts";
import { encodeHead, HeadDecoder } from "../wire/cgi.ts";
import { ChunkedDecoder } from "../wire/chunked.ts";
import { decodePairs, RecordDecoder } from "../wire/fastcgi.ts";
import { SCGIHeaderDecoder } from "../wire/scgi.ts";
import { Variables } from "../wire/variables.ts";
import { bytes, split } from "./testing/bytes.ts";

/** Runs what may reject its input. */
function attempt(run: () => unknown): void {
  try {
    run();
  } catch {
    // Rejecting it is fine.
  }
}

const decodeHead = (chunks: Uint8Array[]) => {
  const decoder = new HeadDecoder(Infinity);
  for (const chunk of chunks) decoder.push(chunk);
};
const url = (pairs: Record<string, string>) => {
  const variables = new Variables(Object.entries(pairs));
  const forwarded = trustedForwarded(variables, { trustForwarded: true });
  return requestURL(variables, undefined, forwarded, "fastcgi", undefined);
};

/** What is run, by name, with a length. */
const COSTS: Record<string, (length: number) => () => unknown> = {
  "a header value with blanks inside": (n) => {
    const chunk = bytes(`X: a${" ".repeat(n)}b\r\n\r\n`);
    return () => decodeHead([chunk]);
  },
  "a header value with blanks at its end": (n) => {
    const chunk = bytes(`X: a${" \t".repeat(n / 2)}\r\n\r\n`);
    return () => decodeHead([chunk]);
  },
  "a status line with blanks": (n) => {
    const chunk = bytes(`HTTP/1.1 200${" ".repeat(n)}\rx\n\n`);
    return () => decodeHead([chunk]);
  },
  "a status line without a status": (n) => {
    const chunk = bytes(`HTTP/1.1${" ".repeat(n)}x\n\n`);
    return () => decodeHead([chunk]);
  },
  "a Status field with blanks": (n) => {
    const chunk = bytes(`Status: 200${"\t ".repeat(n / 2)}x\n\n`);
    return () => decodeHead([chunk]);
  },
  "a head of many fields": (n) => {
    const chunk = bytes(`${"a:b\n".repeat(n / 4)}\n`);
    return () => decodeHead([chunk]);
  },
  "a head of line feeds": (n) => {
    const chunk = bytes("\r".repeat(n));
    return () => decodeHead([chunk]);
  },
  "a head byte by byte": (n) => {
    const chunks = split(bytes(`X: ${"a".repeat(n)}`));
    return () => decodeHead(chunks);
  },
  "a response byte by byte": (n) => {
    const chunks = split(bytes(`Content-Type: a/b\n\n${"a".repeat(n)}`));
    return () => {
      const reader = new ResponseReader({
        method: "GET",
        maxHeaderBytes: Infinity,
        oncancel() {},
        oncomplete() {},
        log() {},
      });
      for (const chunk of chunks) reader.push(chunk as Uint8Array<ArrayBuffer>);
    };
  },
  "chunked coding": (n) => {
    const chunk = bytes("1;x=y\r\na\r\n".repeat(n / 10));
    return () => {
      for (const _ of new ChunkedDecoder().push(chunk as Uint8Array<ArrayBuffer>));
    };
  },
  "a long chunk size": (n) => {
    const chunk = bytes("0".repeat(n));
    return () => {
      for (const _ of new ChunkedDecoder().push(chunk as Uint8Array<ArrayBuffer>));
    };
  },
  "FastCGI pairs": (n) => {
    const content = bytes("\x01\x01ab".repeat(n / 4));
    return () => decodePairs(content);
  },
  "FastCGI records byte by byte": (n) => {
    const chunks = split(bytes("\x01\x05\x00\x01\x00\x01\x00\x00a".repeat(n / 9)));
    return () => {
      const decoder = new RecordDecoder();
      for (const chunk of chunks) decoder.push(chunk, { record() {} });
    };
  },
  "SCGI headers byte by byte": (n) => {
    const chunks = split(bytes(`${n}:${"a\0b\0".repeat(n / 4)},`));
    return () => {
      const decoder = new SCGIHeaderDecoder(Infinity);
      for (const chunk of chunks) decoder.push(chunk);
    };
  },
  "variables of one name": (n) => {
    const pairs = Array.from({ length: n / 16 }, () => ["HTTP_COOKIE", "a=b"] as const);
    return () => new Variables(pairs).byteString("HTTP_COOKIE");
  },
  "slashes in SCRIPT_NAME": (n) => {
    const variables = new Variables([["SCRIPT_NAME", `${"/".repeat(n)}x`], ["PATH_INFO", "/"]]);
    return () => mountPrefix(variables, "/x", "fastcgi", undefined);
  },
  "a path of slashes": (n) => {
    const path = "/".repeat(n);
    return () => url({ REQUEST_URI: path, SCRIPT_NAME: "/", PATH_INFO: path, HTTP_HOST: "a" });
  },
  "a path of percent signs": (n) => () =>
    url({ REQUEST_URI: `/${"%2f%".repeat(n / 4)}`, SCRIPT_NAME: "/%", HTTP_HOST: "a" }),
  "a path of dots": (n) => () => url({ REQUEST_URI: "/..".repeat(n / 3), HTTP_HOST: "a" }),
  "an absolute REQUEST_URI": (n) => () =>
    url({ REQUEST_URI: `http:${"/".repeat(n)}`, HTTP_HOST: "a" }),
  "a host of labels": (n) => {
    const variables = new Variables([["REQUEST_URI", "/"], [
      "HTTP_HOST",
      `${"a.".repeat(n / 2)}!`,
    ]]);
    return () => requestHref(variables);
  },
  "a host of colons": (n) => () => url({ REQUEST_URI: "/", HTTP_HOST: ":1".repeat(n / 2) }),
  "a SERVER_NAME of colons": (n) => () =>
    url({ REQUEST_URI: "/", SERVER_NAME: `${":1".repeat(n / 2)}x` }),
  "X-Forwarded-Proto of blanks": (n) => () =>
    url({ REQUEST_URI: "/", HTTP_X_FORWARDED_PROTO: `https${" ".repeat(n)}x` }),
  "X-Forwarded-For of commas": (n) => {
    const variables = new Variables([["HTTP_X_FORWARDED_FOR", ",".repeat(n)]]);
    return () => remoteAddress(variables, { trustForwarded: true });
  },
  "cookies": (n) => {
    const variables = new Variables(
      Array.from({ length: n / 16 }, () => ["HTTP_COOKIE", "a=b"] as const),
    );
    return () => requestFields(variables, {});
  },
  "a gateway's path": (n) => () => decodeTarget("/..%2f.".repeat(n / 7)),
  "a gateway's names": (n) => () => [...fileNames("/%41".repeat(n / 4))],
  "a gateway's dots": (n) => () => hasBadName("/a.".repeat(n / 3)),
  "a gateway's script": (n) => () =>
    splitScript("/a".repeat(n / 2), { split: [".php"], index: "" }),
  "a head to send": (n) => () => encodeHead(200, " \x01".repeat(n / 2), [["x", " ".repeat(n)]]),
  "Rust's Debug format": (n) => () => decodeDebugFormat("\\xE9a\\".repeat(n / 6)),
  "a text that is not UTF-8": (n) => () => toText("\xe9a".repeat(n / 2)),
  "a text to redact": (n) => () =>
    ["a", "a=", "key=", "key: '", "a%3D", "a://", "eyJaaaaaaaa.", "@"].forEach((part) =>
      new Redactor().text(part.repeat(n / part.length))
    ),
  "a text to redact with many secrets": (n) => {
    const redactor = new Redactor();
    for (let i = 0; i < n / 10; i++) redactor.learn("token", `secret ${i}`);
    const text = "secrets ".repeat(n / 8);
    return () => redactor.text(text);
  },
  "source lines to redact": (n) => () =>
    [
      "key=",
      "key: [",
      "key='",
      '"key", ',
      "key ?? (",
      "key =\n",
      "key: a<",
      "-----BEGIN PRIVATE KEY-----",
    ].forEach((part) => new Redactor().source(part.repeat(n / part.length))),
  "a log line in pieces": (n) => {
    const chunks = split(bytes("a".repeat(n)));
    return () => {
      const log = new LineLog(() => {});
      for (const chunk of chunks) log.push(chunk);
    };
  },
};

const LENGTH = 16_384;
/** Shorter times say nothing, in milliseconds. */
const NOISE = 4;
const ROUNDS = 5;

/**
 * The least time of the processor in several runs, in milliseconds: other programs only ever add to it.
 *
 * @param enough A time that is short enough, so that no other run is needed.
 */
function timeOf(run: () => unknown, enough = 0): number {
  let least = Infinity;
  for (let i = 0; i < 5 && least >= enough; i++) {
    const start = process.cpuUsage();
    attempt(run);
    const { user, system } = process.cpuUsage(start);
    least = Math.min(least, (user + system) / 1000);
  }
  return least;
}

for (const [name, prepare] of Object.entries(COSTS)) {
  Deno.test(`${name}: four times the length takes at most nine times as long`, () => {
    attempt(prepare(LENGTH));
    const measured: string[] = [];
    // A busy machine can slow one round down; what grows too fast fails in each.
    for (let round = 0; round < ROUNDS; round++) {
      const most = timeOf(prepare(LENGTH * 4), NOISE);
      if (most < NOISE) return;
      const least = timeOf(prepare(LENGTH));
      if (most < 9 * Math.max(least, NOISE / 9)) return;
      measured.push(`${least.toFixed(2)} and ${most.toFixed(2)}`);
    }
    throw new AssertionError(`it took ${measured.join(" ms; ")} ms`);
  });
}
