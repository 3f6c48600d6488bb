/** What SELinux keeps a web server from, on a prepared tree: most machines of tests have no SELinux. */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { parseFirstLine } from "../../cli/doctor/first_line.ts";
import {
  examineConnections,
  examineScriptLabels,
  SELinux,
  SELINUX_FINDINGS,
} from "../../cli/doctor/selinux.ts";
import { importMapFlags } from "../testing/command_line.ts";
import { ROOT } from "../testing/daemon.ts";
import { testWith } from "../testing/needs.ts";

const tested = new Set<string>();

/** A folder with the files of an SELinux, and with labels. */
class Tree implements AsyncDisposable {
  readonly path = Deno.makeTempDirSync({ prefix: "gatehouse" });
  readonly labels = new Map<string, string>();

  constructor(enforce = "1", booleans: Record<string, string> = {}) {
    this.write("selinux/enforce", enforce);
    for (const [name, value] of Object.entries(booleans)) {
      this.write(`selinux/booleans/${name}`, value);
    }
    this.write("config/config", "# Fedora's\nSELINUX=enforcing\nSELINUXTYPE=targeted\n");
  }

  write(name: string, text: string): string {
    const path = `${this.path}/${name}`;
    Deno.mkdirSync(path.slice(0, path.lastIndexOf("/")), { recursive: true });
    Deno.writeTextFileSync(path, text);
    return path;
  }

  /** Writes a file with a type. */
  file(name: string, type: string): string {
    const path = this.write(name, "");
    this.labels.set(path, `system_u:object_r:${type}:s0`);
    return path;
  }

  /** Makes a folder with a type. */
  folder(name: string, type: string): string {
    const path = `${this.path}/${name}`;
    Deno.mkdirSync(path, { recursive: true });
    this.labels.set(path, `unconfined_u:object_r:${type}:s0`);
    return path;
  }

  find(): SELinux | undefined {
    return SELinux.find(
      `${this.path}/selinux`,
      `${this.path}/config`,
      (path) => this.labels.get(path),
    );
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Deno.remove(this.path, { recursive: true });
  }
}

const DENO = parseFirstLine("#!/usr/bin/env -S deno run --no-prompt --allow-env");
const PERL = parseFirstLine("#!/usr/bin/perl");

/** Returns the kinds of findings, and the lines that mend them. */
function shown(findings: { id: string; line: string | undefined }[]): [string, string?][] {
  for (const { id } of findings) tested.add(id);
  return findings.map(({ id, line }) => [id, line]);
}

Deno.test("SELinux that is not there, or permissive, keeps nobody from anything", async () => {
  await using tree = new Tree("0", { httpd_can_network_connect: "0 0" });
  const script = tree.file("cgi-bin/hello.pl", "user_home_t");
  assertEquals(tree.find(), undefined);
  assertEquals(SELinux.find(`${tree.path}/none`), undefined);
  assertEquals(examineScriptLabels(script, PERL, tree.find()), []);
  const addresses = [{ protocol: "fastcgi" as const, address: "127.0.0.1:9000" }];
  assertEquals(examineConnections(addresses, tree.find()), []);
});

Deno.test("SELinux: a script that is not labeled as one", async () => {
  await using tree = new Tree();
  const script = tree.file("srv/cgi-bin/hello.pl", "httpd_sys_content_t");
  const folder = `${tree.path}/srv/cgi-bin`;
  assertEquals(shown(examineScriptLabels(script, PERL, tree.find())), [[
    "selinux-script",
    `sudo semanage fcontext -a -t httpd_sys_script_exec_t '${folder}(/.*)?' && sudo restorecon -R ${folder}`,
  ]]);
  for (const type of ["httpd_sys_script_exec_t", "httpd_user_script_exec_t", "bin_t"]) {
    tree.labels.set(script, `system_u:object_r:${type}:s0`);
    assertEquals(examineScriptLabels(script, PERL, tree.find()), []);
  }
  tree.labels.delete(script);
  assertEquals(examineScriptLabels(script, PERL, tree.find()), []);
});

Deno.test("SELinux: a script among other files is labeled alone", async () => {
  await using tree = new Tree();
  const script = tree.file("srv/www/hello.v2.pl", "default_t");
  const [[, line]] = shown(examineScriptLabels(script, PERL, tree.find()));
  const pattern = script.replaceAll(".", "\\.");
  assertEquals(
    line,
    `sudo semanage fcontext -a -t httpd_sys_script_exec_t '${pattern}' && sudo restorecon ${script}`,
  );
});

Deno.test("SELinux: the memory that JavaScript is compiled into", async () => {
  await using tree = new Tree("1", { httpd_execmem: "0 0" });
  const script = tree.file("cgi-bin/hello.ts", "httpd_sys_script_exec_t");
  assertEquals(shown(examineScriptLabels(script, DENO, tree.find())), [
    ["selinux-memory", "sudo setsebool -P httpd_execmem on"],
  ]);
  const node = parseFirstLine("#!/usr/bin/env node");
  assertEquals(examineScriptLabels(script, node, tree.find()).length, 1);
  assertEquals(examineScriptLabels(script, PERL, tree.find()), []);
  tree.write("selinux/booleans/httpd_execmem", "1 1");
  assertEquals(examineScriptLabels(script, DENO, tree.find()), []);
});

