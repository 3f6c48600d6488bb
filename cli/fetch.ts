/**
 * `fetch`: sends one request to a FastCGI or SCGI application, as curl does over HTTP.
 *
 * @module
 */

import { printable } from "../io/printable.ts";
import { shellQuote } from "../debug/shell_command.ts";
import { fetchFastCGI, fetchSCGI } from "../gateway.ts";
import { type FoundScript, ScriptFinder } from "../gateway/fastcgi.ts";
import { logLine } from "../io/log.ts";
import { toText } from "../wire/byte_string.ts";
import { reasonPhrase } from "../wire/cgi.ts";
import { readAddress } from "./address.ts";
import { type Arguments, formatUsage, names, type Usage } from "./arguments.ts";
import { Failure, UsageError } from "./errors.ts";
import { DATA, HEADER, readData, readHeaders, split } from "./request_options.ts";
import { SPECIFIER } from "./version.ts";

/** The options of `fetch`. */
export const usage: Usage = {
  name: "fetch",
  operands: "ADDR [PATH]",
  about:
    `Sends a request to the FastCGI or SCGI application at ADDR (host:port or unix:/path) and prints the body of
the response. What the application logs goes to stderr. Ends with 0 if the status is below 400, else with 1, as health
checks expect.`,
  options: [
    { name: "protocol", short: "p", value: "P", about: "fastcgi (default) or scgi" },
    {
      name: "request",
      short: "X",
      value: "METHOD",
      about: "the method. Default: GET, with --data POST",
    },
    HEADER,
    DATA,
    { name: "include", short: "i", about: "print status and headers before the body" },
    {
      name: "root",
      value: "DIR",
      about: "the folder of the application's scripts, which PHP needs",
    },
    {
      name: "variable",
      value: "NAME=VALUE",
      repeats: true,
      about: "another meta-variable, such as REMOTE_USER=ann",
    },
    {
      name: "values",
      about: "print the limits of a FastCGI application (FCGI_GET_VALUES) instead",
    },
    { name: "timeout", value: "SECONDS", about: "how long to wait for the next byte. Default: 60" },
  ],
  instead: {
    ...names(["method"], (method = "METHOD") => `Use --request ${method}`),
    ...names(["body"], (body = "BODY") => `Use --data ${body}`),
    ...names(["scgi"], () => "Use --protocol scgi"),
    ...names(["var", "env", "param"], (value = "NAME=VALUE") => `Use --variable ${value}`),
  },
  example: `deno run --allow-net=127.0.0.1:9000 ${SPECIFIER} fetch 127.0.0.1:9000 /users?id=7 -i`,
};

/** Sends the request. @returns The exit code. */
export async function run(args: Arguments): Promise<number> {
  const [address, path = "/", extra] = args.operands;
  if (address === undefined) {
    throw new UsageError(
      `Name the application's address, as in: fetch 127.0.0.1:9000 /\n\n${formatUsage(usage)}`,
    );
  }
  if (args.has("values")) return await printValues(args, address);
  if (extra !== undefined) throw new UsageError(`One path is fetched: "${extra}" is one too many.`);
  if (!path.startsWith("/")) {
    throw new UsageError(`The path must begin with /: current value is "${path}".`);
  }
  readAddress(address);
  const protocol = args.choice("protocol", ["fastcgi", "scgi"]) ?? "fastcgi";
  const request = await createRequest(args, path);
  const seconds = args.number("timeout", 1) ?? 60;
  /** Whether PHP-FPM responds that there is no script. */
  let isPHP = false;
  /** The last line of the log. The reason why a response is truncated is one. */
  let logged = "";
  const options = {
    root: args.text("root"),
    variables: Object.fromEntries(args.all("variable").map((text) => split(text, "=", "variable"))),
    timeout: seconds * 1000,
    connectTimeout: seconds * 1000,
    log: (line: string) => {
      logLine(line);
      logged = line;
      isPHP ||= line.includes("Primary script unknown");
    },
  };
  if (options.root !== undefined && protocol === "fastcgi") {
    checkScript(request, options.root, address);
  }
  let response: Response | undefined;
  try {
    response = await (protocol === "fastcgi" ? fetchFastCGI : fetchSCGI)(request, address, options);
    await print(response, args.has("include"));
  } catch (error) {
    const cause = error as Error;
    if (response !== undefined && cause.message === logged) {
      throw new Failure(
        `Cannot fetch from ${address} as its response must be complete: it is truncated`,
      );
    }
    const message = protocol === "scgi" && response === undefined
      ? explainSCGI(cause, address)
      : undefined;
    throw new Failure(message ?? explain(cause, address, protocol, options.root));
  }
  if (response.status < 400) return 0;
  logLine(`${address} responded with ${response.status} ${reasonPhrase(response.status)}`);
  if (isPHP && options.root === undefined) {
    logLine(`PHP-FPM needs the folder of its scripts: --root DIR. ${ownPaths(address, path)}`);
  }
  return 1;
}

/** The options that apply with --values. */
const VALUES_OPTIONS = ["values", "protocol", "timeout"];

