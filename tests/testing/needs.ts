/** Returns a program's path, or undefined if it is not installed. */
export function find(program: string): string | undefined {
  if (program.startsWith("/")) return exists(program) ? program : undefined;
  const path = `${Deno.env.get("PATH") ?? ""}:/usr/local/sbin:/usr/sbin:/sbin`;
  return path.split(":").map((dir) => `${dir}/${program}`).find(exists);
}

function exists(path: string): boolean {
  try {
    return Deno.statSync(path).isFile;
  } catch {
    return false;
  }
}

/**
 * Registers a test that needs programs. If one is missing, the test is ignored, or fails if
 * GATEHOUSE_REQUIRE_SERVERS is 1.
 *
 * @param needs Programs and files, each with the package that contains it.
 */
export function testWith(
  needs: Record<string, string>,
  name: string,
  fn: (t: Deno.TestContext) => void | Promise<void>,
): void {
  const missing = Object.keys(needs).filter((program) => find(program) === undefined);
  if (missing.length === 0) return Deno.test(name, fn);
  const packages = missing.map((program) => needs[program]).join(" ");
  const line = `${missing.join(", ")} missing: apt-get install ${packages}`;
  if (Deno.env.get("GATEHOUSE_REQUIRE_SERVERS") !== "1") {
    return Deno.test.ignore(`${name} (${line})`, fn);
  }
  Deno.test(name, () => {
    throw new Error(line);
  });
}
