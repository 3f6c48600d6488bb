/** docs/from-python.md: each pair of programs gives the same response. */
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { fetchFastCGI } from "../../gateway.ts";
import { type ParsedResponse, parseResponse } from "../testing/response.ts";
import { bytes, text } from "../testing/bytes.ts";
import { Program } from "../testing/daemon.ts";
import { deadline, eventually } from "../testing/deadline.ts";
import { freePort } from "../testing/free_port.ts";
import { blocksOf, fileOf, Machine, SYSTEM_PATH } from "./guide.ts";

const BLOCKS = blocksOf("from-python.md");
/** Downloads and compiles all modules first. */
const START = 60_000;

/** Returns whether the Python that the scripts run with has some modules. */
function hasModules(...modules: string[]): boolean {
  try {
    return new Deno.Command("python3", {
      args: ["-W", "ignore", "-c", `import ${["sys", ...modules].join(", ")}`],
      clearEnv: true,
      env: { PATH: SYSTEM_PATH },
      stderr: "null",
    }).outputSync().success;
  } catch {
    return false;
  }
}

/** Registers a test that needs Python modules. */
function test(
  modules: string[],
  install: string,
  name: string,
  fn: (machine: Machine) => Promise<void>,
): void {
  const found = hasModules(...modules);
  Deno.test({
    name: found ? name : `${name} (missing: ${install})`,
    // Not required: newer versions of Python lack some, and Debian has no packages of them.
    ignore: !found,
    async fn() {
      await using machine = new Machine();
      await fn(machine);
    },
  });
}

const CGI = "pip install legacy-cgi";

