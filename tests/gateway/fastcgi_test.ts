import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { fastCGIGateway, type FastCGIGatewayOptions, fetchFastCGI } from "../../gateway.ts";
import { serveFastCGI } from "../../fastcgi.ts";
import { CONTENTION_MS } from "../../io/connection_pool.ts";
import { ProtocolError } from "../../wire/protocol_error.ts";
import { bytes, concat } from "../testing/bytes.ts";
import { deadline } from "../testing/deadline.ts";
import { FastCGIClient, request } from "../testing/fastcgi_client.ts";
import { endRequest, ProtocolStatus, record, Type } from "../testing/fastcgi_records.ts";
import { turns } from "../testing/serving.ts";
import { Application, type Peer } from "./application.ts";

const OK = "Content-Type: text/plain\r\n\r\n";

/** Creates a gateway to an application, which keeps connections as long as a test runs, and collects its log. */
function gatewayTo(address: string, options: FastCGIGatewayOptions = {}) {
  const log: string[] = [];
  const gateway = fastCGIGateway(address, {
    log: (line) => log.push(line),
    idleTimeout: 60_000,
    ...options,
  });
  return {
    log,
    fetch: (path: string, init?: RequestInit) =>
      deadline(gateway(new Request(`http://localhost${path}`, init)), `a response to ${path}`),
    [Symbol.dispose]: () => gateway[Symbol.dispose](),
  };
}

/** Responds to each request of a connection with its path. */
async function echoPaths(peer: Peer): Promise<void> {
  for (let request = await peer.request(); request; request = await peer.request()) {
    await peer.response(OK + request.variables.get("REQUEST_URI"));
    if (!request.keep) return;
  }
}

Deno.test("fastCGIGateway() keeps connections for requests that can be repeated", async () => {
  await using application = new Application(echoPaths);
  using gateway = gatewayTo(application.address);
  for (const method of ["GET", "OPTIONS", "DELETE", "PUT", "HEAD"]) {
    const response = await gateway.fetch("/x", { method });
    assertEquals(await response.text(), method === "HEAD" ? "" : "/x");
  }
  assertEquals(application.connections, 1);
  await (await gateway.fetch("/x", { method: "POST" })).text();
  assertEquals(application.connections, 2);
});

Deno.test("fastCGIGateway() uses another id for each request of a connection", async () => {
  const ids: number[] = [];
  await using application = new Application(async (peer) => {
    for (let request = await peer.request(); request; request = await peer.request()) {
      ids.push(request.id);
      await peer.response(OK);
    }
  });
  using gateway = gatewayTo(application.address);
  for (let i = 0; i < 3; i++) await (await gateway.fetch("/")).text();
  assertEquals(ids, [1, 2, 3]);
});

for (const together of [true, false]) {
  const when = together ? "with" : "after";
  Deno.test(`fastCGIGateway() ignores records that arrive ${when} FCGI_END_REQUEST`, async () => {
    const stray = concat([1, 2].map((id) => record(Type.stdout, id, bytes(OK + "stray"))));
    await using application = new Application(async (peer, number) => {
      await peer.request();
      const response = [record(Type.stdout, 1, bytes(OK + number)), endRequest(1)];
      await peer.write(concat(together ? [...response, stray] : response));
      if (!together) await peer.write(stray);
      await peer.until("the close", () => false);
    });
    using gateway = gatewayTo(application.address);
    assertEquals(await (await gateway.fetch("/")).text(), "1");
    // Later bytes close the connection once they are read.
    if (!together) await deadline(application.closed, "the connection's close");
    assertEquals(await (await gateway.fetch("/")).text(), "2");
  });
}

