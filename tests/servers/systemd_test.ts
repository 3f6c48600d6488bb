/** The service that `config systemd` prints for an app in a home folder, run as systemd does: in namespaces, as another user. */
import { assert, assertEquals } from "@std/assert";
import { SPECIFIER } from "../../cli/version.ts";
import { fetchFastCGI } from "../../gateway.ts";
import { importMapFlags, runCommandLine } from "../testing/command_line.ts";
import { find } from "../testing/needs.ts";
import { Sandbox } from "../testing/sandbox.ts";
import { eventually, freePort, Rig } from "./harness.ts";

const APP = `import { DatabaseSync } from "node:sqlite";

const folder = Deno.env.get("STATE_DIRECTORY");
const database = new DatabaseSync(folder + "/app.db");
database.exec("create table if not exists visits (at integer)");

export default () => {
  database.exec("insert into visits values (1)");
  const { visits } = database.prepare("select count(*) as visits from visits").get();
  const { NODE_ENV, SECRET } = Deno.env.toObject();
  let other = "none";
  try {
    other = Deno.readTextFileSync("/home/ann/site/../diary");
  } catch (error) {
    other = error.name;
  }
  return Response.json({ visits, NODE_ENV, SECRET, folder, other });
};
`;

const missing = ["systemd-socket-activate", "setpriv", "unshare"].filter((name) => !find(name));
const isPossible = missing.length === 0 && Sandbox.isPossible();

Deno.test({
  name: "config systemd: an app and a Deno in a home folder, with data and an environment file",
  ignore: !isPossible,
  async fn() {
    await using rig = new Rig();
    const deno = "/home/ann/.deno/bin/deno";
    const app = "/home/ann/site/app.ts";
    rig.write("app.ts", APP);
    const envFile = rig.write("app.env", "SECRET=hush\n");
    const { stdout } = await runCommandLine(
      ["config", "systemd", "--app", app, "--data", "--env-file", envFile],
    );
    const units = stdout.replaceAll(Deno.execPath(), deno);
    const value = (name: string) => {
      const found = new RegExp(`^${name}=(.*)$`, "m").exec(units);
      assert(found !== null, name);
      return found[1];
    };
    // As the configuration that this Deno would print if it were in a home folder.
    assertEquals(value("ProtectHome"), "tmpfs");
    const shown = [...value("BindReadOnlyPaths").split(" "), deno];
    for (const [name, folder] of [["CacheDirectory", "cache"], ["StateDirectory", "state"]]) {
      Deno.mkdirSync(`${rig.dir}/${folder}/${value(name)}`, { recursive: true });
      Deno.chownSync(`${rig.dir}/${folder}/${value(name)}`, 65534, 65534);
    }
    const placed = (text: string) =>
      text.replaceAll("%C", `${rig.dir}/cache`).replaceAll("%S", `${rig.dir}/state`)
        .replaceAll(SPECIFIER, `${importMapFlags().join(" ")} ${rig.root}/cli.ts`);
    const environment = [...units.matchAll(/^Environment=(.*)$/gm)].map(([, text]) => placed(text));
    const address = `127.0.0.1:${freePort()}`;
    const script = `set -e
mount -t tmpfs none /home
mkdir -p /home/ann/.deno/bin /home/ann/site
chmod 700 /home/ann
cp ${rig.dir}/app.ts ${app}
echo private > /home/ann/diary
touch ${deno}
mount --bind ${rig.bin}/deno ${deno}
# ProtectHome=tmpfs, BindReadOnlyPaths=
mount --rbind /home ${rig.dir}/www
mount -t tmpfs -o mode=755 none /home
for path in ${shown.join(" ")}; do
  mkdir -p $(dirname $path)
  [ -d ${rig.dir}/www\${path#/home} ] && mkdir $path || touch $path
  mount --bind ${rig.dir}/www\${path#/home} $path
  mount -o remount,bind,ro $path
done
set -a; . ${value("EnvironmentFile")}; set +a
cd ${value("WorkingDirectory")}
as="setpriv --reuid 65534 --regid 65534 --clear-groups env HOME=/ ${
      environment.join(" ")
    } STATE_DIRECTORY=${placed(`%S/${value("StateDirectory")}`)}"
$as ${placed(value("ExecStartPre"))}
exec systemd-socket-activate --listen ${address} ${
      ["HOME", "DENO_DIR", "NODE_ENV", "SECRET", "STATE_DIRECTORY", "NO_COLOR"].map((name) =>
        `-E ${name}`
      ).join(" ")
    } $as ${placed(value("ExecStart"))}
`;
    const program = rig.spawn("the service", "unshare", ["--mount", "sh", "-c", script]);
    await eventually("the socket", () => {
      assert(program.status === undefined, program.output);
      return program.output.includes("Listening on");
    });
    for (const visits of [1, 2]) {
      const response = await fetchFastCGI("http://localhost/", address).catch((cause) => {
        throw new Error(`The service does not respond: ${program.output}`, { cause });
      });
      const text = await response.text();
      assert(response.ok, `${text}\n${program.output}`);
      assertEquals(JSON.parse(text), {
        visits,
        NODE_ENV: "production",
        SECRET: "hush",
        folder: `${rig.dir}/state/app`,
        other: "NotCapable",
      });
    }
    const { uid, mode } = Deno.statSync(`${rig.dir}/state/app/app.db`);
    assertEquals([uid, mode! & 0o777], [65534, 0o644]);
  },
});
