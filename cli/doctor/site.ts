/**
 * `doctor http://localhost/`: what is wrong between a web server and an app.
 *
 * @module
 */

import { fetchFastCGI, fetchSCGI } from "../../gateway.ts";
import { printable } from "../../io/printable.ts";
import type { Arguments } from "../arguments.ts";
import { readAddress } from "../address.ts";
import { UsageError } from "../errors.ts";
import { type Protocol, PROTOCOL_NAMES } from "./connection.ts";
import { createFinding, type FindingOf, printFindings } from "./finding.ts";
import type { Report } from "./report.ts";
import { examineServer, hasConfiguration } from "./servers.ts";
import { adviceFor, type AdviceId, type Circumstances, serverNamed } from "./site_advice.ts";
import { PROBE, type Probe, protocolOf, type Seen, StandIn } from "./stand_in.ts";

/** All kinds of findings. Words in braces are replaced. */
export const SITE_FINDINGS = {
  "unreachable": {
    what: "Nothing responds at {url}: {error}",
    advice: "Start the web server, and see why it does not start: journalctl -e",
  },
  "server-error": {
    what: "{server} responds to {url} with {status}",
    advice:
      "See its error log. What the app receives, doctor finds in place of the daemon: stop it, and add --listen ADDR",
  },
  "no-daemon": {
    what: "{server} responds to {url} with {status}, and {file} names no daemon",
    advice:
      "See its error log. If it has another configuration, add --conf FILE. If a CGI script responds: gatehouse doctor {name} --script FILE",
  },
  "not-passed": {
    what: "{server} responds to {url} with {status}, and sends no request to {address}",
    advice: "Compare its configuration with --listen, and see its error log.",
  },
  "protocol": {
    what: "{server} speaks {spoken} with {address}, and not {wanted}",
    advice: "Let it speak {wanted}, or start the daemon with --protocol {option}.",
  },
  "host": {
    what: "The app sees {seen} as its host in place of {wanted}, so that its URLs are wrong",
    advice: "{write}",
  },
  "script-name": {
    what:
      'The app sees the path {seen} in place of {wanted}: SCRIPT_NAME is "{name}", PATH_INFO "{info}"',
    advice: "{write}",
  },
  "authorization": {
    what: "The header Authorization does not reach the app",
    advice: "{write}",
  },
  "httpoxy": {
    what: "A client's header Proxy becomes HTTP_PROXY, which programs take for their own proxy",
    advice: "{write}",
  },
  "buffering": {
    what: "{server} holds back what the app streams until the response ends",
    advice: "{write}",
  },
  "body-limit": {
    what: "An upload of {upload} bytes does not reach the app: {status}",
    advice: "{write}",
  },
  "app-timeout": {
    what: "{server} does not wait {seconds} seconds for the app's response: {status}",
    advice: "{write}",
  },
} as const;

type SiteFinding = FindingOf<keyof typeof SITE_FINDINGS>;

/** The options that are for something else. */
const OTHER_OPTIONS = ["env", "path", "query", "header", "data", "memory", "script"];
/** How long a part of a response may be delayed, in milliseconds. */
const PROBE_DELAY = 5000;
/** How much longer than the app a response may take, in milliseconds. */
const MARGIN = 30_000;
/** The largest upload that is tried by default, in bytes. */
const UPLOAD = 10 * 1024 * 1024;
/** How many daemons get the request. */
const MAX_DAEMONS = 5;
const PROTOCOLS = ["fastcgi", "scgi", "http"] as const;

/** Examines a site. @returns The exit code. */
export async function runSite(operand: string, args: Arguments): Promise<number> {
  const other = OTHER_OPTIONS.find((name) => args.has(name));
  if (other !== undefined) throw new UsageError(`--${other} is not for a site, ${operand}`);
  const url = readURL(operand);
  const seconds = args.number("timeout", 1) ?? 10;
  const address = args.text("listen");
  if (address === undefined) {
    const name = ["protocol", "upload"].find((name) => args.has(name));
    if (name !== undefined) throw new UsageError(`--${name} is for --listen: add that`);
    return await examineRunning(url, seconds * 1000, args);
  }
  readAddress(address);
  const protocol = args.choice("protocol", PROTOCOLS) ?? "fastcgi";
  const upload = args.bytes("upload") ?? UPLOAD;
  const { server, findings } = await examineInPlace({ url, address, protocol, seconds, upload });
  console.log(`${printable(url.href)}, by ${printable(server)}`);
  printFindings(findings);
  return findings.length === 0 ? 0 : 1;
}

function readURL(text: string): URL {
  const url = URL.parse(text);
  if (url === null) throw new UsageError(`Cannot examine "${text}" as it must be a URL`);
  return url;
}

