/**
 * Reports to the supervisor, if there is one, that this worker serves.
 *
 * @param onOrphaned Called when the supervisor has ended.
 */
export async function reportReady(onOrphaned: () => void): Promise<void> {
  // Imported here, as a script that is bundled into one file would otherwise load it for CGI too.
  const { default: process } = await import("node:process");
  if (process.send === undefined) return;
  process.send("ready");
  process.once("disconnect", onOrphaned);
  // The channel must not keep a worker alive after its server has stopped.
  process.channel?.unref?.();
}
