/** A program that exports telemetry: makes the calls of telemetry_calls_test.ts by the gateway that its argument names. */
import { serveFastCGI } from "../../fastcgi.ts";
import {
  cgiGateway,
  fastCGIGateway,
  fetchCGI,
  fetchFastCGI,
  fetchSCGI,
  type Gateway,
} from "../../gateway.ts";
import { type GatewayOptions, scgiGateway } from "../../gateway.ts";
import { serveSCGI } from "../../scgi.ts";
import { Application } from "../gateway/application.ts";
import { readSCGI } from "../gateway/fronts.ts";
import { bytes } from "../testing/bytes.ts";

type Call = (request: Request) => Promise<Response>;

/** What calls an application that responds as `respond()` does. */
interface Caller extends AsyncDisposable {
  call: Call;
  /** Calls it by the function that sends one request. */
  once?: Call;
}

const log = () => {};
const { contextManager, tracerProvider } = Deno.telemetry;
const tracer = tracerProvider.getTracer("app");
/** Exports a span that marks a time. */
const mark = (name: string) => tracer.startSpan(name).end();

/** Calls a function in the context of a span, if spans are exported. */
async function within<T>(name: string, call: () => Promise<T>): Promise<T> {
  if (!(Symbol.for("opentelemetry.js.api.1") in globalThis)) return await call();
  const span = tracer.startSpan(name);
  const key = Symbol.for("OpenTelemetry Context Key SPAN");
  try {
    return await contextManager.with(contextManager.active().setValue(key, span), call, undefined);
  } finally {
    span.end();
  }
}

/** Responds with the trace headers, after the status that the path names. */
async function respond(request: Request): Promise<Response> {
  const { pathname } = new URL(request.url);
  const { headers } = request;
  if (pathname === "/hang") {
    hanging.resolve();
    await left.promise;
  }
  await request.bytes();
  const seen = { traceparent: headers.get("traceparent"), tracestate: headers.get("tracestate") };
  const [status, statusText] = STATUSES[pathname] ?? [200, "OK"];
  return Response.json(seen, { status, statusText });
}

/** Resolves when the application has a request that it does not respond to. */
const hanging = Promise.withResolvers<void>();
/** Resolves when its client has left. */
const left = Promise.withResolvers<void>();
const STATUSES: Record<string, [number, string]> = {
  "/missing": [404, "Not Found"],
  "/broken": [503, "Service Unavailable"],
};

/** A CGI script that does the same as `respond()`, and what its arguments say before. */
const SCRIPT = `#!/bin/sh
case "$PATH_INFO" in
  /hang) echo > "$(dirname "$0")/hanging"; exec sleep 60;;
  /missing) echo "Status: 404 Not Found";;
  /broken) echo "Status: 503 Service Unavailable";;
  /parts) printf 'Content-Type: text/plain\\n\\n'; head -c 100000 /dev/zero; exec cat "$(dirname "$0")/gate";;
  /dies) printf 'Content-Length: 200000\\n\\n'; head -c 100000 /dev/zero; exec cat "$(dirname "$0")/gate";;
  /silent) exit 1;;
  /moved) printf 'Location: /there?x=1\\n\\n'; exit;;
esac
quoted() { if [ -n "$1" ]; then printf '"%s"' "$1"; else printf null; fi; }
echo "Content-Type: application/json"
echo
echo "{\\"traceparent\\":$(quoted "$HTTP_TRACEPARENT"),\\"tracestate\\":$(quoted "$HTTP_TRACESTATE")}"
`;

async function cgi(options: GatewayOptions = {}): Promise<Caller & { root: string }> {
  const root = await Deno.makeTempDir();
  const script = `${root}/script`;
  await Deno.writeTextFile(script, SCRIPT, { mode: 0o755 });
  await new Deno.Command("mkfifo", { args: [`${root}/gate`, `${root}/hanging`] }).output();
  const gateway = cgiGateway({ script, log, ...options });
  return {
    root,
    call: (request) => gateway(request),
    once: (request) => fetchCGI(request, { script, log, ...options }),
    async [Symbol.asyncDispose]() {
      gateway[Symbol.dispose]();
      await Deno.remove(root, { recursive: true });
    },
  };
}

