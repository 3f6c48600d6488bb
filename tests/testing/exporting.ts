/** Runs programs that export telemetry. */
import { assert } from "@std/assert";
import { deadline } from "./deadline.ts";
import { OTLPReceiver } from "./otlp_receiver.ts";

/** What a program has exported and printed. */
export interface Exported {
  receiver: OTLPReceiver;
  output: string;
}

/** Runs a program with a receiver until it ends. */
export async function runExporting(
  program: URL,
  args: string[],
  env: Record<string, string> = {},
): Promise<Exported> {
  const receiver = new OTLPReceiver();
  await using _ = receiver;
  const importMap = Deno.env.get("GATEHOUSE_IMPORT_MAP");
  const child = new Deno.Command(Deno.execPath(), {
    args: [
      ...["run", "--quiet", "--no-prompt", "--no-config"],
      ...(importMap === undefined ? [] : [`--import-map=${importMap}`]),
      ...["--allow-net", "--allow-read", "--allow-write", "--allow-run", "--allow-env=PATH"],
      ...[program.href, ...args],
    ],
    env: { ...receiver.env, ...env },
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  const { success, stdout, stderr } = await deadline(child.output(), "the program's end", 60_000);
  assert(success, new TextDecoder().decode(stderr));
  return { receiver, output: new TextDecoder().decode(stdout) };
}