/** Prints the limits of a FastCGI application. @returns The exit code. */
async function printValues(args: Arguments, address: string): Promise<number> {
  const { operands } = args;
  if (operands.length > 1) {
    throw new UsageError(`--values takes no path: "${operands[1]}" is one too many.`);
  }
  const other = usage.options.find(({ name }) => !VALUES_OPTIONS.includes(name) && args.has(name));
  if (other !== undefined) {
    throw new UsageError(`--values sends no request: leave out --${other.name}.`);
  }
  if (args.choice("protocol", ["fastcgi", "scgi"]) === "scgi") {
    throw new UsageError("--values is for fastcgi: scgi cannot name limits.");
  }
  const endpoint = readAddress(address);
  const { fetchValues } = await import("./fetch_values.ts");
  try {
    const values = await fetchValues(endpoint, (args.number("timeout", 1) ?? 60) * 1000);
    for (const [name, value] of values) {
      console.log(`${printable(toText(name))}=${printable(toText(value))}`);
    }
    if (values.length === 0) logLine(`${address} knows none of the values`);
  } catch (error) {
    throw new Failure(explain(error as Error, address, "fastcgi"));
  }
  return 0;
}

/**
 * Checks that the root has the script: otherwise nothing is sent.
 *
 * @throws {Failure} If it has not.
 */
function checkScript(request: Request, root: string, address: string): void {
  const url = new URL(request.url);
  let found: FoundScript | Response;
  try {
    found = new ScriptFinder({ root, log: logLine }).find(request, url);
  } catch (error) {
    throw new Failure(explain(error as Error, address, "fastcgi", root));
  }
  if (!(found instanceof Response)) return;
  const cannot =
    `Cannot send a request to ${address} as ${root} must have a script for ${url.pathname}`;
  const location = found.headers.get("location");
  if (location !== null) {
    const what = location.endsWith("/") ? "a folder" : "one at another path";
    throw new Failure(`${cannot}: it has ${what}. Fetch ${shellQuote(location)}`);
  }
  const hint = /\.php\b/.test(url.pathname) ? "" : `. ${ownPaths(address, url.pathname)}`;
  throw new Failure(`${cannot}: it has none${hint}`);
}

/** Says how to fetch a path that PHP-FPM responds to by itself: it compares SCRIPT_NAME, and needs SCRIPT_FILENAME. */
function ownPaths(address: string, path: string): string {
  const [own] = path.split("?", 1);
  const name = shellQuote(own === "/" ? "/ping" : own);
  return `If it is a path of PHP-FPM's own (ping.path, pm.status_path): fetch ${
    shellQuote(address)
  } / --variable SCRIPT_NAME=${name} --variable SCRIPT_FILENAME=${name}`;
}

async function createRequest(args: Arguments, path: string): Promise<Request> {
  const headers = readHeaders(args);
  const body = await readData(args, headers);
  const method = args.text("request") ?? (body === undefined ? "GET" : "POST");
  try {
    return new Request(`http://${headers.get("host") ?? "localhost"}${path}`, {
      method,
      headers,
      body,
      redirect: "manual",
    });
  } catch (error) {
    throw new UsageError(`Cannot create the request: ${(error as Error).message}.`);
  }
}

async function print(response: Response, withHead: boolean): Promise<void> {
  if (withHead) {
    const reason = response.statusText || reasonPhrase(response.status);
    console.log(`${response.status} ${printable(toText(reason))}`);
    for (const [name, value] of response.headers) {
      console.log(`${name}: ${printable(toText(value))}`);
    }
    console.log();
  }
  try {
    await response.body?.pipeTo(Deno.stdout.writable, { preventClose: true });
  } catch (error) {
    // Stdout is closed, as by "fetch … | head".
    if (!(error instanceof Deno.errors.BrokenPipe)) throw error;
  }
}

/** Explains a connection that closed without a response, as a FastCGI application closes one that speaks SCGI. */
function explainSCGI({ message }: Error, address: string): string | undefined {
  if (!/it is empty, without a header block|did not send all of it/.test(message)) return undefined;
  return `Cannot fetch from ${address} as it must be an SCGI application: it closed the connection without a response. Try --protocol fastcgi, or curl if it is an HTTP server`;
}

function explain({ message }: Error, address: string, protocol: string, root?: string): string {
  const cannot = `Cannot fetch from ${address}`;
  if (/os error (?:111|2|61)\b/.test(message)) {
    return `${cannot}: nothing listens there. Start the app, as in: serve app.ts --protocol ${protocol} --listen ${
      shellQuote(address)
    }`;
  }
  if (message.includes("version must be 1")) {
    return `${cannot} as it must be a FastCGI application: its response is not FastCGI. Try --protocol scgi, or curl if it is an HTTP server`;
  }
  if (message.includes("run again with")) {
    const unix = /^unix:(.*)$/s.exec(address)?.[1];
    const flags = [
      `--allow-net=${address}`,
      ...unix === undefined ? [] : [`--allow-read=${unix}`, `--allow-write=${unix}`],
      ...root === undefined ? [] : [`--allow-read=${root}`],
    ];
    return `${cannot} as Deno denies it: type ${flags.map(shellQuote).join(" ")} after "deno run"`;
  }
  return `${cannot}: ${message}`;
}