const CALLERS: Record<string, () => Promise<Caller>> = {
  fetch() {
    const server = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen() {} }, respond);
    const { port } = server.addr;
    return Promise.resolve({
      call(request) {
        const { pathname, search } = new URL(request.url);
        return fetch(new Request(`http://127.0.0.1:${port}${pathname}${search}`, request));
      },
      [Symbol.asyncDispose]: () => server.shutdown(),
    });
  },
  FastCGI() {
    const server = serveFastCGI(respond, Deno.listen({ hostname: "127.0.0.1", port: 0 }), { log });
    const address = `127.0.0.1:${(server.addr as Deno.NetAddr).port}` as const;
    const gateway = fastCGIGateway(address, { log });
    return Promise.resolve({
      call: (request) => gateway(request),
      once: (request) => fetchFastCGI(request, address, { log }),
      async [Symbol.asyncDispose]() {
        gateway[Symbol.dispose]();
        await server.shutdown();
      },
    });
  },
  SCGI() {
    const server = serveSCGI(respond, Deno.listen({ hostname: "127.0.0.1", port: 0 }), { log });
    const address = `127.0.0.1:${(server.addr as Deno.NetAddr).port}` as const;
    const gateway = scgiGateway(address, { log });
    return Promise.resolve({
      call: (request) => gateway(request),
      once: (request) => fetchSCGI(request, address, { log }),
      async [Symbol.asyncDispose]() {
        gateway[Symbol.dispose]();
        await server.shutdown();
      },
    });
  },
  async CGI() {
    const caller = await cgi();
    return {
      ...caller,
      call(request) {
        if (request.url.endsWith("/hang")) {
          // Resolves once the script writes to it.
          Deno.readTextFile(`${caller.root}/hanging`).then(() => hanging.resolve());
        }
        return caller.call(request);
      },
    };
  },
};

const ORIGIN = "http://127.0.0.1:8080";
const FOREIGN = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/** Makes the calls that are compared with `fetch()`. Prints what the application saw of each that it responded to. */
async function compare(name: string): Promise<void> {
  await using caller = await CALLERS[name]();
  const seen: unknown[] = [];
  // Each in a span: that of a fetch() stays the active one in the program's context.
  const send = (path: string, init?: RequestInit, call: Call = caller.call) =>
    within(`calls ${path}`, async () => {
      const response = await call(new Request(ORIGIN + path, init));
      const text = await response.text();
      if (text !== "") seen.push(JSON.parse(text));
    });
  await send("/ok?token=a%20b");
  await send("/ok", { method: "HEAD" });
  await send("/ok", { method: "BREW" });
  await send("/ok", { method: "POST", body: "hello" });
  await send("/missing");
  await send("/broken");
  await send("/once", {}, caller.once);
  const controller = new AbortController();
  const { signal } = controller;
  const leaving = send("/hang", { signal }).catch(() => {});
  await hanging.promise;
  controller.abort();
  await leaving;
  left.resolve();
  await send("/aborted", { signal }).catch(() => {});
  console.log(JSON.stringify(seen));
}

/** Makes calls with a `traceparent` of their own. */
async function continueTraces(name: string): Promise<void> {
  await using caller = await CALLERS[name]();
  const headers = { traceparent: FOREIGN, tracestate: "a=b" };
  const send = async () => (await caller.call(new Request(`${ORIGIN}/ok`, { headers }))).json();
  const alone = await send();
  const other = await within("outer", send);
  console.log(JSON.stringify([alone, other]));
}

/** An application that sends a part of its response, and the rest or its end when `go()` is called. */
type Parts = { call: Call; go(): void } & AsyncDisposable;

