import { deadline } from "./deadline.ts";

/** Folders of the system that are empty in a sandbox. */
const EMPTY = ["/usr/local/bin", "/var/cache"];

/** A mount namespace, in which programs may write to folders of the system without harm. Needs root. */
export class Sandbox implements AsyncDisposable {
  readonly #child: Deno.ChildProcess;
  readonly #ready: Promise<unknown>;

  /** @param hidden Files that are not there. */
  constructor(hidden: string[] = []) {
    const mounts = [
      ...EMPTY.map((folder) => `mount -t tmpfs -o mode=755 none ${folder}`),
      ...hidden.map((file) => `mount --bind /dev/null ${file}`),
    ].join(" && ");
    this.#child = new Deno.Command("unshare", {
      args: ["--mount", "sh", "-c", `${mounts} && echo ready && read line`],
      stdin: "piped",
      stdout: "piped",
    }).spawn();
    const reader = this.#child.stdout.getReader();
    this.#ready = reader.read().then(async ({ done }) => {
      await reader.cancel();
      if (done) throw new Error("Cannot make a mount namespace");
    });
  }

  /** Returns whether this machine allows it. */
  static isPossible(): boolean {
    if (Deno.uid() !== 0) return false;
    try {
      const args = ["--mount", "mount", "-t", "tmpfs", "none", EMPTY[0]];
      return new Deno.Command("unshare", { args }).outputSync().success;
    } catch {
      return false;
    }
  }

  /** Runs a program in the namespace. */
  async run(
    program: string,
    args: string[],
    env: Record<string, string> = {},
  ): Promise<{ code: number; output: string }> {
    await deadline(this.#ready, "the sandbox");
    const { code, stdout, stderr } = await new Deno.Command("nsenter", {
      args: [`--target=${this.#child.pid}`, "--mount", `--wdns=${Deno.cwd()}`, program, ...args],
      stdin: "null",
      env,
    }).output();
    const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
    return { code, output: text(stdout) + text(stderr) };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#child.stdin.close();
    await deadline(this.#child.status, "the sandbox to end");
  }
}
