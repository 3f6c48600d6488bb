import type nodeProcess from "node:process";

/** The part of `process` that Deno has, too: for messages of the process that started this one by node:child_process. */
export type NodeProcess = typeof nodeProcess;

/** Returns this process. Not by an import of `node:process`, with which Node makes standard input non-blocking. */
export function thisProcess(): NodeProcess {
  const { process } = globalThis as unknown as { process: NodeProcess };
  return process;
}
