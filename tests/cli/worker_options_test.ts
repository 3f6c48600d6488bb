import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { fetchFastCGI } from "../../gateway.ts";
import { callCommandLine, startServe } from "../testing/command_line.ts";
import type { Daemon } from "../testing/daemon.ts";
import { deadline } from "../testing/deadline.ts";
import { testWith } from "../testing/needs.ts";

const APP = `
export default (request) => {
  if (new URL(request.url).pathname === "/loop") for (;;);
  return new Response(String(Deno.pid));
};
`;

/** Runs `serve` with an app, and calls back with its address once it serves. */
async function serving(
  args: string[],
  use: (daemon: Daemon, address: "127.0.0.1:0") => Promise<void>,
): Promise<void> {
  const app = await Deno.makeTempFile({ suffix: ".ts" });
  await Deno.writeTextFile(app, APP);
  {
    await using daemon = startServe(app, args, ["--allow-all"]);
    await daemon.says(args.includes("--workers") ? "Workers: " : "Serving ");
    await use(daemon, /127\.0\.0\.1:[1-9]\d*/.exec(daemon.log)![0] as "127.0.0.1:0");
  }
  await Deno.remove(app);
}

async function pidOf(address: "127.0.0.1:0", path = "/"): Promise<string> {
  const responding = fetchFastCGI(`http://localhost${path}`, address, { log: () => {} });
  return await (await deadline(responding, "the response")).text();
}

Deno.test("serve --worker-timeout kills and replaces a worker that blocks its event loop", () =>
  serving(["--workers", "1", "--worker-timeout", "1"], async (daemon, address) => {
    const before = await pidOf(address);
    pidOf(address, "/loop").catch(() => {});
    await daemon.says(
      `Worker ${before} is killed: it has blocked its event loop for`,
    );
    assert(await pidOf(address) !== before);
  }));

Deno.test("serve --max-requests and --max-memory replace a worker", () =>
  serving(
    ["--workers", "1", "--max-requests", "10", "--max-memory", "1g"],
    async (daemon, address) => {
      const pids = new Set<string>();
      const requesting = async () => {
        while (pids.size < 2) pids.add(await pidOf(address));
      };
      await deadline(requesting(), `another worker to respond: ${daemon.log}`);
      const [first] = pids;
      assertStringIncludes(daemon.log, `Worker ${first} is replaced as it has begun 1`);
    },
  ));

for (const workers of [[], ["--workers", "1"]]) {
  testWith(
    { ss: "iproute2" },
    `serve --backlog sets how many connections may wait, ${workers.join(" ") || "alone"}`,
    () =>
      serving([...workers, "--backlog", "77"], async (_, address) => {
        await pidOf(address);
        const { stdout } = await new Deno.Command("ss", { args: ["-ltn"] }).output();
        const [line] = new TextDecoder().decode(stdout).split("\n")
          .filter((line) => line.includes(`${address} `));
        assertEquals(line.trim().split(/\s+/).slice(0, 3), ["LISTEN", "0", "77"]);
      }),
  );
}

const MISTAKES: [string[], string][] = [
  [["--worker-timeout", "5"], "--worker-timeout is for workers: add --workers 1 or more."],
  [["--max-memory", "1g"], "--max-memory is for workers"],
  [["--workers", "1", "--max-memory", "much"], "--max-memory must be a number of bytes"],
  [["--listen", "fd:3", "--workers", "1", "--backlog", "9"], "for one of systemd set Backlog="],
  [["--listen", "unix:/tmp/a", "--backlog", "9"], "--backlog of a Unix socket needs --workers"],
];
for (const [args, message] of MISTAKES) {
  Deno.test(`serve explains how to correct: ${args.join(" ")}`, async () => {
    const { code, stderr } = await callCommandLine("serve", "app.ts", ...args);
    assertStringIncludes(stderr, message);
    assertEquals(code, 2);
  });
}
