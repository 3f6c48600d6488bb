import process from "node:process";

/**
 * Tells the supervisor, if there is one, that this worker serves.
 *
 * @param onOrphaned Called when the supervisor is gone.
 */
export function reportReady(onOrphaned: () => void): void {
  if (process.send === undefined) return;
  process.send("ready");
  process.once("disconnect", onOrphaned);
  // The channel must not keep a worker alive that has nothing more to do.
  process.channel?.unref?.();
}