Deno.test("fastCGIGateway() keeps as many connections as are in use at once", async () => {
  const together = Promise.withResolvers<void>();
  let waiting = 0;
  await using application = new Application(async (peer) => {
    for (let request = await peer.request(); request; request = await peer.request()) {
      if (++waiting === 12) together.resolve();
      await together.promise;
      await peer.response(OK);
    }
  });
  using gateway = gatewayTo(application.address);
  const fetchAll = () =>
    Promise.all(Array.from({ length: 12 }, async () => await (await gateway.fetch("/")).text()));
  await fetchAll();
  assertEquals(application.connections, 12);
  // The first may be closed before the application is known to serve the others.
  for (let i = 0; i < 5; i++) await fetchAll();
  assert(application.connections < 24, `${application.connections} connections`);
});

Deno.test("fastCGIGateway() opens a connection for each request with maxIdleConnections: 0", async () => {
  const keeps: boolean[] = [];
  await using application = new Application(async (peer) => {
    keeps.push((await peer.request())!.keep);
    await peer.response(OK);
  });
  using gateway = gatewayTo(application.address, { maxIdleConnections: 0 });
  for (let i = 0; i < 3; i++) await (await gateway.fetch("/")).text();
  assertEquals(keeps, [false, false, false]);
});

Deno.test("fastCGIGateway() repeats a request if the application closed the idle connection", async () => {
  await using application = new Application(async (peer, number) => {
    await peer.request();
    await peer.response(OK + number);
    // Reads the next request, and closes without a response.
    if (number === 1) await peer.request();
  });
  using gateway = gatewayTo(application.address, { maxConnections: 1 });
  assertEquals(await (await gateway.fetch("/")).text(), "1");
  assertEquals(await (await gateway.fetch("/")).text(), "2");
});

Deno.test("fastCGIGateway() continues after a request with an invalid variable", async () => {
  await using application = new Application(echoPaths);
  using gateway = gatewayTo(application.address, {
    variables: (request): Record<string, string> =>
      request.url.endsWith("/bad") ? { X: "a\0b" } : {},
  });
  assertEquals(await (await gateway.fetch("/one")).text(), "/one");
  assertEquals((await gateway.fetch("/bad")).status, 400);
  assertEquals(await (await gateway.fetch("/two")).text(), "/two");
});

Deno.test("fastCGIGateway() does not repeat a request after the first byte of a response", async () => {
  await using application = new Application(async (peer) => {
    await peer.request();
    await peer.response(OK + "first");
    await peer.request();
    await peer.stderr("something");
  });
  using gateway = gatewayTo(application.address);
  assertEquals(await (await gateway.fetch("/")).text(), "first");
  assertEquals((await gateway.fetch("/")).status, 502);
  assertEquals(application.connections, 1);
});

Deno.test("fastCGIGateway() does not repeat a request on a new connection", async () => {
  await using application = new Application(async (peer) => {
    await peer.request();
  });
  using gateway = gatewayTo(application.address);
  assertEquals((await gateway.fetch("/")).status, 502);
  assertEquals((await gateway.fetch("/", { method: "POST", body: "x" })).status, 502);
  assertEquals(application.connections, 2);
});

Deno.test("fastCGIGateway() does not repeat a request when the gateway is disposed of", async () => {
  const second = Promise.withResolvers<void>();
  await using application = new Application(async (peer, number) => {
    await peer.request();
    await peer.response(OK + number);
    await peer.request();
    second.resolve();
    await peer.request();
  });
  const gateway = gatewayTo(application.address);
  assertEquals(await (await gateway.fetch("/")).text(), "1");
  const response = gateway.fetch("/");
  await deadline(second.promise, "the second request");
  gateway[Symbol.dispose]();
  assertEquals((await response).status, 502);
  assertEquals(application.connections, 1);
});

/**
 * Makes an application serve as many connections at a time as it has processes, in the order in which they were opened, as
 * PHP-FPM, CGI::Fast and libfcgi do.
 */
function inTurn(
  serve: (peer: Peer) => Promise<void>,
  processes = 1,
): (peer: Peer) => Promise<void> {
  const waiting: (() => void)[] = [];
  let free = processes;
  return async (peer) => {
    if (free > 0) free--;
    else await new Promise<void>((resolve) => waiting.push(resolve));
    try {
      await serve(peer);
    } finally {
      const next = waiting.shift();
      if (next === undefined) free++;
      else next();
    }
  };
}

