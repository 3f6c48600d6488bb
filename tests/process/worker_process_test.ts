import { assertEquals } from "@std/assert";
import { ROOT } from "../testing/daemon.ts";
import { deadline } from "../testing/deadline.ts";

/** A worker that serves, and reads what it is sent. */
const WORKER = `
process.on("message", () => {});
process.send("ready");
`;

/**
 * A program that kills workers which have not read a message, and prints how many descriptors more it has afterwards, and
 * how many of the workers are still in memory.
 */
const PROGRAM = `
import childProcess from "node:child_process";
import { WorkerProcess } from "${ROOT}process/worker_process.ts";

const descriptors = () => [...Deno.readDirSync("/proc/self/fd")].length;
const kept = [];
const { spawn } = childProcess;
childProcess.spawn = (...args) => {
  const child = spawn(...args);
  kept.push(new WeakRef(child));
  return child;
};
const turn = () => new Promise((resolve) => setTimeout(resolve, 10));

async function lose() {
  const worker = new WorkerProcess({
    command: ["run", "--allow-env", Deno.args[0]],
    stdin: "ignore",
    name: "Worker",
    shutdownTimeout: 0,
  });
  kept.push(new WeakRef(worker));
  await worker.started;
  const { pid } = worker;
  Deno.kill(pid, "SIGSTOP");
  while (!/ T /.test(Deno.readTextFileSync("/proc/" + pid + "/stat"))) await turn();
  worker.reopenLogs();
  await turn();
  Deno.kill(pid, "SIGKILL");
  await worker.ended;
  await turn();
}

// The first ones open what stays open.
for (let i = 0; i < 2; i++) await lose();
const before = descriptors();
for (let i = 0; i < 5; i++) await lose();
let more = descriptors() - before;
// They are closed a little later.
for (let i = 0; i < 500 && more > 0; i++) {
  await turn();
  more = descriptors() - before;
}
gc();
// The engine may hold the last one.
console.log(more, kept.slice(0, 10).filter((ref) => ref.deref() !== undefined).length);
Deno.exit();
`;

Deno.test({
  name:
    "WorkerProcess keeps no descriptor and no memory of a worker that was killed before it read a message",
  ignore: Deno.build.os !== "linux",
  async fn() {
    const directory = await Deno.makeTempDir();
    await Deno.writeTextFile(`${directory}/worker.ts`, WORKER);
    await Deno.writeTextFile(`${directory}/program.ts`, PROGRAM);
    const program = new Deno.Command(Deno.execPath(), {
      args: [
        "run",
        "--allow-all",
        "--v8-flags=--expose-gc",
        "--no-config",
        `${directory}/program.ts`,
        `${directory}/worker.ts`,
      ],
      // Deno looks for a new version of itself after a moment, over descriptors that would be counted.
      env: { DENO_NO_UPDATE_CHECK: "1" },
    }).output();
    const { stdout, stderr } = await deadline(program, "the end of the program", 60_000);
    const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
    assertEquals([text(stderr), text(stdout)], ["", "0 0\n"]);
    await Deno.remove(directory, { recursive: true });
  },
});
