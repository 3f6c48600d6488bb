import { logLine } from "./log.ts";

/** The time between two checks of whether the supervisor still runs, in milliseconds. */
const CHECK = 1000;

/**
 * Reports to the supervisor, if there is one, that this worker serves. If the supervisor ends before it stops the
 * worker, the worker logs this and sets `Deno.exitCode` to 1.
 *
 * @param onOrphaned Called when the supervisor has ended.
 */
export async function reportReady(onOrphaned: () => void): Promise<void> {
  // Imported here, as a script that is bundled into one file would otherwise load it for CGI too.
  const { default: process } = await import("node:process");
  if (process.send === undefined) return;
  const { ppid } = process;
  let phase: "running" | "stopping" | "orphaned" = "running";
  const orphaned = () => {
    if (phase === "orphaned") return;
    if (phase === "running") {
      logLine("Ends with code 1 as its supervisor must run: it has ended");
      Deno.exitCode = 1;
    }
    phase = "orphaned";
    onOrphaned();
  };
  process.on("message", (message) => {
    if (message === "SIGTERM" && phase === "running") phase = "stopping";
  });
  process.once("disconnect", orphaned);
  // A supervisor that ends before it reads the message does not disconnect.
  const timer = setInterval(() => process.ppid !== ppid && orphaned(), CHECK);
  Deno.unrefTimer(timer as unknown as number);
  process.send("ready", (error: Error | null) => error && orphaned());
  // The channel must not keep a worker alive after its server has stopped.
  process.channel?.unref?.();
}
