/**
 * Tells the supervisor, if there is one, that this worker serves.
 *
 * @param onOrphaned Called when the supervisor is gone.
 */
export async function reportReady(onOrphaned: () => void): Promise<void> {
  // Not before it is needed: a script bundled into one file would load it to answer by CGI.
  const { default: process } = await import("node:process");
  if (process.send === undefined) return;
  process.send("ready");
  process.once("disconnect", onOrphaned);
  // The channel must not keep a worker alive that has nothing more to do.
  process.channel?.unref?.();
}
