import { versions } from "node:process";

const BUNDLE = "the stack names the bundle";
const ENV = "replaces Deno.env";
const LISTENER = "needs a listener that does not accept";
const TIMING = "needs connections as fast as those of Deno";
const STREAM = "a Blob's stream takes longer than a turn of the microtask queue";

const ORDER = "its Headers have another order";
const TYPE = "its Response of a text has no type";
const PATCH = "its Request has the method PATCH";
const LOCKED = "a body that was read has another state";

/** What is different on Bun alone. */
const BUN = {
  "request.method is the method, normalized as by fetch (rule A5)": PATCH,
  "CGI fields are spelled as RFC 3875 spells them (rule B7)": ORDER,
  "a stream without a type is application/octet-stream, no body has no type (rule B7)": TYPE,
  "a value that is no Response, or was read, is an error of the app": LOCKED,
};

/** Tests that do not hold on this runtime, or not in one bundle, by name, each with the reason. */
export const DIFFERENT: Record<string, string> = {
  ...versions.bun === undefined ? {} : BUN,
  "FCGI_WEB_SERVER_ADDRS is the default of webServerAddresses (rule C25)": ENV,
  "ConnectionPool stops connecting after connectTimeout, and frees its slot": LISTENER,
  "ConnectionPool keeps no connection while another has waited for long": LISTENER,
  "fastCGIGateway() keeps as many connections as are in use at once": TIMING,
  "a small response is one write: head, body and end (rule B15)": STREAM,
  "fastCGIGateway() responds with 502 if nothing listens, and logs it":
    "the system's error has another text",
  "serveFastCGI() sends no bytes over a Unix socket to detect whether the web server has disconnected (rule C22)":
    "node:net detects this by a record",
  "no byte of one request is in a buffer of another, through cgiGateway()": "it needs Deno",
  ...Object.fromEntries(
    [
      "an app that throws",
      "an app that rejects",
      "an app that throws later",
      "an app that returns a body that fails at once",
      "an app that throws as an object's fetch",
    ].map((
      app,
    ) => [`${app}: 500 without the cause, and the stack in the log (rules B17, F6)`, BUNDLE]),
  ),
};
