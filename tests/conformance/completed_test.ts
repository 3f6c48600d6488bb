/** `info.completed` settles, and `onCompleted` is called once for each request, however it ends. */
import {
  assert,
  assertEquals,
  assertMatch,
  assertRejects,
  assertStringIncludes,
} from "@std/assert";
import type { App, AppOptions, CompletedRequest } from "../../bridge/app.ts";
import { HTTPCompletion, LONG } from "../../server/http_completion.ts";
import { serveCGI } from "../../cgi.ts";
import { serveFastCGI } from "../../fastcgi.ts";
import { serveHTTP } from "../../http.ts";
import { serveSCGI } from "../../scgi.ts";
import { Role } from "../../wire/fastcgi.ts";
import { encodeSCGIHeaders } from "../../wire/scgi.ts";
import { bytes } from "../testing/bytes.ts";
import { deadline } from "../testing/deadline.ts";
import {
  type FastCGIClient,
  request as requestBytes,
  variables,
} from "../testing/fastcgi_client.ts";
import { beginRequest, type Pairs, params } from "../testing/fastcgi_records.ts";
import { serving } from "../testing/fastcgi_serving.ts";
import { turns } from "../testing/serving.ts";
import { type ClientRequest, IN_PROCESS } from "./transports.ts";
import { silence } from "../testing/silence.ts";

/** Collects what an option `onCompleted` gets. */
class Ends {
  readonly all: CompletedRequest[] = [];
  #next = Promise.withResolvers<CompletedRequest>();

  readonly onCompleted = (completed: CompletedRequest): void => {
    this.all.push(completed);
    this.#next.resolve(completed);
  };

