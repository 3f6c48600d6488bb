/** The published package: README's own `jsr:` lines, from a registry. */
import { assert, assertEquals } from "@std/assert";
import config from "../deno.json" with { type: "json" };
import { fetchFastCGI } from "../gateway.ts";
import { parseResponse } from "./testing/response.ts";
import { text } from "./testing/bytes.ts";
import { Program, ROOT } from "./testing/daemon.ts";
import { deadline } from "./testing/deadline.ts";
import { Registry } from "./testing/registry.ts";

const README = await Deno.readTextFile(`${ROOT}README.md`);
const README_ADDRESS = "127.0.0.1:9000";
/** Downloads and compiles all modules first. */
const START = 60_000;

/** The blocks of README in a language that mention a text. */
function blocks(language: string, mention: string): string[] {
  const fences = README.matchAll(/^```(\w+)[^\n]*\n(.*?)^```$/gms);
  return [...fences].filter(([, name, body]) => name === language && body.includes(mention))
    .map(([, , body]) => body);
}

/** A user's machine: `hello.ts` in an empty directory, `deno` in PATH, and nothing downloaded yet. */
class Machine implements AsyncDisposable {
  readonly directory = Deno.makeTempDirSync();
  readonly #registry = new Registry();

  constructor() {
    const [hello, ...others] = blocks("ts", "jsr:@gatehouse/cgi");
    assertEquals(others, []);
    Deno.writeTextFileSync(`${this.directory}/hello.ts`, hello, { mode: 0o755 });
    Deno.mkdirSync(`${this.directory}/bin`);
    Deno.symlinkSync(Deno.execPath(), `${this.directory}/bin/deno`);
  }

  /** The arguments and environment of a user's program. */
  options(args: string[], env: Record<string, string> = {}): Deno.CommandOptions {
    return {
      args,
      cwd: this.directory,
      clearEnv: true,
      env: {
        PATH: `${this.directory}/bin:${Deno.env.get("PATH")}`,
        HOME: this.directory,
        DENO_DIR: `${this.directory}/deno_dir`,
        JSR_URL: this.#registry.url,
        NO_COLOR: "1",
        ...env,
      },
    };
  }

  /** Runs README's command line, on a free port, with more options at its end. */
  async serve(command: string, options = ""): Promise<Served> {
    const address = `127.0.0.1:${freePort()}` as const;
    assert(command.includes(README_ADDRESS));
    const line = command.trim().replaceAll(README_ADDRESS, address);
    const program = new Program("/bin/sh", this.options(["-c", `exec ${line}${options}`]));
    await program.says(" on ", 1, START);
    return { program, address };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#registry[Symbol.asyncDispose]();
    await Deno.remove(this.directory, { recursive: true });
  }
}

/** Returns a port that was just free. */
function freePort(): number {
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  return listener.addr.port;
}

interface Served {
  program: Program;
  address: `127.0.0.1:${number}`;
}

async function textOf(response: Promise<Response>): Promise<string> {
  return await (await deadline(response, "the response")).text();
}

Deno.test("README's hello.ts is a CGI script", async () => {
  await using machine = new Machine();
  const script = new Deno.Command(`${machine.directory}/hello.ts`, {
    ...machine.options([], {
      GATEWAY_INTERFACE: "CGI/1.1",
      REQUEST_METHOD: "GET",
      REQUEST_URI: "/cgi-bin/hello.ts?name=Ann",
      SCRIPT_NAME: "/cgi-bin/hello.ts",
      SERVER_NAME: "example.org",
    }),
    stdin: "null",
  });
  const { code, stdout, stderr } = await deadline(script.output(), "the script", START);
  assertEquals(code, 0, text(stderr));
  const { status, body } = parseResponse(stdout);
  assertEquals([status, text(body)], [200, "Hello, Ann! This came over cgi.\n"]);
});

const [command, ...others] = blocks("sh", "serve hello.ts");
assertEquals(others, []);

Deno.test("README's command line serves hello.ts", async () => {
  await using machine = new Machine();
  const { program, address } = await machine.serve(command);
  await using _program = program;
  const response = fetchFastCGI("http://localhost/?name=Ann", address);
  assertEquals(await textOf(response), "Hello, Ann! This came over fastcgi.\n");
  assertEquals((await program.stop()).code, 0);
});

for (const option of ["", " --base-path auto"]) {
  Deno.test(`README's command line${option} sees all routes behind stock fastcgi_params`, async () => {
    await using machine = new Machine();
    await Deno.writeTextFile(
      `${machine.directory}/hello.ts`,
      `export default (request, { scriptName, pathInfo }) =>
         Response.json([new URL(request.url).pathname, scriptName, pathInfo]);`,
    );
    const { program, address } = await machine.serve(command, option);
    await using _program = program;
    const variables = { SCRIPT_NAME: "/users/1", PATH_INFO: "" };
    const response = fetchFastCGI("http://localhost/users/1", address, { variables });
    assertEquals(await textOf(response), `["/users/1","","/users/1"]`);
  });
}

Deno.test("README's command line serves hello.ts with workers", async () => {
  await using machine = new Machine();
  const { program, address } = await machine.serve(
    command.replace("deno run", "deno run --allow-run --allow-env"),
    " --workers 2",
  );
  await using _program = program;
  await program.says("Serving", 2);
  const response = fetchFastCGI("http://localhost/?name=Ann", address);
  assertEquals(await textOf(response), "Hello, Ann! This came over fastcgi.\n");
  assertEquals((await program.stop()).code, 0);
});

Deno.test("deno install installs the command line", async () => {
  await using machine = new Machine();
  const line = /^ \* (deno install .*)$/m.exec(await Deno.readTextFile(`${ROOT}cli.ts`))![1];
  const run = async (command: string) => {
    const program = new Deno.Command("/bin/sh", machine.options(["-c", command]));
    const { code, stdout, stderr } = await deadline(program.output(), command, START);
    assertEquals(code, 0, text(stderr));
    return text(stdout);
  };
  await run(line);
  const installed = `${machine.directory}/.deno/bin/gatehouse`;
  assertEquals(await run(`${installed} --version`), `${config.version}\n`);
  for (const command of ["serve", "dev", "fetch", "config", "doctor"]) {
    assert((await run(`${installed} help ${command}`)).includes("Example:"));
  }
  assert((await run(`${installed} config systemd`)).includes("jsr:@gatehouse/cgi@"));
});
