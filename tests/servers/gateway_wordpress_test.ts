/** WordPress on PHP-FPM behind the gateway, from its installation to its dashboard: a part of `deno task programs`. */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { fastCGIGateway } from "../../gateway.ts";
import { request } from "./client.ts";
import { serve } from "./gateway_server.ts";
import { eventually, type Rig, Suite, within } from "./harness.ts";
import { nginxCommand } from "./nginx.ts";
import { PHP_FPM, startFPM } from "./php.ts";

const WORDPRESS = "/usr/share/wordpress";
const PASSWORD = "a password of the test";

const config = (rig: Rig) =>
  `<?php
define("DB_NAME", "wordpress");
define("DB_USER", "root");
define("DB_PASSWORD", "");
define("DB_HOST", "localhost:${rig.dir}/db.sock");
define("DB_CHARSET", "utf8mb4");
define("DB_COLLATE", "");
define("WP_HOME", "http://" . $_SERVER["HTTP_HOST"]);
define("WP_SITEURL", WP_HOME);
define("WP_DEFAULT_THEME", "test");
define("WP_HTTP_BLOCK_EXTERNAL", true);
define("AUTOMATIC_UPDATER_DISABLED", true);
foreach (["AUTH", "SECURE_AUTH", "LOGGED_IN", "NONCE"] as $name) {
  define("{$name}_KEY", "key of the test");
  define("{$name}_SALT", "salt of the test");
}
$table_prefix = "wp_";
define("ABSPATH", __DIR__ . "/");
require_once ABSPATH . "wp-settings.php";
`;

/** A job of WordPress' cron, which runs in a request of its own that its client does not wait for. */
const JOB = (rig: Rig) =>
  `<?php
add_action("test_job", function () { sleep(1); touch("${rig.dir}/cache/job-done"); });
add_action("init", function () {
  if (!get_option("test_job")) {
    update_option("test_job", 1);
    wp_schedule_single_event(time() - 1, "test_job");
  }
});
`;

const THEME = `<?php wp_head();
while (have_posts()) { the_post(); the_title("<h1>", "</h1>"); the_content(); }
wp_footer();
`;

async function run(command: string, args: string[]): Promise<void> {
  const output = new Deno.Command(command, { args, stdin: "null" }).output();
  const { success, stderr, stdout } = await within(command, output, 60_000);
  const decoder = new TextDecoder();
  assert(success, `${command}: ${decoder.decode(stdout)}${decoder.decode(stderr)}`);
}

async function startDatabase(rig: Rig): Promise<void> {
  const user = Deno.uid() === 0 ? ["--user=root"] : [];
  const options = ["--no-defaults", `--datadir=${rig.dir}/db`, ...user];
  await run("mariadb-install-db", [...options, "--auth-root-authentication-method=normal"]);
  const socket = `${rig.dir}/db.sock`;
  rig.spawn("MariaDB", "mariadbd", [
    ...[...options, "--skip-networking", `--socket=${socket}`, "--innodb-buffer-pool-size=32M"],
  ]);
  await eventually(
    "MariaDB listens",
    () => rig.output("MariaDB").includes("ready for connections"),
  );
  await run("mariadb", [`--socket=${socket}`, "-uroot", "-e", "CREATE DATABASE wordpress"]);
}

/** Installing it and its database is too much for CI. */
const heavy = Deno.env.get("GATEHOUSE_PROGRAMS") === "1";