/** Requests a URL of the web server, and of the daemons behind it. */
async function examineRunning(url: URL, ms: number, args: Arguments): Promise<number> {
  const response = await tryFetch(url, ms);
  if (typeof response === "string") {
    const values = { url: url.href, error: response };
    printFindings([createFinding(SITE_FINDINGS, "unreachable", values)]);
    return 1;
  }
  await response.body?.cancel();
  const { status } = response;
  const software = response.headers.get("server") ?? "The web server";
  console.log(`${printable(url.href)}: ${status}, by ${printable(software)}`);
  const name = serverNamed(software);
  const findings: FindingOf[] = [];
  const values = { server: software, url: url.href, status: String(status) };
  let addresses: Report["addresses"] = [];
  if (name !== undefined && hasConfiguration(name, args)) {
    const { file, report } = await examineServer(name, args);
    const { passes } = report;
    addresses = report.addresses;
    console.log(`${printable(file)}: ${passes} ${passes === 1 ? "address" : "addresses"}`);
    findings.push(...report.findings);
    if (status >= 500 && passes === 0 && findings.length === 0) {
      findings.push(createFinding(SITE_FINDINGS, "no-daemon", { ...values, file, name }));
    }
    for (const { protocol, address } of addresses.slice(0, MAX_DAEMONS)) {
      const own = await requestDaemon(url, protocol, address, ms);
      console.log(`${printable(address)}, over ${PROTOCOL_NAMES[protocol]}: ${printable(own)}`);
    }
  }
  if (status >= 500 && findings.length === 0) {
    findings.push(createFinding(SITE_FINDINGS, "server-error", values));
  }
  printFindings(findings);
  if (findings.length > 0) return 1;
  const [daemon] = addresses;
  const option = daemon === undefined
    ? " ADDR"
    : ` ${daemon.address}${daemon.protocol === "fastcgi" ? "" : ` --protocol ${daemon.protocol}`}`;
  console.log(
    `What reaches the app, doctor finds in place of the daemon: stop that, and add --listen${
      printable(option)
    }`,
  );
  return 0;
}

/** Requests a URL. @returns The response, or why there is none. */
async function tryFetch(
  url: URL,
  ms: number,
  init: RequestInit & { client?: Deno.HttpClient } = {},
): Promise<Response | string> {
  try {
    return await fetch(url, { redirect: "manual", signal: AbortSignal.timeout(ms), ...init });
  } catch (error) {
    if (error instanceof Deno.errors.NotCapable) throw error;
    const { message, cause } = error as Error;
    return cause instanceof Error ? cause.message : message;
  }
}

/** Returns what a daemon itself responds, or why it does not. */
async function requestDaemon(
  url: URL,
  protocol: Protocol,
  address: string,
  ms: number,
): Promise<string> {
  try {
    const signal = AbortSignal.timeout(ms);
    const response = protocol === "http"
      ? await requestHTTP(url, address, signal)
      : await (protocol === "fastcgi" ? fetchFastCGI : fetchSCGI)(
        new Request(url, { signal }),
        address,
      );
    await response.body?.cancel();
    return String(response.status);
  } catch (error) {
    if (error instanceof Deno.errors.NotCapable) throw error;
    return (error as Error).message;
  }
}

async function requestHTTP(url: URL, address: string, signal: AbortSignal): Promise<Response> {
  const endpoint = readAddress(address);
  const own = new URL(url);
  own.protocol = "http:";
  if (endpoint.transport === "tcp") own.host = address;
  using client = endpoint.transport === "unix"
    ? Deno.createHttpClient({ proxy: { transport: "unix", path: endpoint.path } })
    : undefined;
  return await fetch(own, { redirect: "manual", signal, client });
}

interface Site {
  url: URL;
  /** Where the daemon listens, else. */
  address: string;
  protocol: Protocol;
  /** How long the app may take. */
  seconds: number;
  /** The largest upload, in bytes. */
  upload: number;
}