Deno.test("fastCGIGateway() closes an idle connection that occupies the application's only process", async () => {
  await using application = new Application(inTurn(echoPaths));
  using gateway = gatewayTo(application.address);
  const methods = ["GET", "POST", "GET", "GET", "POST", "GET", "DELETE", "GET"];
  const bodies = await Promise.all(methods.map(async (method, i) => {
    return await (await gateway.fetch(`/${i}`, { method })).text();
  }));
  assertEquals(bodies, methods.map((_, i) => `/${i}`));
});

Deno.test("fastCGIGateway() repeats a request that waited for a connection which the application closed", async () => {
  const waits = Promise.withResolvers<void>();
  let closes = 0;
  const serve = inTurn(async (peer) => {
    for (let uses = 1;; uses++) {
      const request = await peer.request();
      if (request === undefined) return;
      const path = request.variables.get("REQUEST_URI")!;
      if (path === "/first") await waits.promise;
      if (path === "/b" && uses > 1) return void closes++;
      await peer.response(OK + path);
    }
  });
  const opened = Promise.withResolvers<void>();
  await using application = new Application((peer, number) => {
    if (number === 2) opened.resolve();
    return serve(peer);
  });
  using gateway = gatewayTo(application.address);
  const fetchAll = async (paths: string[]) => {
    const responses = await Promise.all(paths.map((path) => gateway.fetch(path)));
    assertEquals(await Promise.all(responses.map((response) => response.text())), paths);
  };
  const first = fetchAll(["/first", "/second"]);
  await opened.promise;
  // The gateway sees that the second connection waits for the process of the first.
  await new Promise((resolve) => setTimeout(resolve, 4 * CONTENTION_MS));
  waits.resolve();
  await first;
  // "/b" waits for the connection of "/a". If it waits for long, it has one of its own.
  await fetchAll(["/a", "/b"]);
  assert(closes <= 1);
});

Deno.test("fastCGIGateway() shares its connections with other gateways to the address", async () => {
  await using application = new Application(inTurn(echoPaths));
  using first = gatewayTo(application.address);
  using second = gatewayTo(application.address, { maxConnections: 1 });
  for (const gateway of [first, second, first]) {
    assertEquals(await (await gateway.fetch("/x")).text(), "/x");
  }
  assertEquals(application.connections, 1);
  // A POST has a connection of its own, and the only process.
  assertEquals(await (await second.fetch("/y", { method: "POST" })).text(), "/y");
  assertEquals(await (await first.fetch("/z")).text(), "/z");
});

Deno.test("fetchFastCGI() reaches an application whose only process a gateway's connection occupies", async () => {
  await using application = new Application(inTurn(echoPaths));
  using gateway = gatewayTo(application.address);
  assertEquals(await (await gateway.fetch("/")).text(), "/");
  const response = fetchFastCGI("http://localhost/health", application.address);
  assertEquals(await (await deadline(response, "the response")).text(), "/health");
});

/** Sends a GET over a connection of its own, as another process does, and waits for the response. */
async function requestFromOutside(address: string): Promise<void> {
  const port = Number(address.split(":")[1]);
  using client = new FastCGIClient(await Deno.connect({ hostname: "127.0.0.1", port }));
  await client.send(request());
  assert((await deadline(client.response(), "the other client's response", 5000)).complete);
}