  /** Waits for the first end, and some turns for others, which must not come. */
  async only(): Promise<CompletedRequest> {
    const first = await deadline(this.#next.promise, "the end of the request");
    await turns(3);
    assertEquals(this.all.length, 1);
    return first;
  }
}

const slow = (...chunks: string[]) =>
  new ReadableStream<Uint8Array>({
    async pull(controller) {
      await new Promise((resolve) => setTimeout(resolve, 0));
      const chunk = chunks.shift();
      if (chunk === undefined) controller.close();
      else controller.enqueue(bytes(chunk));
    },
  });

interface Case {
  app: App;
  request?: Partial<ClientRequest>;
  options?: AppOptions;
  /** The status and the number of bytes. */
  end: [status: number, bytes: number];
  /** The URL's path that the end has, or undefined if the request was refused. */
  path?: string;
}

const CASES: Record<string, Case> = {
  "a text": { app: () => new Response("é"), end: [200, 2], path: "/a" },
  "bytes with a status": {
    app: () => new Response(new Uint8Array(2000), { status: 404 }),
    end: [404, 2000],
    path: "/a",
  },
  "a stream": {
    app: () => new Response(slow("one", "two")),
    end: [200, 6],
    path: "/a",
  },
  "no body": { app: () => new Response(null, { status: 204 }), end: [204, 0], path: "/a" },
  "HEAD": {
    app: () => new Response("text"),
    request: { method: "HEAD" },
    end: [200, 0],
    path: "/a",
  },
  "an app that throws": {
    app: () => {
      throw new Error("the secret");
    },
    end: [500, 26],
    path: "/a",
  },
  "an error that onError handles": {
    app: () => {
      throw new Error("the secret");
    },
    options: { onError: () => new Response("sorry", { status: 503 }) },
    end: [503, 5],
    path: "/a",
  },
  "an app's own 499": {
    app: () => new Response("x", { status: 499 }),
    end: [499, 1],
    path: "/a",
  },
  "an invalid host": {
    app: () => new Response(),
    request: { headers: [["Host", "a b"]] },
    end: [400, 16],
  },
  "a method that no Request has": {
    app: () => new Response(),
    request: { method: "TRACE" },
    end: [501, 20],
  },
  "a malformed Forwarded": {
    app: () => new Response(),
    request: { headers: [["Forwarded", 'for="192.0.2.1']] },
    options: { trustForwarded: true },
    end: [400, 16],
  },
};

/** Apps that read the body of a request of 5000 bytes, and the length that is reported; undefined if that varies. */
const BODIES: Record<string, { app: App; received?: number }> = {
  "read at once": {
    app: async (request) => new Response(await request.text()),
    received: 5000,
  },
  "read as a stream": {
    app: async (request) => {
      for await (const chunk of request.body!) assert(chunk.length > 0);
      return new Response();
    },
    received: 5000,
  },
  "returned": {
    app: (request) => new Response(request.body),
    received: 5000,
  },
  "not read": { app: () => new Response() },
};

const TRACE = "0af7651916cd43dd8448eb211c80319c";
const IDS: Record<
  string,
  { headers: [string, string][]; requestId?: string; traceId?: string }
> = {
  "none": { headers: [] },
  "both": {
    headers: [["X-Request-Id", "a.b_c:1"], ["Traceparent", `00-${TRACE}-b7ad6b7169203331-01`]],
    requestId: "a.b_c:1",
    traceId: TRACE,
  },
  "of the greatest length": {
    headers: [["X-Request-Id", "x".repeat(128)]],
    requestId: "x".repeat(128),
  },
  "too long": { headers: [["X-Request-Id", "x".repeat(129)]] },
  "with a space": { headers: [["X-Request-Id", "a b"]] },
  "with a quote": { headers: [["X-Request-Id", 'a"b']] },
  "empty": { headers: [["X-Request-Id", ""]] },
  "a trace of zeros": {
    headers: [["Traceparent", `00-${"0".repeat(32)}-b7ad6b7169203331-01`]],
  },
  "a malformed trace": { headers: [["Traceparent", `00-${TRACE}-01`]] },
};

for (const [transport, start] of Object.entries(IN_PROCESS)) {
  for (
    const [name, { app, request, options, end, path }] of Object.entries(CASES)
  ) {
    Deno.test(`${transport}: onCompleted gets the end of a request: ${name}`, async () => {
      using _ = silence();
      const ends = new Ends();
      await using over = start(app, { ...options, onCompleted: ends.onCompleted });
      await over.send({ method: "GET", target: "/a", headers: [], ...request });
      const completed = await ends.only();
      assertEquals([completed.status, completed.bytes], end);
      const { url } = completed.request ?? {};
      assertEquals(url && new URL(url).pathname, path);
      assertEquals(completed.info.variables.get("REQUEST_METHOD"), request?.method ?? "GET");
      assertEquals(completed.info.variables.get("REQUEST_URI"), "/a");
      // An access log has it, also of a request that is refused for what its proxy says.
      assertEquals(completed.info.remoteAddr.hostname, "127.0.0.1");
      assertEquals(completed.started instanceof Date, true);
      assertEquals(completed.duration >= 0, true);
    });
  }

  for (const [name, { app, received }] of Object.entries(BODIES)) {
    Deno.test(`${transport}: onCompleted gets the length of the request's body: ${name}`, async () => {
      const ends = new Ends();
      await using over = start(app, { onCompleted: ends.onCompleted });
      const body = bytes("x".repeat(5000));
      await over.send({ method: "POST", target: "/a", headers: [], body });
      const completed = await ends.only();
      // FastCGI and SCGI receive what the app does not read, as far as it has come; a script reads it later.
      const isReceived = received === undefined && /^(?:FastCGI|SCGI)$/.test(transport);
      if (isReceived) assert(completed.received! > 0 && completed.received! <= 5000);
      else assertEquals(completed.received, received ?? 0);
    });
  }

  for (const [name, { headers, requestId, traceId }] of Object.entries(IDS)) {
    Deno.test(`${transport}: a request has an id, and that of its trace: ${name}`, async () => {
      const ends = new Ends();
      const seen: string[] = [];
      const app: App = (_request, info) => {
        seen.push(info.requestId, info.requestId);
        return new Response();
      };
      await using over = start(app, { onCompleted: ends.onCompleted });
      await over.send({ method: "GET", target: "/", headers });
      const completed = await ends.only();
      assertEquals(seen[0], seen[1]);
      assertEquals(completed.info.requestId, seen[0]);
      if (requestId === undefined) {
        assertMatch(seen[0], /^[\da-f]{8}(?:-[\da-f]{4}){3}-[\da-f]{12}$/);
      } else assertEquals(seen[0], requestId);
      assertEquals(completed.traceId, traceId);
    });
  }

  Deno.test(`${transport}: an onCompleted that throws or rejects changes nothing`, async () => {
    using _ = silence();
    const failures = [
      () => {
        throw new Error("broken");
      },
      () => Promise.reject(new Error("broken")),
    ];
    for (const onCompleted of failures) {
      await using over = start(() => new Response("sent"), { onCompleted });
      for (let turn = 0; turn < 2; turn++) {
        const response = await over.send({ method: "GET", target: "/", headers: [] });
        assertEquals([response.status, response.body.length], [200, 4]);
      }
    }
  });
}

/** What a handler does once its client has left. */
const AFTER: Record<string, (request: Request) => Promise<Response>> = {
  "throws": (request) =>
    new Promise((_resolve, reject) => {
      request.signal.onabort = () => reject(request.signal.reason);
    }),
  "responds": (request) =>
    new Promise((resolve) => {
      request.signal.onabort = () => resolve(new Response("too late"));
    }),
  "responds with a stream": (request) =>
    new Promise((resolve) => {
      request.signal.onabort = () => resolve(new Response(slow("too late")));
    }),
  "throws something else": (request) =>
    new Promise((_resolve, reject) => {
      request.signal.onabort = () => reject(new Error("unrelated"));
    }),
};

type Start = (
  app: App,
  options: AppOptions & { log: (line: string) => void },
) => AsyncDisposable & { readonly addr: Deno.Addr };

const hostname = "127.0.0.1";
const usual = variables({ REQUEST_URI: "/a" });

/** Listens on a Unix socket, whose file the listener removes when it closes. */
function listenUnix(): Deno.UnixListener {
  const path = Deno.makeTempFileSync();
  Deno.removeSync(path);
  return Deno.listen({ transport: "unix", path });
}

function connect(addr: Deno.Addr): Promise<Deno.Conn> {
  if ("path" in addr) return Deno.connect({ transport: "unix", path: addr.path });
  return Deno.connect({ hostname, port: (addr as Deno.NetAddr).port });
}

/** Servers, and the bytes of a request to each. Over TCP an SCGI server cannot notice that its client has left (D7). */
const SERVERS: Record<string, { start: Start; request: Uint8Array }> = {
  "FastCGI over TCP": {
    start: (app, options) => serveFastCGI(app, Deno.listen({ hostname, port: 0 }), options),
    request: requestBytes({ variables: { REQUEST_URI: "/a" } }),
  },
  "FastCGI": {
    start: (app, options) => serveFastCGI(app, listenUnix(), options),
    request: requestBytes({ variables: { REQUEST_URI: "/a" } }),
  },
  SCGI: {
    start: (app, options) => serveSCGI(app, listenUnix(), options),
    request: encodeSCGIHeaders([["CONTENT_LENGTH", "0"], ["SCGI", "1"], ...usual]),
  },
  HTTP: {
    start: (app, options) => serveHTTP(app, { ...options, hostname, port: 0, onListen() {} }),
    request: bytes("GET /a HTTP/1.1\r\nHost: localhost\r\n\r\n"),
  },
};

for (const [transport, { start, request }] of Object.entries(SERVERS)) {
  for (const [name, respond] of Object.entries(AFTER)) {
    Deno.test(`${transport}: a client that leaves before the response is a 499, and the handler ${name}`, async () => {
      const ends = new Ends();
      const logged: string[] = [];
      const begun = Promise.withResolvers<void>();
      const settled = Promise.withResolvers<void>();
      const { error } = console;
      console.error = (line) => logged.push(line);
      try {
        await using server = start((request, info) => {
          info.completed.finally(settled.resolve).catch(() => {});
          begun.resolve();
          return respond(request);
        }, { onCompleted: ends.onCompleted, log: (line) => logged.push(line) });
        const conn = await connect(server.addr);
        await conn.write(request);
        await deadline(begun.promise, "the handler");
        conn.close();
        const { status, bytes, request: ended } = await ends.only();
        assertEquals([status, bytes, new URL(ended!.url).pathname], [499, 0, "/a"]);
        await deadline(settled.promise, "info.completed");
      } finally {
        console.error = error;
      }
      assertEquals(logged, []);
    });
  }
}

Deno.test("info.completed rejects at once if the client of a handler that never settles has left", async () => {
  const ends = new Ends();
  const begun = Promise.withResolvers<{ completed: Promise<void> }>();
  const app: App = (_request, info) => {
    begun.resolve(info);
    return new Promise(() => {});
  };
  await serving(app, { onCompleted: ends.onCompleted }, async ({ connect }) => {
    const client = await connect();
    await client.send(beginRequest(1), params(1, usual));
    const { completed } = await deadline(begun.promise, "the app");
    client.close();
    await deadline(assertRejects(() => completed, DOMException), "info.completed");
    assertEquals((await ends.only()).status, 499);
  });
});

Deno.test("a script whose client has left before the response ends with 499", async () => {
  const ends = new Ends();
  let completed: Promise<void> | undefined;
  const app: App = (_request, info) => {
    completed = info.completed;
    return new Response("too late");
  };
  const left = () => {
    throw new Deno.errors.BrokenPipe();
  };
  await serveCGI(app, {
    env: { REQUEST_METHOD: "GET", SERVER_NAME: "localhost" },
    stdout: { write: () => Promise.try(left), writeSync: left },
    onCompleted: ends.onCompleted,
  });
  assertEquals((await ends.only()).status, 499);
  await assertRejects(() => completed!);
});

Deno.test("a client that leaves during the response ends with its status and the bytes that were sent", async () => {
  const ends = new Ends();
  const app = () =>
    new Response(
      new ReadableStream({ start: (controller) => controller.enqueue(bytes("some")) }),
    );
  await serving(app, { onCompleted: ends.onCompleted }, async ({ connect }) => {
    const client = await connect();
    await client.send(requestBytes());
    await client.next("the head");
    client.close();
    const { status, bytes } = await ends.only();
    assertEquals([status, bytes], [200, 4]);
  });
});

Deno.test("HTTP: a body without a length is counted, both ways", async () => {
  const ends = new Ends();
  const app: App = async (request) => {
    assertEquals(await request.text(), "one,two");
    assertEquals([request.method, request.headers.get("x-a")], ["POST", "b"]);
    const headers = { "x-c": "d" };
    return new Response(slow("four", "five"), { status: 201, statusText: "Made", headers });
  };
  await using server = serveHTTP(app, {
    ...{ hostname, port: 0, onListen() {} },
    onCompleted: ends.onCompleted,
  });
  const url = `http://${hostname}:${server.addr.port}/`;
  const body = slow("one", ",", "two");
  const response = await fetch(url, { method: "POST", body, headers: { "x-a": "b" } });
  assertEquals([response.status, response.headers.get("x-c")], [201, "d"]);
  assertEquals(await response.text(), "fourfive");
  const { status, bytes, received } = await ends.only();
  assertEquals([status, bytes, received], [201, 8, 7]);
});

Deno.test("HTTP: a response of fetch() that is decoded is counted, and says no encoding", async () => {
  await using origin = Deno.serve(
    { hostname, port: 0, onListen() {} },
    () => {
      const zipped = new Blob(["x".repeat(1000)]).stream().pipeThrough(
        new CompressionStream("gzip"),
      );
      return new Response(zipped, { headers: { "content-encoding": "gzip" } });
    },
  );
  const ends = new Ends();
  await using server = serveHTTP(() => fetch(`http://${hostname}:${origin.addr.port}/`), {
    ...{ hostname, port: 0, onListen() {} },
    onCompleted: ends.onCompleted,
  });
  const response = await fetch(`http://${hostname}:${server.addr.port}/`, {
    headers: { "accept-encoding": "identity" },
  });
  assertEquals(await response.text(), "x".repeat(1000));
  assertEquals((await ends.only()).bytes, 1000);
});

for (const [chunk, status] of [["some", 200], ["", 499]] as const) {
  Deno.test(`HTTP: a client that leaves a stream after ${chunk.length} bytes is a ${status}, and the stream is cancelled`, async () => {
    const ends = new Ends();
    const cancelled = Promise.withResolvers<void>();
    const pulled = Promise.withResolvers<void>();
    const app = () =>
      new Response(
        new ReadableStream<Uint8Array>({
          pull(controller) {
            if (chunk !== "" && controller.desiredSize === 1) controller.enqueue(bytes(chunk));
            pulled.resolve();
          },
          cancel: () => cancelled.resolve(),
        }),
      );
    await using server = serveHTTP(app, {
      ...{ hostname, port: 0, onListen() {} },
      onCompleted: ends.onCompleted,
    });
    const conn = await connect(server.addr);
    await conn.write(bytes("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"));
    if (chunk === "") await deadline(pulled.promise, "the stream to be read");
    else await deadline(conn.read(new Uint8Array(1000)), "the response");
    conn.close();
    await deadline(cancelled.promise, "the stream to be cancelled");
    const end = await ends.only();
    assertEquals(end.status, status);
    assertEquals(end.bytes! > 0, chunk !== "");
  });
}

for (const [transport, { start, request }] of Object.entries(SERVERS)) {
  if (transport === "HTTP") continue;
  Deno.test(`${transport}: a request that does not end within shutdownTimeout is a 503`, async () => {
    const ends = new Ends();
    const begun = Promise.withResolvers<AbortSignal>();
    const app: App = ({ signal }) => {
      begun.resolve(signal);
      return new Promise(() => {});
    };
    const options = { onCompleted: ends.onCompleted, shutdownTimeout: 1, log: () => {} };
    const server = start(app, options);
    using conn = await connect(server.addr);
    await conn.write(request);
    const signal = await deadline(begun.promise, "the handler");
    await deadline(server[Symbol.asyncDispose](), "the server's end");
    const { status, bytes } = await ends.only();
    assertEquals([status, bytes], [503, 0]);
    assertEquals([signal.reason.name, signal.reason.message], [
      "AbortError",
      "The server shut down",
    ]);
  });
}

Deno.test("HTTP: requests that do not end within shutdownTimeout have an end, too", async () => {
  const ends: CompletedRequest[] = [];
  const begun = Promise.withResolvers<void>();
  const never = Promise.withResolvers<Response>();
  const app: App = ({ url }) => {
    if (url.endsWith("/stream")) {
      return new Response(
        new ReadableStream({ start: (controller) => controller.enqueue(bytes("some")) }),
      );
    }
    begun.resolve();
    return never.promise;
  };
  const server = serveHTTP(app, {
    ...{ hostname, port: 0, onListen() {}, shutdownTimeout: 1 },
    onCompleted: (completed) => ends.push(completed),
  });
  const conns = await Promise.all(["/stream", "/never"].map(async (path) => {
    const conn = await connect(server.addr);
    await conn.write(bytes(`GET ${path} HTTP/1.1\r\nHost: localhost\r\n\r\n`));
    return conn;
  }));
  await deadline(conns[0].read(new Uint8Array(1000)), "the head");
  await deadline(begun.promise, "the handler");
  await assertRejects(() => server.shutdown());
  await turns(2);
  const seen = () => ends.map(({ status, bytes }) => [status, bytes]).toSorted();
  assertEquals(seen(), [[200, 4], [503, 0]]);
  // What comes later is nobody's.
  for (const conn of conns) conn.close();
  never.resolve(new Response());
  await turns();
  assertEquals(seen(), [[200, 4], [503, 0]]);
});

Deno.test("HTTPCompletion notices a client that leaves while its handler takes long", async () => {
  const ends = new Ends();
  const begun = Promise.withResolvers<HTTPCompletion>();
  const gate = Promise.withResolvers<void>();
  const server = Deno.serve({ hostname, port: 0, onListen() {} }, async (request, info) => {
    begun.resolve(new HTTPCompletion(request, info as never, ends.onCompleted));
    await gate.promise;
    return new Response();
  });
  const conn = await Deno.connect({ hostname, port: server.addr.port });
  await conn.write(bytes("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"));
  const completion = await deadline(begun.promise, "the handler");
  // The clock of limits is behind that of the process once the machine was suspended.
  completion.check(1);
  completion.check(LONG);
  conn.close();
  await turns();
  assertEquals(ends.all, []);
  completion.check(1 + LONG);
  assertEquals((await ends.only()).status, 499);
  // What the handler returns then is nobody's response.
  completion.responded(new Response());
  gate.resolve();
  await server.shutdown();
  assertEquals((await ends.only()).status, 499);
});

/** Requests that a FastCGI server refuses without its app, and the options that make it do so. */
const REFUSED: Record<
  string,
  { variables?: Pairs; role?: number; options?: object; end: [number, string | undefined] }
> = {
  "431, too many variables": { options: { maxVariables: 1 }, end: [431, undefined] },
  "431, too many bytes": { options: { maxVariableBytes: 10 }, end: [431, undefined] },
  "400, an invalid length": { variables: [["CONTENT_LENGTH", "x"]], end: [400, "/a"] },
  "413, a length above the maximum": {
    variables: [["CONTENT_LENGTH", "9"]],
    options: { maxBodyBytes: 8 },
    end: [413, "/a"],
  },
  "503, too many requests": { options: { maxRequests: 0 }, end: [503, "/a"] },
  "503, with long variables": {
    options: { maxRequests: 0 },
    variables: [["HTTP_COOKIE", "x".repeat(20_000)]],
    end: [503, undefined],
  },
  "500, a role that the app lacks": { role: Role.filter, end: [500, undefined] },
};

for (const [name, { variables: others = [], role, options, end }] of Object.entries(REFUSED)) {
  Deno.test(`onCompleted gets the end of a refused request: ${name}`, async () => {
    const ends = new Ends();
    const app = () => new Response("called");
    await serving(app, { ...options, onCompleted: ends.onCompleted }, async ({ connect }) => {
      const client = await connect();
      await client.send(requestBytes({ role, variables: [...usual, ...others] }));
      assertEquals((await client.response()).status, end[0]);
      const { status, request, info } = await ends.only();
      assertEquals([status, info.variables.get("REQUEST_URI"), request], [...end, undefined]);
    });
  });
}

Deno.test("onCompleted gets the end of an SCGI request that is refused", async () => {
  const cases: [Pairs, object, number, string | undefined][] = [
    [usual, {}, 400, "/a"],
    [[["CONTENT_LENGTH", "0"], ["SCGI", "1"], ...usual], { maxVariables: 1 }, 431, "/a"],
    [[["CONTENT_LENGTH", "0"], ["SCGI", "1"], ...usual], { maxVariableBytes: 9 }, 431, undefined],
    [[["CONTENT_LENGTH", "9"], ["SCGI", "1"], ...usual], { maxBodyBytes: 8 }, 413, "/a"],
    [[["CONTENT_LENGTH", "0"], ["SCGI", "1"], ...usual], { maxRequests: 0 }, 503, "/a"],
  ];
  for (const [pairs, options, status, uri] of cases) {
    const ends = new Ends();
    await using server = serveSCGI(() => new Response(), Deno.listen({ hostname, port: 0 }), {
      ...options,
      onCompleted: ends.onCompleted,
      log: () => {},
    });
    using conn = await connect(server.addr);
    await conn.write(encodeSCGIHeaders(pairs));
    const completed = await ends.only();
    assertEquals(
      [completed.status, completed.info.variables.get("REQUEST_URI"), completed.request],
      [status, uri, undefined],
    );
  }
});

const LATE: Record<string, { start: Start; request: Uint8Array }> = {
  FastCGI: {
    start: (app, options) =>
      serveFastCGI(app, Deno.listen({ hostname, port: 0 }), { ...options, variablesTimeout: 1 }),
    request: beginRequest(1),
  },
  SCGI: {
    start: (app, options) =>
      serveSCGI(app, Deno.listen({ hostname, port: 0 }), { ...options, variablesTimeout: 1 }),
    request: bytes("70:CONTENT_LENGTH"),
  },
};

for (const [transport, { start, request }] of Object.entries(LATE)) {
  Deno.test(`${transport}: a request whose variables are late ends with 408`, async () => {
    const ends = new Ends();
    const logged: string[] = [];
    await using server = start(() => new Response(), {
      onCompleted: ends.onCompleted,
      log: (line) => logged.push(line),
    });
    using conn = await connect(server.addr);
    await conn.write(request);
    const { status, bytes, request: created } = await ends.only();
    assertEquals([status, bytes, created], [408, 0, undefined]);
    assertStringIncludes(logged.join(), "variables did not arrive within 1 ms");
  });
}

Deno.test("a client that sends no request leaves no end", async () => {
  const ends = new Ends();
  await serving(() => new Response(), { onCompleted: ends.onCompleted }, async ({ connect }) => {
    (await connect()).close();
    const client = await connect() as FastCGIClient;
    await client.send(requestBytes());
    await client.response();
  });
  assertEquals((await ends.only()).status, 200);
});
