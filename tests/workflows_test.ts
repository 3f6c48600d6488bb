/** .github/workflows/: what may publish the package. */
import { assertEquals, assertMatch } from "@std/assert";
import { ROOT } from "./testing/daemon.ts";
import { testWith } from "./testing/needs.ts";

const read = (name: string) => Deno.readTextFileSync(`${ROOT}.github/workflows/${name}`);
const PUBLISH = read("publish.yml");

Deno.test("workflows use actions by hash, with the version beside it", () => {
  for (const { name } of Deno.readDirSync(`${ROOT}.github/workflows`)) {
    const used = [...read(name).matchAll(/^ *(?:- )?uses: (.*)$/gm)].map(([, action]) => action);
    for (const action of used) {
      assertMatch(action, /^[\w-]+\/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$/, name);
    }
  }
});

/** Returns the text of a job. */
function jobOf(name: string): string {
  return new RegExp(`^  ${name}:\n((?: {4}.*\n|\n)+)`, "m").exec(PUBLISH)![1];
}

Deno.test("only the job that publishes may do so, in an environment, after the checks", () => {
  assertMatch(PUBLISH, /^permissions: \{\}$/m);
  assertEquals([...PUBLISH.matchAll(/^ *id-token: write$/gm)].length, 1);
  const publish = jobOf("publish");
  for (const line of ["needs: check", "environment: jsr", "  id-token: write"]) {
    assertMatch(publish, new RegExp(`^    ${line}$`, "m"));
  }
  assertEquals([...publish.matchAll(/run: (.*)/g)].map(([, command]) => command), ["deno publish"]);
});

/** Runs a step of the job "check" in a folder. @returns Whether it passes. */
async function runStep(
  name: string,
  cwd: string,
  env: Record<string, string>,
): Promise<boolean> {
  const [, command] = new RegExp(`- name: ${name}\n +run: (.*)\n`).exec(jobOf("check"))!;
  const { success } = await new Deno.Command("bash", { args: ["-ec", command], cwd, env }).output();
  return success;
}

testWith({ git: "git", bash: "bash" }, "a tag is published only if it is on main", async () => {
  const folder = await Deno.makeTempDir();
  const script = `git init -q -b main .
git config user.name Ann
git config user.email ann@example.org
git commit -q --allow-empty -m one
git commit -q --allow-empty -m two
git update-ref refs/remotes/origin/main HEAD
git checkout -q -b other HEAD~1
git commit -q --allow-empty -m three
git rev-parse main~1 main other`;
  const { stdout } = await new Deno.Command("bash", { args: ["-ec", script], cwd: folder })
    .output();
  const [older, newest, other] = new TextDecoder().decode(stdout).trim().split("\n");
  const isOnMain = (commit: string) =>
    runStep("The tag is on main", folder, { GITHUB_SHA: commit });
  assertEquals([await isOnMain(older), await isOnMain(newest), await isOnMain(other)], [
    true,
    true,
    false,
  ]);
  await Deno.remove(folder, { recursive: true });
});

testWith({ bash: "bash" }, "a tag is published only if it names the version", async () => {
  const { version } = JSON.parse(Deno.readTextFileSync(`${ROOT}deno.json`));
  const isVersion = (tag: string) =>
    runStep("The tag names the version of deno.json", ROOT, { GITHUB_REF_NAME: tag });
  assertEquals([await isVersion(`v${version}`), await isVersion("v0.0.1")], [true, false]);
});

testWith({ bash: "bash" }, "a tag is published only if CI has passed for its commit", async () => {
  const folder = await Deno.makeTempDir();
  // Prints the number of runs that GitHub's program would, for the right query.
  const gh = `#!/bin/sh
case "$2" in
  repos/a/b/actions/workflows/ci.yml/runs\\?head_sha=cafe*status=success*) echo "$RUNS" ;;
  *) exit 1 ;;
esac
`;
  await Deno.writeTextFile(`${folder}/gh`, gh, { mode: 0o755 });
  const hasPassed = (commit: string, runs: string) =>
    runStep("CI has passed on main for this commit", folder, {
      PATH: `${folder}:${Deno.env.get("PATH")}`,
      GITHUB_REPOSITORY: "a/b",
      GITHUB_SHA: commit,
      RUNS: runs,
    });
  assertEquals(
    [await hasPassed("cafe", "1"), await hasPassed("cafe", "0"), await hasPassed("beef", "1")],
    [true, false, false],
  );
  await Deno.remove(folder, { recursive: true });
});