for (const root of [undefined, "/srv/www"]) {
  const kind = root === undefined ? "an application" : "PHP";
  const options = { idleTimeout: undefined, root, checkFiles: false };

  Deno.test(`fastCGIGateway() keeps no other client of ${kind} waiting by an idle connection`, async () => {
    await using application = new Application(inTurn(echoPaths));
    using gateway = gatewayTo(application.address, options);
    assertEquals(await (await gateway.fetch("/i.php")).text(), "/i.php");
    await requestFromOutside(application.address);
  });

  for (const processes of [1, 3]) {
    Deno.test(`fastCGIGateway() lets other clients of ${kind} with ${processes} processes have their turn while it is busy`, async () => {
      await using application = new Application(inTurn(echoPaths, processes));
      using gateway = gatewayTo(application.address, options);
      let busy = true;
      const load = async () => {
        while (busy) assertEquals(await (await gateway.fetch("/i.php")).text(), "/i.php");
      };
      const loads = Promise.all(Array.from({ length: processes }, load));
      try {
        for (let i = 0; i < 3; i++) {
          await Promise.all([1, 2, 3].map(() => requestFromOutside(application.address)));
        }
      } finally {
        busy = false;
      }
      await loads;
    });
  }
}

Deno.test("fastCGIGateway() lets an application finish that writes a long body to HEAD", async () => {
  const written = Promise.withResolvers<void>();
  await using application = new Application(async (peer) => {
    await peer.request();
    await peer.stdout(OK);
    // More than sockets buffer.
    for (let i = 0; i < 400; i++) await peer.stdout(new Uint8Array(60_000));
    await peer.end();
    written.resolve();
    await peer.until("the close", () => false);
    assertEquals(peer.received.aborted, false);
  });
  const gateway = gatewayTo(application.address);
  assertEquals((await gateway.fetch("/", { method: "HEAD" })).status, 200);
  await deadline(written.promise, "the whole response");
  gateway[Symbol.dispose]();
  assertEquals(gateway.log, []);
});

Deno.test("fastCGIGateway() maps the protocol status of a request without a response", async () => {
  const cases: [number, number][] = [
    [ProtocolStatus.overloaded, 503],
    [ProtocolStatus.cantMultiplex, 502],
    [ProtocolStatus.unknownRole, 502],
    [ProtocolStatus.requestComplete, 502],
  ];
  for (const [protocolStatus, status] of cases) {
    await using application = new Application(async (peer) => {
      await peer.request();
      await peer.end(0, protocolStatus);
    });
    using gateway = gatewayTo(application.address);
    assertEquals((await gateway.fetch("/")).status, status, `protocol status ${protocolStatus}`);
  }
});

Deno.test("fastCGIGateway() accepts a response with status 503 that ends with FCGI_OVERLOADED", async () => {
  await using application = new Application(async (peer) => {
    await peer.request();
    await peer.stdout("Status: 503 Busy\r\n\r\nlater");
    await peer.end(0, ProtocolStatus.overloaded);
  });
  using gateway = gatewayTo(application.address);
  const response = await gateway.fetch("/");
  assertEquals([response.status, await response.text()], [503, "later"]);
});

Deno.test("fastCGIGateway() decodes records that are split, padded or of unknown types", async () => {
  const stream = [
    record(Type.stderr, 1, bytes("first li"), 5),
    record(Type.stdout, 1, bytes("Content-Type: te"), 255),
    record(42, 1, bytes("what is this"), 3),
    record(Type.stdout, 7, bytes("another's"), 0),
    record(Type.getValuesResult, 0, bytes(""), 0),
    record(Type.stderr, 1, bytes("ne\nsecond"), 0),
    record(Type.stdout, 1, bytes("xt/plain\r\n\r"), 1),
    record(Type.stdout, 1, bytes("\nhello"), 7),
    record(Type.stdout, 1, bytes(""), 8),
    record(Type.endRequest, 1, bytes("\0\0\0\0\0\0\0\0"), 2),
  ];
  for (const step of [1, 11, 10_000]) {
    await using application = new Application(async (peer) => {
      await peer.request();
      const bytes = new Uint8Array(await new Blob(stream).arrayBuffer());
      for (let at = 0; at < bytes.length; at += step) {
        await peer.write(bytes.subarray(at, at + step));
      }
    });
    using gateway = gatewayTo(application.address);
    assertEquals(await (await gateway.fetch("/")).text(), "hello");
    assertEquals(gateway.log, ["first line", "second"]);
  }
});

