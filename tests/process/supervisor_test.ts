import { assertEquals } from "@std/assert";
import { Supervisor } from "../../process/supervisor.ts";
import { deadline, eventually } from "../testing/deadline.ts";

/** A worker that leaves a file, then waits to report while "hold" exists, and ends at SIGTERM. */
const WORKER = `
import process from "node:process";
const directory = Deno.args[0];
process.on("SIGTERM", () => Deno.exit());
Deno.writeTextFileSync(directory + "/started-" + Deno.pid, "");
while (await Deno.stat(directory + "/hold").catch(() => null)) {
  await new Promise((resolve) => setTimeout(resolve, 10));
}
process.send("ready");
setInterval(() => {}, 1000);
`;

class Directory implements AsyncDisposable {
  readonly path: string = Deno.makeTempDirSync();

  constructor() {
    Deno.writeTextFileSync(`${this.path}/worker.ts`, WORKER);
  }

  /** Waits until so many workers were started. */
  async started(count: number): Promise<void> {
    await eventually(`${count} workers to be started`, () => this.count >= count);
  }

  get count(): number {
    return [...Deno.readDirSync(this.path)].filter(({ name }) => name.startsWith("started"))
      .length;
  }

  async hold(): Promise<void> {
    await Deno.writeTextFile(`${this.path}/hold`, "");
  }

  async release(): Promise<void> {
    await Deno.remove(`${this.path}/hold`);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Deno.remove(this.path, { recursive: true });
  }
}

Deno.test("Supervisor.reload() during a reload replaces each worker once more at most", async () => {
  await using directory = new Directory();
  const { path } = directory;
  const command = ["run", "--allow-all", `${path}/worker.ts`, path];
  const serving = Promise.withResolvers<void>();
  const options = {
    workers: 2,
    command,
    shutdownTimeout: 10_000,
    startTimeout: 60_000,
    workerTimeout: null,
    maxRequests: null,
    maxMemory: null,
    backlog: null,
    logFormat: "text" as const,
  };
  const supervisor = new Supervisor(options, serving.resolve);
  const code = supervisor.run();
  await deadline(serving.promise, "a worker to serve");
  await directory.started(2);
  await directory.hold();
  supervisor.reload();
  await directory.started(3);
  for (let i = 0; i < 9; i++) supervisor.reload();
  await directory.release();
  // The successor that has started is older than the last reload.
  await directory.started(5);
  await deadline(supervisor.reloaded, "the end of the reload");
  assertEquals(directory.count, 5);
  supervisor.stop();
  assertEquals(await deadline(code, "the end of the workers"), 0);
});