/** Takes the place of a daemon, and finds out what comes to it. */
export async function examineInPlace(
  { url, address, protocol, seconds, upload }: Site,
): Promise<{ server: string; findings: SiteFinding[] }> {
  const token = crypto.randomUUID();
  const ms = seconds * 1000;
  let seen: Seen | undefined;
  const begun = Promise.withResolvers<void>();
  const over = new AbortController();
  const probes: Record<string, Probe> = {
    see(_request, what) {
      seen = what;
      return new Response("seen");
    },
    stream: () => new Response(delayedBody(begun.promise, PROBE_DELAY, over.signal)),
    async upload(request) {
      let length = 0;
      for await (const chunk of request.body ?? []) length += chunk.length;
      return new Response(String(length));
    },
    async wait() {
      await passed(ms, over.signal);
      return new Response("waited");
    },
  };
  await using standIn = await StandIn.open(address, protocol, token, probes);
  // A web server that stops waits for the connections that are kept.
  using client = Deno.createHttpClient({ poolMaxIdlePerHost: 0 });
  const request = (name: string, init: RequestInit = {}, headers: Record<string, string> = {}) => {
    const all = { ...headers, [PROBE]: `${token} ${name}` };
    return tryFetch(url, ms + MARGIN, { ...init, headers: all, client });
  };

  const secret = btoa(`doctor:${token}`);
  const first = await request("see", {}, {
    authorization: `Basic ${secret}`,
    proxy: `http://${token}.invalid`,
  });
  // Over HTTP that is this app's own.
  const software = protocol !== "http" && seen?.variables?.get("SERVER_SOFTWARE") ||
    (typeof first === "string" ? "" : first.headers.get("server")) || "The web server";
  const common = { url: url.href, address, server: software, wanted: PROTOCOL_NAMES[protocol] };
  if (seen === undefined) {
    const spoken = standIn.beginnings.map(({ text }) => protocolOf(text))
      .find((spoken) => spoken !== undefined && spoken !== protocol);
    const values = { ...common, status: await outcome(first), option: spoken ?? "" };
    const finding = typeof first === "string" && spoken === undefined
      ? createFinding(SITE_FINDINGS, "unreachable", { ...common, error: first })
      : spoken === undefined
      ? createFinding(SITE_FINDINGS, "not-passed", values)
      : createFinding(SITE_FINDINGS, "protocol", { ...values, spoken: PROTOCOL_NAMES[spoken] });
    return { server: software, findings: [finding] };
  }
  await outcome(first);
  const now: Circumstances = { protocol, path: decoded(url.pathname), seconds, upload };
  const findings: SiteFinding[] = [];
  const find = (id: AdviceId, values: Record<string, string> = {}) => {
    const write = adviceFor(software, id, now);
    if (write === undefined) return;
    findings.push(createFinding(SITE_FINDINGS, id, { ...common, ...values, write }));
  };
  judgeSeen(seen, protocol, url, secret, find);
  const received = standIn.beginnings.map(({ text }) => text).join("\n");
  // The pairs of FastCGI follow each other at once, those of SCGI have a zero byte between them.
  if (/HTTP_PROXY\0?http:/.test(received)) find("httpoxy");

  const streamed = await request("stream");
  if (typeof streamed !== "string" && streamed.ok && !await isStreamed(streamed, begun.resolve)) {
    find("buffering");
  } else if (typeof streamed === "string") find("buffering");
  const sent = await request("upload", { method: "POST", body: new Uint8Array(upload) });
  const arrived = await outcome(sent);
  if (arrived !== String(upload)) find("body-limit", { upload: String(upload), status: arrived });
  const waited = await outcome(await request("wait"));
  over.abort();
  if (waited !== "waited") find("app-timeout", { seconds: String(seconds), status: waited });
  return { server: software, findings };
}

/** Compares what the app has seen with what was sent. */
function judgeSeen(
  seen: Seen,
  protocol: Protocol,
  url: URL,
  secret: string,
  find: (id: AdviceId, values?: Record<string, string>) => void,
): void {
  if (seen.url.host !== url.host) find("host", { seen: seen.url.host, wanted: url.host });
  const name = seen.variables?.get("SCRIPT_NAME") ?? "";
  const info = seen.variables?.get("PATH_INFO") ?? "";
  const path = decoded(url.pathname);
  // Without both, the app takes REQUEST_URI.
  const isLost = protocol !== "http" && ![path, ""].includes(name + info);
  if (isLost || seen.url.pathname !== url.pathname) {
    find("script-name", { seen: seen.url.pathname, wanted: url.pathname, name, info });
  }
  if (seen.headers.get("authorization") !== `Basic ${secret}`) find("authorization");
}

function decoded(path: string): string {
  try {
    return decodeURIComponent(path);
  } catch {
    return path;
  }
}

/** Returns the text of a response that is a success, else its status or error. */
async function outcome(response: Response | string): Promise<string> {
  if (typeof response === "string") return response;
  try {
    const text = await response.text();
    return response.ok ? text : `${response.status} ${response.statusText}`.trim();
  } catch (error) {
    return (error as Error).message;
  }
}

/** Returns a stream with a beginning, and an end once the client has it, or after some time. */
function delayedBody(
  begun: Promise<void>,
  ms: number,
  signal: AbortSignal,
): ReadableStream<Uint8Array<ArrayBuffer>> {
  const encoder = new TextEncoder();
  return new ReadableStream({
    async start(controller) {
      controller.enqueue(encoder.encode("begun\n"));
      const isBegun = await Promise.race([
        begun.then(() => true),
        passed(ms, signal).then(() => false),
      ]);
      controller.enqueue(encoder.encode(isBegun ? "passed on\n" : "delayed\n"));
      controller.close();
    },
  });
}

/** Waits, unless the signal aborts. */
function passed(ms: number, signal: AbortSignal): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  const timer = setTimeout(resolve, ms);
  signal.addEventListener("abort", () => {
    clearTimeout(timer);
    resolve();
  });
  return promise;
}

/** Returns whether the beginning of a response comes before its end. */
async function isStreamed(response: Response, begun: () => void): Promise<boolean> {
  let text = "";
  try {
    for await (const part of response.body!.pipeThrough(new TextDecoderStream())) {
      text += part;
      begun();
    }
  } catch {
    return false;
  }
  return text.endsWith("passed on\n");
}