Deno.test("fastCGIGateway() streams a body, with its length if it is known", async () => {
  await using application = new Application(async (peer) => {
    assert(await peer.until("the first part", ({ stdin }) => stdin.length === 5));
    await peer.stdout(OK + peer.received.variables.get("CONTENT_LENGTH") + ";");
    assert(await peer.until("the end", ({ stdinEnded }) => stdinEnded));
    await peer.response(new TextDecoder().decode(peer.received.stdin));
  });
  using gateway = gatewayTo(application.address, { needsLength: false });
  for (const headers of [undefined, { "content-length": "11" }]) {
    const { readable, writable } = new TransformStream<Uint8Array, Uint8Array>();
    const writer = writable.getWriter();
    writer.write(new TextEncoder().encode("hello"));
    // The response begins before the body ends.
    const response = await gateway.fetch("/", { method: "POST", body: readable, headers });
    writer.write(new TextEncoder().encode(" world"));
    writer.close();
    assertEquals(await response.text(), `${headers ? 11 : ""};hello world`);
  }
});

Deno.test("fastCGIGateway() sends the length of a body that ends within 64 KiB", async () => {
  await using application = new Application(async (peer) => {
    const request = (await peer.request())!;
    await peer.response(`${OK}${request.variables.get("CONTENT_LENGTH")};${request.stdin.length}`);
  });
  using gateway = gatewayTo(application.address);
  const lengths: [sent: number, declared: string][] = [[0, "0"], [65536, "65536"], [65537, ""]];
  for (const [length, declared] of lengths) {
    const body = new ReadableStream<Uint8Array>({
      start(controller) {
        for (let at = 0; at < length; at += 10_000) {
          controller.enqueue(new Uint8Array(Math.min(10_000, length - at)));
        }
        controller.close();
      },
    });
    const response = await gateway.fetch("/", { method: "POST", body });
    assertEquals(await response.text(), `${declared};${length}`);
  }
});

Deno.test("fastCGIGateway() reads while writing", async () => {
  const length = 20_000_000;
  await using application = new Application(async (peer) => {
    await peer.until("the variables", ({ variables }) => variables.size > 0);
    // Sends everything before it reads: the buffers of both sides are far smaller.
    await peer.stdout(OK);
    for (let sent = 0; sent < length; sent += 50_000) await peer.stdout(new Uint8Array(50_000));
    let received = 0;
    await peer.until("the body", (request) => {
      received += request.stdin.length;
      request.stdin = new Uint8Array();
      return request.stdinEnded;
    });
    assertEquals(received, length);
    await peer.end();
  });
  using gateway = gatewayTo(application.address);
  const body = new Blob(Array(20).fill(new Uint8Array(1_000_000)));
  const response = await gateway.fetch("/", { method: "POST", body });
  let received = 0;
  for await (const chunk of response.body!) received += chunk.length;
  assertEquals(received, length);
});

Deno.test("fastCGIGateway() pauses reading while the client does not read", async () => {
  let written = 0;
  await using application = new Application(async (peer) => {
    await peer.request();
    await peer.stdout(OK);
    for (let i = 0; i < 2000; i++) {
      await peer.stdout(new Uint8Array(50_000));
      written += 50_000;
    }
    await peer.end();
  });
  using gateway = gatewayTo(application.address);
  const response = await gateway.fetch("/");
  // The client begins to read once a write waits.
  for (let before = -1; before < written;) {
    before = written;
    await turns(50);
  }
  assert(written < 50_000_000, `${written} bytes were read`);
  let received = 0;
  for await (const chunk of response.body!) received += chunk.length;
  assertEquals(received, 100_000_000);
});

