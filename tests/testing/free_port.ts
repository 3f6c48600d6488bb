/** Ports for programs that cannot take port 0. */
import { mkdirSync, unlinkSync } from "node:fs";
import { tmpdir } from "node:os";

/** Below those that systems give to port 0 and to connections, on Linux from 32768 on. */
const MIN = 10_000;
const MAX = 32_000;
/** A folder with a file for each port that a test has. */
const CLAIMS = `${tmpdir()}/gatehouse-ports`;

const claimed: string[] = [];
addEventListener("unload", () => claimed.forEach((path) => unlinkSync(path)));

/**
 * Returns a port that is free, and that no other test takes until this file's tests end: between the choice of a port and
 * the start of the program that listens on it, another test could else be given the same.
 */
export function freePort(): number {
  for (;;) {
    const port = MIN + Math.floor(Math.random() * (MAX - MIN));
    if (claim(port) && isFree(port)) return port;
  }
}

function claim(port: number): boolean {
  const path = `${CLAIMS}/${port}`;
  mkdirSync(CLAIMS, { recursive: true });
  try {
    Deno.writeTextFileSync(path, "", { createNew: true });
  } catch (error) {
    if (!(error instanceof Deno.errors.AlreadyExists)) throw error;
    return false;
  }
  claimed.push(path);
  return true;
}

function isFree(port: number): boolean {
  try {
    Deno.listen({ hostname: "127.0.0.1", port }).close();
    return true;
  } catch {
    return false;
  }
}