/** Runs a program of the page as a CGI script. */
async function run(
  machine: Machine,
  file: string,
  variables: Record<string, string> = {},
  body = "",
): Promise<ParsedResponse> {
  const path = machine.write(file, fileOf(BLOCKS, file), 0o755);
  const child = new Deno.Command(path, {
    cwd: machine.home,
    clearEnv: true,
    env: {
      ...machine.env(),
      PYTHONWARNINGS: "ignore",
      GATEWAY_INTERFACE: "CGI/1.1",
      SERVER_PROTOCOL: "HTTP/1.1",
      SERVER_NAME: "localhost",
      SERVER_PORT: "80",
      HTTP_HOST: "localhost",
      REQUEST_METHOD: body ? "POST" : "GET",
      REQUEST_URI: `/script${variables.PATH_INFO ?? ""}?${variables.QUERY_STRING ?? ""}`,
      SCRIPT_NAME: "/script",
      PATH_INFO: "",
      QUERY_STRING: "",
      REMOTE_ADDR: "192.0.2.7",
      ...(body ? { CONTENT_LENGTH: String(body.length) } : {}),
      ...variables,
    },
    stdin: "piped",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  const writer = child.stdin.getWriter();
  writer.write(bytes(body)).then(() => writer.close()).catch(() => {});
  const { stdout, stderr } = await deadline(child.output(), file, START);
  assert(stdout.length > 0, text(stderr));
  return parseResponse(stdout);
}

interface Seen {
  status: number;
  type: string | null;
  location: string | null;
  cookies: string[];
  method: string | null;
  body: string;
}

/** A response as the client receives it. */
function seen({ status = 200, headers, body }: ParsedResponse): Seen {
  return {
    status,
    type: headers.get("content-type")?.toLowerCase().replace(/; ?/, "; ") ?? null,
    location: headers.get("location"),
    cookies: headers.getSetCookie(),
    method: headers.get("x-method"),
    body: text(body),
  };
}

/** Runs both programs of a pair, and returns their common response. */
async function runPair(
  machine: Machine,
  name: string,
  variables?: Record<string, string>,
  body?: string,
): Promise<Seen> {
  const python = seen(await run(machine, `${name}.py`, variables, body));
  const script = seen(await run(machine, `${name}.ts`, variables, body));
  const decimal = (entity: string) => `&#${entity.codePointAt(0)};`;
  // Both escape, but with different entities.
  python.body = python.body.replace(
    /&(amp|lt|gt|quot|#x27);/g,
    (_, entity) =>
      decimal({ amp: "&", lt: "<", gt: ">", quot: '"', "#x27": "'" }[entity as string]!),
  );
  assertEquals(script, python);
  return script;
}

const URLENCODED = { CONTENT_TYPE: "application/x-www-form-urlencoded" };
const MULTIPART = { CONTENT_TYPE: "multipart/form-data; boundary=xyz" };

test(["cgi"], CGI, "a form gives the same response", async (machine) => {
  const fields = "name=%3CAnn%3E+%26+%C3%A9&color=blue&color=red";
  const expected = "<p>Hello, &#60;Ann&#62; &#38; \xc3\xa9! Your colors: blue, red\n";
  assertEquals((await runPair(machine, "form")).body, "<p>Hello, world! Your colors: \n");
  assertEquals((await runPair(machine, "form", { QUERY_STRING: fields })).body, expected);
  assertEquals((await runPair(machine, "form", URLENCODED, fields)).body, expected);
  const part = (name: string, value: string) =>
    `--xyz\r\nContent-Disposition: form-data; name="${name}"\r\n\r\n${value}\r\n`;
  const multipart = part("name", "<Ann> & \xc3\xa9") + part("color", "blue") +
    part("color", "red") + "--xyz--\r\n";
  assertEquals((await runPair(machine, "form", MULTIPART, multipart)).body, expected);
});

test(["cgi"], CGI, "an uploaded file gives the same response", async (machine) => {
  const body = '--xyz\r\nContent-Disposition: form-data; name="file"; filename="a b.bin"\r\n' +
    `Content-Type: application/octet-stream\r\n\r\n${"\0\xff\r\n".repeat(50_000)}\r\n--xyz--\r\n`;
  const response = await runPair(machine, "upload", MULTIPART, body);
  assertMatch(response.body, /^a b\.bin: 200000 bytes, SHA-256 [0-9a-f]{64}\n$/);
});

test(["http.cookies"], "python3", "status, headers and cookies are the same", async (machine) => {
  const redirect = await runPair(machine, "counter", { PATH_INFO: "/" });
  assertEquals([redirect.status, redirect.location], [303, "/script/count"]);
  const first = await runPair(machine, "counter", { PATH_INFO: "/count" });
  assertEquals(first.cookies, ["count=1; Path=/; HttpOnly"]);
  const variables = { PATH_INFO: "/count", HTTP_COOKIE: "a=b; count=7" };
  assertEquals((await runPair(machine, "counter", variables)).body, "Visit 8 of 192.0.2.7\n");
});

test(["cgitb"], CGI, "both debug pages show the error and its source", async (machine) => {
  const variables = { HTTP_COOKIE: "session=hush", HTTP_ACCEPT: "text/html" };
  const python = await run(machine, "broken.py", variables);
  const script = await run(machine, "broken.ts", variables);
  assertEquals([python.status ?? 200, script.status], [200, 500]);
  for (const { body } of [python, script]) {
    assertStringIncludes(text(body), "There is no report");
    assertStringIncludes(text(body), "load");
  }
  assertMatch(text(script.body), /<mark> *5 +throw new RangeError/);
  assertStringIncludes(text(script.body), "<th>HTTP_COOKIE<td>(redacted)");
});

test(["wsgiref.handlers"], "python3", "a WSGI script gives the same response", async (machine) => {
  const response = await runPair(machine, "wsgi", { CONTENT_TYPE: "text/plain" }, "Hello\n");
  assertEquals(response, {
    status: 201,
    type: "application/octet-stream",
    location: null,
    cookies: [],
    method: "POST",
    body: "HELLO\n",
  });
});

/** Starts a program of the page on a free port, and calls it until it responds. */
async function serving(
  machine: Machine,
  file: string,
  port: string,
  call: (address: `127.0.0.1:${number}`) => Promise<Response>,
): Promise<string> {
  const free = freePort();
  const source = fileOf(BLOCKS, file);
  assertStringIncludes(source, port);
  const path = machine.write(file, source.replace(port, String(free)));
  const isPython = file.endsWith(".py");
  const args = isPython ? [path] : ["run", "--allow-env", `--allow-net=127.0.0.1:${free}`, path];
  await using _program = new Program(isPython ? "python3" : "deno", {
    args,
    cwd: machine.home,
    clearEnv: true,
    env: machine.env(),
  });
  const respond = async () => {
    const response = await call(`127.0.0.1:${free}`);
    const type = response.headers.get("content-type")?.toLowerCase().replace("; ", ";");
    return `${response.status} ${type} ${await response.text()}`;
  };
  return await eventually(file, () => respond().catch(() => ""));
}

test(
  ["wsgiref.simple_server"],
  "python3",
  "both servers give the same response",
  async (machine) => {
    const call = (address: string) => fetch(`http://${address}/a/b?c`, { method: "DELETE" });
    const python = await serving(machine, "server.py", "8000", call);
    assertEquals(python, "200 text/plain;charset=utf-8 DELETE /a/b\n");
    assertEquals(await serving(machine, "server.ts", "8000", call), python);
  },
);

const callDaemon = (address: `127.0.0.1:${number}`) =>
  fetchFastCGI(new Request("http://localhost/a?b=c"), address);
const FROM_DAEMON = "200 text/plain;charset=utf-8 GET b=c\n";

test(
  ["flup.server.fcgi"],
  "pip install flup",
  "flup's daemon gives the same response as ours",
  async (machine) => {
    assertEquals(await serving(machine, "daemon.py", "9000", callDaemon), FROM_DAEMON);
  },
);

test([], "python3", "our daemon gives the same response as flup's", async (machine) => {
  assertEquals(await serving(machine, "daemon.ts", "9000", callDaemon), FROM_DAEMON);
});
