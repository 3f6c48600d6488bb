import { assertEquals } from "@std/assert";
import { ROOT } from "../testing/daemon.ts";
import { deadline } from "../testing/deadline.ts";

/** A worker that serves, and reads what it is sent. */
const WORKER = `
process.on("message", () => {});
process.send("ready");
`;

/** A program that kills workers which have not read a message, and prints how many descriptors more it has afterwards. */
const PROGRAM = `
import { WorkerProcess } from "${ROOT}process/worker_process.ts";

const descriptors = () => [...Deno.readDirSync("/proc/self/fd")].length;
const turn = () => new Promise((resolve) => setTimeout(resolve, 10));

async function lose() {
  const worker = new WorkerProcess({
    command: ["run", "--allow-env", Deno.args[0]],
    stdin: "ignore",
    name: "Worker",
    shutdownTimeout: 0,
  });
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

await lose();
const before = descriptors();
for (let i = 0; i < 5; i++) await lose();
console.log(descriptors() - before);
Deno.exit();
`;

Deno.test({
  name: "WorkerProcess keeps no descriptor of a worker that was killed before it read a message",
  ignore: Deno.build.os !== "linux",
  async fn() {
    const directory = await Deno.makeTempDir();
    await Deno.writeTextFile(`${directory}/worker.ts`, WORKER);
    await Deno.writeTextFile(`${directory}/program.ts`, PROGRAM);
    const program = new Deno.Command(Deno.execPath(), {
      args: [
        "run",
        "--allow-all",
        "--no-config",
        `${directory}/program.ts`,
        `${directory}/worker.ts`,
      ],
    }).output();
    const { stdout, stderr } = await deadline(program, "the end of the program", 60_000);
    const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
    assertEquals([text(stderr), text(stdout)], ["", "0\n"]);
    await Deno.remove(directory, { recursive: true });
  },
});
