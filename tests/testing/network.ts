/** Machines in network namespaces, each connected to the first by a cable of its own. */
import { eventually } from "./deadline.ts";
import { find, testWith } from "./needs.ts";

/** What the namespaces need. */
const NEEDS: Record<string, string> = {
  unshare: "util-linux",
  nsenter: "util-linux",
  ip: "iproute2",
  sleep: "coreutils",
};

const asUser = Deno.uid() === 0 ? [] : ["--user", "--map-root-user"];

/** Runs a command to its end. @throws {Error} If it fails. */
function run([command, ...args]: string[]): void {
  const { success, stderr } = new Deno.Command(find(command) ?? command, { args }).outputSync();
  if (!success) {
    throw new Error(`${[command, ...args].join(" ")}: ${new TextDecoder().decode(stderr)}`);
  }
}

/** Returns why namespaces cannot be made here; undefined if they can. */
function fault(): string | undefined {
  try {
    run([
      "unshare",
      ...asUser,
      "--net",
      "ip",
      ..."link add name a type veth peer name b".split(" "),
    ]);
    return undefined;
  } catch (error) {
    return (error as Error).message.trim().split("\n").at(-1);
  }
}

/** Registers a test that needs programs and namespaces. It is ignored where there are none. */
export function testInNetwork(
  needs: Record<string, string>,
  name: string,
  fn: (t: Deno.TestContext) => Promise<void>,
): void {
  const all = { ...NEEDS, ...needs };
  const reason = Object.keys(NEEDS).every(find) ? fault() : undefined;
  if (reason === undefined) return testWith(all, name, fn);
  Deno.test.ignore(`${name} (no network namespaces: ${reason})`, fn);
}

/** Machines 10.0.0.1, 10.0.0.2 and so on, of which the first reaches all others, and these only the first. */
export class Network implements AsyncDisposable {
  readonly #holders: Deno.ChildProcess[] = [];

  /** @param count How many machines there are. */
  static async create(count: number): Promise<Network> {
    const network = new Network();
    for (let machine = 1; machine <= count; machine++) await network.#add(machine);
    return network;
  }

  /** A process keeps the namespace. */
  async #add(machine: number): Promise<void> {
    const unshare = ["unshare", ...(machine === 1 ? asUser : []), "--net", "sleep", "infinity"];
    const [command, ...args] = machine === 1 ? unshare : this.command(1, unshare);
    const holder = new Deno.Command(find(command)!, { args, stdin: "null" }).spawn();
    this.#holders.push(holder);
    // nsenter and unshare become the program that they run.
    const isReady = async () => await nameOf(holder.pid) === "sleep\n";
    await eventually(`machine ${machine}`, isReady);
    this.#run(machine, "ip link set lo up");
    if (machine === 1) return;
    this.#run(1, `ip link add name m${machine} type veth peer name m1 netns ${holder.pid}`);
    this.#run(1, `ip address add 10.0.0.1 peer 10.0.0.${machine} dev m${machine}`);
    this.#run(1, `ip link set m${machine} up`);
    this.#run(machine, `ip address add 10.0.0.${machine} peer 10.0.0.1 dev m1`);
    this.#run(machine, "ip link set m1 up");
  }

  /** Returns a command that runs another one on a machine. */
  command(machine: number, command: string[]): string[] {
    const user = asUser.length === 0 ? [] : ["--user", "--preserve-credentials"];
    const { pid } = this.#holders[machine - 1];
    return ["nsenter", "--target", String(pid), ...user, "--net", ...command];
  }

  #run(machine: number, command: string): void {
    run(this.command(machine, command.split(" ")));
  }

  /** Cuts the cable of a machine: packets are lost, and nothing says so. */
  cut(machine: number): void {
    this.#run(machine, "ip link set m1 down");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const holder of this.#holders) {
      holder.kill("SIGKILL");
      await holder.status;
    }
  }
}

async function nameOf(pid: number): Promise<string> {
  const { stdout } = await new Deno.Command("cat", { args: [`/proc/${pid}/comm`] }).output();
  return new TextDecoder().decode(stdout);
}