Deno.test("fastCGIGateway() aborts the request if the client disconnects", async () => {
  for (const begun of [false, true]) {
    const requested = Promise.withResolvers<void>();
    await using application = new Application(async (peer) => {
      await peer.request();
      if (begun) await peer.stdout(OK + "begun");
      requested.resolve();
      assert(await peer.until("FCGI_ABORT_REQUEST", ({ aborted }) => aborted));
      await peer.end(0, 0, false);
    });
    using gateway = gatewayTo(application.address);
    const controller = new AbortController();
    const response = gateway.fetch("/", { signal: controller.signal });
    await requested.promise;
    if (begun) await (await response).body!.cancel();
    else {
      controller.abort();
      await response;
    }
  }
});

Deno.test("fastCGIGateway() sends no request for a client that has already disconnected", async () => {
  const paths: string[] = [];
  await using application = new Application(async (peer) => {
    for (let next = await peer.request(); next; next = await peer.request()) {
      paths.push(next.variables.get("REQUEST_URI")!);
      await peer.response(OK);
    }
  });
  using gateway = gatewayTo(application.address);
  await (await gateway.fetch("/first")).text();
  await gateway.fetch("/aborted", { signal: AbortSignal.abort() });
  await (await gateway.fetch("/last")).text();
  assertEquals(paths, ["/first", "/last"]);
  assertEquals(gateway.log, []);
});

Deno.test("fastCGIGateway() closes the connection if the application ignores FCGI_ABORT_REQUEST", async () => {
  const requested = Promise.withResolvers<void>();
  await using application = new Application(async (peer) => {
    await peer.request();
    requested.resolve();
    assertEquals(await peer.until("the end", () => false), false);
  });
  using gateway = gatewayTo(application.address);
  const controller = new AbortController();
  const response = gateway.fetch("/", { signal: controller.signal });
  await requested.promise;
  controller.abort();
  await response;
});

Deno.test("fastCGIGateway() aborts request.signal of serveFastCGI() if the client disconnects", async () => {
  const begun = Promise.withResolvers<void>();
  const aborted = Promise.withResolvers<void>();
  await using server = serveFastCGI((request) => {
    request.signal.addEventListener("abort", () => aborted.resolve());
    begun.resolve();
    return new Promise(() => {});
  }, Deno.listen({ hostname: "127.0.0.1", port: 0 }));
  using gateway = gatewayTo(`127.0.0.1:${(server.addr as Deno.NetAddr).port}`);
  const controller = new AbortController();
  const response = gateway.fetch("/", { signal: controller.signal });
  await begun.promise;
  controller.abort();
  await deadline(aborted.promise, "the app's signal");
  await response;
});

Deno.test("fastCGIGateway() responds with 504 if the application stalls", async () => {
  await using application = new Application(async (peer) => {
    await peer.until("the end", ({ aborted }) => aborted);
  });
  using gateway = gatewayTo(application.address, { timeout: 50 });
  assertEquals((await gateway.fetch("/")).status, 504);
  assertEquals((await gateway.fetch("/", { method: "POST", body: "x" })).status, 504);
  assertStringIncludes(gateway.log[0], "application made no progress for 50 ms");
});

Deno.test("fastCGIGateway() aborts a response that stalls", async () => {
  await using application = new Application(async (peer) => {
    await peer.request();
    await peer.stdout(OK + "begun");
    await peer.until("the end", ({ aborted }) => aborted);
  });
  using gateway = gatewayTo(application.address, { timeout: 50 });
  const response = await gateway.fetch("/");
  await assertRejects(() => deadline(response.text(), "the body"), ProtocolError, "50 ms");
});

