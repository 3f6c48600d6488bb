/**
 * Follows docs/frameworks.md: `deno task frameworks`, or `deno task frameworks Hono Astro` for some. Downloads from npm.
 *
 * @module
 */
import { follow, FRAMEWORKS } from "../tests/guides/frameworks.ts";

const unknown = Deno.args.filter((name) => !FRAMEWORKS.includes(name));
if (unknown.length > 0) {
  console.error(`There is no ${unknown.join(", ")}: the page has ${FRAMEWORKS.join(", ")}.`);
  Deno.exit(2);
}
for (const name of Deno.args.length > 0 ? Deno.args : FRAMEWORKS) {
  try {
    const { build, start, size } = await follow(name);
    console.log(
      `ok      ${name}: built in ${build.toFixed(1)} s, as CGI ${
        size.toFixed(1)
      } MiB that start in ${start.toFixed(2)} s of processor time`,
    );
  } catch (error) {
    console.log(`failed  ${name}: ${error}`);
    Deno.exitCode = 1;
  }
}
