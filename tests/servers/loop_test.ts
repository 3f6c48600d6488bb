/** A request that loops until its worker is killed, behind nginx as `config` prints it. */
import { assert, assertEquals } from "@std/assert";
import { served, startServe } from "../testing/command_line.ts";
import { request } from "./client.ts";
import { configuration, Suite } from "./harness.ts";
import { nginxCommand } from "./nginx.ts";

const APP = `
export default () => {
  console.error("begins in " + Deno.pid + ".");
  for (;;);
};
`;

for (const protocol of ["fastcgi", "scgi"]) {
  const suite = new Suite(
    `nginx with a worker that loops, ${protocol}`,
    { nginx: "nginx-light", "/etc/nginx/fastcgi_params": "nginx-common" },
    async (rig) => {
      const socket = `unix:${rig.dir}/app.sock`;
      const workers = startServe(
        rig.write("app/app.ts", APP),
        [
          ...["--protocol", protocol, "--workers", "2", "--worker-timeout", "1"],
          ...["--mode", "666", "--listen", socket],
        ],
        ["--allow-read", "--allow-write", "--allow-env", "--allow-run", "--allow-net"],
      );
      rig.use({ [Symbol.dispose]: () => void workers[Symbol.asyncDispose]() });
      await served(workers);
      const { port } = await rig.serve("nginx", ["port"], ({ port }) => {
        const args = ["--listen", `127.0.0.1:${port}`, "--backend", socket];
        const site = configuration("nginx", ...args, "--protocol", protocol, "--workers", "2");
        const limit = `${protocol}_next_upstream_timeout 30s;`;
        assert(site.includes(limit));
        return nginxCommand(rig, [site.replace(limit, limit.replace("30s", "100ms"))]);
      });
      return { host: `127.0.0.1:${port}`, workers };
    },
  );

  suite.test("takes one worker", async ({ host, workers }) => {
    const { status } = await request(host, "GET", "/");
    assertEquals(status, 502);
    assertEquals(workers.log.match(/begins in \d+\./g)?.length, 1, workers.log);
  });
}