Deno.test("SELinux: data that a script may write, and a file that is not there yet", async () => {
  await using tree = new Tree();
  const script = tree.file("cgi-bin/hello.ts", "httpd_sys_script_exec_t");
  const data = tree.folder("lib/guestbook", "var_lib_t");
  const first = (path: string) =>
    parseFirstLine(`#!/usr/bin/env -S deno run --allow-env --allow-write=${path}`);
  const line =
    `sudo semanage fcontext -a -t httpd_sys_rw_content_t '${data}(/.*)?' && sudo restorecon -R ${data}`;
  for (const path of [data, `${data}/new.db`]) {
    const findings = examineScriptLabels(script, first(path), tree.find());
    assertEquals(shown(findings), [["selinux-data", line]]);
  }
  tree.labels.set(data, "system_u:object_r:httpd_sys_rw_content_t:s0");
  assertEquals(examineScriptLabels(script, first(data), tree.find()), []);
});

Deno.test("SELinux: the socket of a daemon, by the name that the policy has for /run", async () => {
  await using tree = new Tree();
  const socket = tree.file("run/app.sock", "var_run_t");
  const address = `unix:${socket}`;
  const addresses = [{ protocol: "fastcgi" as const, address }];
  const line = (path: string) =>
    `sudo semanage fcontext -a -t httpd_var_run_t '${path}' && sudo restorecon ${socket}`;
  assertEquals(shown(examineConnections(addresses, tree.find())), [
    ["selinux-socket", line(socket.replaceAll(".", "\\."))],
  ]);
  tree.write(
    "config/targeted/contexts/files/file_contexts.subs_dist",
    `/etc/init.d /etc/rc.d/init.d\n${tree.path}/run ${tree.path}/var/run\n`,
  );
  assertEquals(shown(examineConnections(addresses, tree.find())), [
    ["selinux-socket", line(`${tree.path}/var/run/app\\.sock`)],
  ]);
  tree.labels.set(socket, "system_u:object_r:httpd_var_run_t:s0");
  assertEquals(examineConnections(addresses, tree.find()), []);
});

Deno.test("SELinux: connections over TCP", async () => {
  await using tree = new Tree("1", { httpd_can_network_connect: "0 0" });
  const addresses = [
    { protocol: "fastcgi" as const, address: "127.0.0.1:9000" },
    { protocol: "http" as const, address: "127.0.0.1:8000" },
  ];
  assertEquals(shown(examineConnections(addresses, tree.find())), [
    ["selinux-network", "sudo setsebool -P httpd_can_network_connect on"],
  ]);
  tree.write("selinux/booleans/httpd_can_network_connect", "1 1");
  assertEquals(examineConnections(addresses, tree.find()), []);
});

/** Whether this user may give files labels and see a file system in place of another, as root of a container may not. */
function mayLabel(): boolean {
  if (Deno.uid() !== 0) return false;
  const file = Deno.makeTempFileSync();
  try {
    return new Deno.Command("unshare", {
      args: [
        ...["--mount", "sh", "-c"],
        'mount -t tmpfs none /sys/fs && setfattr -n security.selinux -v "a:b:c:d" "$0"',
        file,
      ],
      stderr: "null",
      stdout: "null",
    }).outputSync().success;
  } catch {
    return false;
  } finally {
    Deno.removeSync(file);
  }
}

const label = mayLabel() ? testWith : (_: unknown, name: string, fn: () => Promise<void>) => {
  Deno.test.ignore(`${name} (needs root that may mount file systems, and attr)`, fn);
};

label(
  { setfattr: "attr", unshare: "util-linux", stat: "coreutils" },
  "doctor reads SELinux's labels and switches of the machine",
  async () => {
    await using tree = new Tree();
    const script = tree.write("srv/cgi-bin/hello.cgi", "#!/bin/sh\nprintf 'Status: 200\\n\\n'\n");
    Deno.chmodSync(script, 0o755);
    Deno.chmodSync(tree.path, 0o755);
    const conf = tree.write(
      "nginx.conf",
      "events {}\nhttp { server { listen 80; location / { fastcgi_param REQUEST_METHOD GET; fastcgi_pass 127.0.0.1:1; } } }\n",
    );
    const deno = [Deno.execPath(), "run", "--allow-all", ...importMapFlags(), `${ROOT}cli.ts`];
    const run = async (type: string, network: string, ...args: string[]) => {
      const { stdout } = await new Deno.Command("unshare", {
        args: [
          ...["--mount", "sh", "-c"],
          `mount -t tmpfs none /sys/fs && mkdir -p /sys/fs/selinux/booleans &&
printf 1 > /sys/fs/selinux/enforce &&
printf '${network}' > /sys/fs/selinux/booleans/httpd_can_network_connect &&
setfattr -n security.selinux -v 'system_u:object_r:${type}:s0' "$0" && exec "$@"`,
          script,
          ...deno,
          ...args,
        ],
      }).output();
      return new TextDecoder().decode(stdout);
    };
    const before = await run("user_home_t", "0 0", "doctor", script, "--user", "www-data");
    assertStringIncludes(before, "its type is user_home_t, not httpd_sys_script_exec_t");
    assertStringIncludes(before, "sudo semanage fcontext -a -t httpd_sys_script_exec_t ");
    const after = await run("httpd_sys_script_exec_t", "0 0", "doctor", script, "--user", "nobody");
    assertStringIncludes(after, "Nothing is wrong.");
    const nginx = (network: string) =>
      run("bin_t", network, "doctor", "nginx", "--conf", conf, "--user", "www-data");
    assertStringIncludes(await nginx("0 0"), "sudo setsebool -P httpd_can_network_connect on");
    assert(!(await nginx("1 1")).includes("setsebool"));
  },
);

Deno.test("SELinux: each kind of finding has a test, and none turns SELinux off", () => {
  assertEquals(Object.keys(SELINUX_FINDINGS).filter((id) => !tested.has(id)), []);
  const texts = Object.values(SELINUX_FINDINGS).map(({ advice }) => advice).join();
  assert(!/setenforce|disable|permissive/i.test(texts), texts);
});