const wordpress = new Suite("gateway: WordPress", {
  [PHP_FPM]: "php-fpm",
  nginx: "nginx-light",
  [`${WORDPRESS}/wp-login.php`]: "wordpress php-mysql",
  mariadbd: "mariadb-server",
}, async (rig) => {
  const root = `${rig.dir}/www`;
  await Deno.remove(root);
  // Debian's package has links to files that it shares.
  await run("cp", ["-rL", WORDPRESS, root]);
  rig.write("www/wp-config.php", config(rig));
  rig.write("www/wp-content/mu-plugins/job.php", JOB(rig));
  rig.write("www/wp-content/themes/test/style.css", "/* Theme Name: test */");
  rig.write("www/wp-content/themes/test/index.php", THEME);
  await startDatabase(rig);
  const socket = `${rig.dir}/fpm.sock`;
  await startFPM(rig, { listen: socket, children: 4 });
  const { port } = await rig.serve("nginx", ["port"], ({ port }) =>
    nginxCommand(rig, [`
server {
  listen 127.0.0.1:${port};
  root ${root};
  index index.php;
  location / { try_files $uri $uri/ /index.php?$args; }
  location ~ \\.php$ {
    include fastcgi_params;
    # Debian's list would lose the port.
    fastcgi_param HTTP_HOST $http_host;
    fastcgi_param SCRIPT_FILENAME $document_root$fastcgi_script_name;
    fastcgi_pass unix:${socket};
  }
}`]));
  const gateway = fastCGIGateway(`unix:${socket}`, { root, fallback: "/index.php", log: () => {} });
  const host = serve(gateway);
  const installed = await post(host, "/wp-admin/install.php?step=2", {
    weblog_title: "The blog of the test",
    user_name: "ann",
    admin_password: PASSWORD,
    admin_password2: PASSWORD,
    admin_email: "ann@localhost.example",
    blog_public: "0",
  });
  assertStringIncludes(installed.text, "Success!");
  return { gateway: host, nginx: `127.0.0.1:${port}` };
});

function post(host: string, path: string, form: Record<string, string>, fields: string[][] = []) {
  const type = ["Content-Type", "application/x-www-form-urlencoded"];
  const body = new TextEncoder().encode(new URLSearchParams(form).toString());
  return request(host, "POST", path, { body, fields: [type, ...fields] });
}

/** Fields of the server and of the connection, and how the body is framed. */
const OWN = ["connection", "date", "server", "content-length", "transfer-encoding", "keep-alive"];

const PATHS: [path: string, status: number][] = [
  ["/", 200],
  ["/?p=1", 301],
  ["/?feed=rss2", 200],
  ["/?p=4711", 404],
  ["/no/such/page/", 404],
  ["/?rest_route=/wp/v2/posts", 200],
  ["/wp-login.php", 200],
  ["/wp-admin/", 302],
];

for (const [path, status] of heavy ? PATHS : []) {
  for (const method of ["GET", "HEAD"]) {
    wordpress.test(`${method} ${path} is as behind nginx`, async ({ gateway, nginx }) => {
      const get = async (host: string) => {
        const { status, head, text } = await request(host, method, path);
        // Both have the address of the installation in their texts.
        const plain = (text: string) =>
          text.replaceAll(/127\.0\.0\.1(?::|%3A)\d+/g, "HOST")
            .replaceAll(/(?<=^expires: ).*/g, "TIME");
        const fields = head.fields.filter(([name]) => !OWN.includes(name));
        return { status, text: plain(text), fields: fields.map((f) => plain(f.join(": "))).sort() };
      };
      const [ours, theirs] = [await get(gateway), await get(nginx)];
      assertEquals(ours, theirs);
      assertEquals(ours.status, status);
    });
  }
}

if (heavy) {
  wordpress.test("the dashboard, after a login", async ({ gateway }) => {
    const login = await post(
      gateway,
      "/wp-login.php",
      { log: "ann", pwd: PASSWORD, testcookie: "1", redirect_to: `http://${gateway}/wp-admin/` },
      [["Cookie", "wordpress_test_cookie=WP%20Cookie%20check"]],
    );
    assertEquals([login.status, login.head.get("location")], [302, `http://${gateway}/wp-admin/`]);
    const cookies = login.head.all("set-cookie").map((cookie) => cookie.split(";")[0]).join("; ");
    const fields = [["Cookie", cookies]];
    const { status, text } = await request(gateway, "GET", "/wp-admin/", { fields });
    assertEquals(status, 200, text.slice(0, 1000));
    assertStringIncludes(text, "<h1>Dashboard</h1>");
    assertStringIncludes(text, "Howdy");
  });

  wordpress.test("a job of its cron ends after its client has left", async ({ gateway }, rig) => {
    await eventually("the job is done", async () => {
      // Each visit starts what is due.
      await request(gateway, "GET", "/?p=1");
      return [...Deno.readDirSync(`${rig.dir}/cache`)].some(({ name }) => name === "job-done");
    });
  });
}
