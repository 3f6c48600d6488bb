import { assert, assertEquals } from "@std/assert";
import { serverQuirks, SERVERS } from "../../bridge/server_quirks.ts";
import { Variables } from "../../wire/variables.ts";

Deno.test("serverQuirks() finds a server by the beginning of SERVER_SOFTWARE", () => {
  const software = (...values: string[]) =>
    values.map((value) => serverQuirks(new Variables([["SERVER_SOFTWARE", value]])).software);
  assertEquals(
    software("CivetWeb/1.15", "other/1.0", "CivetWeb/2.0", "", "a CivetWeb/1.15"),
    ["CivetWeb/", "", "CivetWeb/", "", ""],
  );
  assertEquals(serverQuirks(new Variables([])).software, "");
});

Deno.test("docs/servers.md lists every server with quirks, and the version that they were seen in", async () => {
  const page = await Deno.readTextFile(new URL("../../docs/servers.md", import.meta.url));
  for (const { software, version } of SERVERS) {
    const line = page.split("\n").find((line) => line.startsWith(`| \`${software}\``));
    assert(line?.includes(`| ${version} `), `${software} ${version}: ${line}`);
  }
});