Deno.test("fastCGIGateway() applies clientTimeout to the client", async () => {
  await using application = new Application(async (peer) => {
    await peer.until("the body", ({ stdinEnded, aborted }) => stdinEnded || aborted);
    const hangs = peer.received.variables.get("REQUEST_URI") === "/hang";
    if (!hangs && !peer.received.aborted) return await peer.response(OK + "late");
    await peer.until("the end", ({ aborted }) => aborted);
  });
  using patient = gatewayTo(application.address, { timeout: 50, clientTimeout: 10_000 });
  const { readable, writable } = new TransformStream<Uint8Array, Uint8Array>();
  const response = patient.fetch("/", { method: "POST", body: readable });
  // The application's timeout has passed by now.
  assertEquals((await patient.fetch("/hang")).status, 504);
  await writable.close();
  assertEquals(await (await response).text(), "late");
  using hasty = gatewayTo(application.address, { timeout: 10_000, clientTimeout: 50 });
  const never = new ReadableStream<Uint8Array>();
  assertEquals((await hasty.fetch("/", { method: "POST", body: never })).status, 408);
});

Deno.test("fastCGIGateway() errors the body if the application closes or fails", async () => {
  const ends: ((peer: Peer) => Promise<void>)[] = [
    (peer) => Promise.resolve(peer.close()),
    (peer) => peer.end(1, 0, false),
  ];
  for (const end of ends) {
    await using application = new Application(async (peer) => {
      await peer.request();
      await peer.stdout(OK + "half");
      await end(peer);
    });
    using gateway = gatewayTo(application.address);
    const response = await gateway.fetch("/");
    await assertRejects(() => deadline(response.text(), "the body"));
  }
});

Deno.test("fastCGIGateway() accepts a response that ends without an empty FCGI_STDOUT record", async () => {
  await using application = new Application(async (peer) => {
    await peer.request();
    await peer.stdout(OK + "whole");
    await peer.end(0, 0, false);
  });
  using gateway = gatewayTo(application.address);
  assertEquals(await (await gateway.fetch("/")).text(), "whole");
});

Deno.test("fastCGIGateway() accepts the response of an application that does not read the body", async () => {
  await using application = new Application(async (peer) => {
    await peer.until("the variables", ({ variables }) => variables.size > 0);
    await peer.stdout("Status: 413 Too much\r\n\r\n");
    await peer.end();
  });
  using gateway = gatewayTo(application.address);
  const body = new ReadableStream<Uint8Array>({
    pull: (controller) => controller.enqueue(new Uint8Array(65536)),
  });
  assertEquals((await gateway.fetch("/", { method: "POST", body })).status, 413);
});

Deno.test("fastCGIGateway() responds with 400 if the body differs from its Content-Length", async () => {
  await using application = new Application(async (peer) => {
    await peer.until("the end", ({ aborted }) => aborted);
  });
  using gateway = gatewayTo(application.address);
  for (const length of ["3", "5"]) {
    const init = { method: "POST", body: "four", headers: { "content-length": length } };
    assertEquals((await gateway.fetch("/", init)).status, 400, length);
  }
});

Deno.test("fastCGIGateway() rejects a body that is too long with 413", async () => {
  await using application = new Application(async (peer) => {
    await peer.until("the end", ({ aborted }) => aborted);
  });
  using gateway = gatewayTo(application.address, { maxBodyBytes: 10 });
  const known = { method: "POST", body: "x", headers: { "content-length": "11" } };
  assertEquals((await gateway.fetch("/", known)).status, 413);
  assertEquals(application.connections, 0);
  assertEquals((await gateway.fetch("/", { method: "POST", body: "x".repeat(11) })).status, 413);
  using buffering = gatewayTo(application.address, { needsLength: true, maxBodyBytes: 10 });
  assertEquals((await buffering.fetch("/", { method: "POST", body: "x".repeat(11) })).status, 413);
});

Deno.test("fastCGIGateway() rejects requests beyond maxConnections with 503", async () => {
  const requested = Promise.withResolvers<void>();
  const go = Promise.withResolvers<void>();
  await using application = new Application(async (peer) => {
    await peer.request();
    requested.resolve();
    await go.promise;
    await peer.response(OK + "done");
  });
  using gateway = gatewayTo(application.address, { maxConnections: 1 });
  const first = gateway.fetch("/");
  await requested.promise;
  assertEquals((await gateway.fetch("/")).status, 503);
  go.resolve();
  assertEquals(await (await first).text(), "done");
});