function partsOf(gateway: Gateway, application: Application, go: () => void): Parts {
  return {
    call: (request) => gateway(request),
    go,
    async [Symbol.asyncDispose]() {
      go();
      gateway[Symbol.dispose]();
      await application[Symbol.asyncDispose]();
    },
  };
}

/** Starts such an application. */
const PARTS: Record<string, () => Promise<Parts>> = {
  async FastCGI() {
    const gate = Promise.withResolvers<void>();
    const application = new Application(async (peer) => {
      const request = await peer.request();
      const path = request?.variables.get("PATH_INFO");
      if (path === undefined || path === "/silent") return;
      await peer.stdout(bytes(path === "/moved" ? "Location: /there\n\n" : "X: y\n\npart"));
      if (path === "/parts" || path === "/dies") await gate.promise;
      if (path === "/dies") return;
      await peer.end().catch(() => {});
    });
    const gateway = fastCGIGateway(application.address, { log });
    return await Promise.resolve(partsOf(gateway, application, gate.resolve));
  },
  async SCGI() {
    const gate = Promise.withResolvers<void>();
    const application = new Application(async (peer) => {
      const path = (await readSCGI(peer))?.get("PATH_INFO");
      if (path === undefined || path === "/silent") return;
      if (path === "/moved") return await peer.write(bytes("Location: /there\n\n"));
      const length = path === "/dies" ? "Content-Length: 99\n" : "";
      await peer.write(bytes(`${length}X: y\n\npart`));
      if (path === "/parts" || path === "/dies") await gate.promise;
    });
    const gateway = scgiGateway(application.address, { log });
    return await Promise.resolve(partsOf(gateway, application, gate.resolve));
  },
  async CGI() {
    const { root, ...others } = await cgi();
    // The script waits until it is opened for writing, and reads until it is closed.
    return { ...others, go: () => void Deno.writeTextFile(`${root}/gate`, "") };
  },
};

/** Makes a call that ends in the way that its name says. */
async function end(how: string, name: string): Promise<void> {
  await using application = await PARTS[name]();
  const { call, go } = application;
  const controller = new AbortController();
  const send = (path: string) => call(new Request(ORIGIN + path, { signal: controller.signal }));
  switch (how) {
    case "silent":
    case "moved":
      await (await send(`/${how}`)).text();
      break;
    case "read": {
      const response = await send("/parts");
      mark("responded");
      go();
      await response.text();
      break;
    }
    case "dies": {
      const response = await send("/dies");
      mark("responded");
      go();
      await response.text().catch(() => {});
      break;
    }
    case "cancelled": {
      const response = await send("/parts");
      mark("responded");
      await response.body!.cancel();
      break;
    }
    case "aborted": {
      const response = await send("/parts");
      mark("responded");
      controller.abort();
      await response.text().catch(() => {});
      break;
    }
  }
}

/** Repeats a call over a new connection, as the application has closed the kept one. */
async function repeat(): Promise<void> {
  let connections = 0;
  await using application = new Application(async (peer) => {
    const first = connections++ === 0;
    for (let left = first ? 1 : Infinity; left > 0; left--) {
      const request = await peer.request();
      if (request === undefined) return;
      await peer.stdout(bytes("X: y\n\nok"));
      await peer.end();
    }
    // It closes once another request has come.
    await peer.request();
  });
  using gateway = fastCGIGateway(application.address, { log });
  for (const path of ["/first", "/second"]) {
    await (await gateway(new Request(ORIGIN + path))).text();
  }
  console.log(connections);
}

/** Makes calls that reach no application, and one whose query is redacted. */
async function others(): Promise<void> {
  await using caller = await cgi({ redactQuery: true, basePath: "/app" });
  for (const path of ["/elsewhere", "/app/ok?token=abc&x"]) {
    await (await caller.call(new Request(ORIGIN + path))).text();
  }
}

const [what, name] = Deno.args;
if (what === "compare") await compare(name);
else if (what === "continue") await continueTraces(name);
else if (what === "repeat") await repeat();
else if (what === "others") await others();
else await end(what, name);