Deno.test("fastCGIGateway() responds with 502 if nothing listens, and logs it", async () => {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  listener.close();
  using gateway = gatewayTo(`127.0.0.1:${listener.addr.port}`);
  const response = await gateway.fetch("/");
  assertEquals([response.status, await response.text()], [502, "502 Bad Gateway\n"]);
  assertStringIncludes(gateway.log.join("\n"), "refused");
  using unix = gatewayTo("unix:/nowhere/at/all.sock");
  assertEquals((await unix.fetch("/")).status, 502);
});

Deno.test("fastCGIGateway() responds with 502 to bytes that are not FastCGI", async () => {
  await using application = new Application(async (peer) => {
    await peer.write(new TextEncoder().encode("HTTP/1.1 400 Bad Request\r\n\r\n"));
    await peer.until("the end", ({ aborted }) => aborted);
  });
  using gateway = gatewayTo(application.address);
  assertEquals((await gateway.fetch("/")).status, 502);
});

Deno.test("fastCGIGateway() sends variables of more than one record", async () => {
  await using application = new Application(async (peer) => {
    const { variables } = (await peer.request())!;
    await peer.response(OK + variables.get("HTTP_X_LONG")!.length);
  });
  using gateway = gatewayTo(application.address);
  const headers = { "x-long": "a".repeat(200_000) };
  assertEquals(await (await gateway.fetch("/", { headers })).text(), "200000");
});

Deno.test("fastCGIGateway() rejects an invalid address", () => {
  for (
    const address of ["", "9000", "unix:", "host", "host:0", "host:99999", "a b:1", "::1:9000"]
  ) {
    try {
      fastCGIGateway(address);
    } catch (error) {
      assert(error instanceof TypeError);
      assertStringIncludes(error.message, JSON.stringify(address));
      continue;
    }
    throw new Error(`${address} is accepted`);
  }
});

Deno.test("fetchFastCGI() throws if the gateway's response would be 502", async () => {
  await using application = new Application(async (peer) => {
    await peer.request();
    await peer.response("no header\n\n");
  });
  await assertRejects(
    () => fetchFastCGI("http://localhost/", application.address),
    ProtocolError,
    'current line is "no header"',
  );
});

Deno.test("fetchFastCGI() leaves no connection open", async () => {
  await using server = serveFastCGI(
    (request) => new Response(request.url),
    Deno.listen({ hostname: "127.0.0.1", port: 0 }),
  );
  const address = `127.0.0.1:${(server.addr as Deno.NetAddr).port}`;
  const response = await fetchFastCGI("http://localhost/a?b", address);
  assertEquals(await response.text(), "http://localhost/a?b");
});

Deno.test("fastCGIGateway() leaves no connection open for clients that disconnect while it connects", async () => {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const ends: Promise<unknown>[] = [];
  const accepting = (async () => {
    for await (const conn of listener) {
      const readAll = async () => {
        const buffer = new Uint8Array(4096);
        while (await conn.read(buffer).catch(() => null) !== null);
        conn.close();
      };
      ends.push(readAll());
    }
  })();
  {
    using gateway = fastCGIGateway(`127.0.0.1:${listener.addr.port}`, { log: () => {} });
    for (let round = 0; round < 20; round++) {
      const requests = Array.from({ length: 20 }, async () => {
        const controller = new AbortController();
        const response = gateway(new Request("http://localhost/", { signal: controller.signal }));
        const end = performance.now() + 0.3;
        while (performance.now() < end);
        await new Promise((resolve) => setTimeout(resolve, 0));
        controller.abort();
        await response.catch(() => {});
      });
      await deadline(Promise.all(requests), "the aborted requests");
    }
    await turns();
    // The gateway is open: it must have closed each connection by itself.
    await deadline(Promise.all(ends), "the end of all connections");
  }
  listener.close();
  await accepting;
});
