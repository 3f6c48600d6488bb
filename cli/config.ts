/**
 * `config`: prints a configuration of a web server, or of systemd.
 *
 * @module
 */

import type { Endpoint } from "../io/address.ts";
import { type AppConfig, findConfig } from "./app_config.ts";
import { defaultAddress, readAddress } from "./address.ts";
import { type Arguments, formatUsage, names, type Usage } from "./arguments.ts";
import { closest } from "./closest.ts";
import { apache } from "./config/apache.ts";
import { busybox } from "./config/busybox.ts";
import { caddy } from "./config/caddy.ts";
import { h2o } from "./config/h2o.ts";
import { haproxy } from "./config/haproxy.ts";
import { htaccess } from "./config/htaccess.ts";
import { lighttpd } from "./config/lighttpd.ts";
import { miniHttpd } from "./config/mini_httpd.ts";
import { nginx } from "./config/nginx.ts";
import type { ConfigOptions, Template } from "./config/options.ts";
import type { StaticFiles } from "./config/static_files.ts";
import { systemd } from "./config/systemd.ts";
import { tomcat } from "./config/tomcat.ts";
import { uwsgi } from "./config/uwsgi.ts";
import { UsageError } from "./errors.ts";
import { SPECIFIER } from "./version.ts";

/** A web server or systemd, and the features of its configuration. */
interface Target {
  template: Template;
  /** Whether it supports SCGI. */
  scgi: boolean;
  /** Whether it balances requests over several apps. */
  several: boolean;
  /** Whether it runs the app as a CGI script. */
  cgi?: true;
  /** The options that it takes, of those that not all take. */
  takes: string[];
}

const SITE = ["server-name", "redirect-https"];
const FILES = ["root", "immutable"];
/** The options of an app that runs by itself. */
const APP = ["backend", "protocol", "path", "workers"];

const TARGETS: Record<string, Target> = {
  nginx: { template: nginx, scgi: true, several: true, takes: [...APP, ...SITE, ...FILES] },
  apache: {
    template: apache,
    scgi: true,
    several: false,
    takes: [...APP, ...SITE, ...FILES, "htaccess"],
  },
  lighttpd: { template: lighttpd, scgi: true, several: true, takes: [...APP, ...SITE, ...FILES] },
  caddy: { template: caddy, scgi: false, several: true, takes: [...APP, ...SITE, ...FILES] },
  haproxy: { template: haproxy, scgi: false, several: true, takes: [...APP, ...SITE] },
  h2o: { template: h2o, scgi: false, several: false, takes: [...APP, ...SITE, ...FILES] },
  systemd: { template: systemd, scgi: true, several: false, takes: [...APP, "env-file", "data"] },
  busybox: { template: busybox, scgi: false, several: false, cgi: true, takes: [] },
  mini_httpd: { template: miniHttpd, scgi: false, several: false, cgi: true, takes: [] },
  tomcat: { template: tomcat, scgi: false, several: false, cgi: true, takes: [] },
  uwsgi: { template: uwsgi, scgi: false, several: false, cgi: true, takes: [] },
};
const NAMES = Object.keys(TARGETS);
/** The options that not all take. */
const PARTIAL = new Set(Object.values(TARGETS).flatMap(({ takes }) => takes));
/** Matches an absolute path without characters that have a meaning in configuration files. */
const PATH = /^\/[\w.~@+\/-]+$/;
/** Matches the path of a folder on a site. */
const FOLDER = /^(?:\/[\w.~@-]+)+\/?$/;
/** Matches a host without its port. */
const SERVER_NAME = /^(?!-)[a-z\d-]+(?:\.[a-z\d-]+)*$/i;

/** The options of `config`. */
export const usage: Usage = {
  name: "config",
  operands: NAMES.join("|"),
  about:
    `Prints a configuration of a web server in front of the app, or the units of systemd that run the app.
The first lines say where to save it, how to check it, and how to start the app.`,
  options: [
    {
      name: "listen",
      short: "l",
      value: "ADDR",
      about:
        "where the web server listens. Default: port 80 of all addresses. For\nsystemd: the socket of the app",
    },
    {
      name: "backend",
      short: "b",
      value: "ADDR",
      repeats: true,
      about: `where the app listens: host:port or unix:/path. Default: 127.0.0.1:9000,
for scgi :4000. nginx, haproxy, lighttpd and caddy take several`,
    },
    {
      name: "protocol",
      short: "p",
      value: "P",
      about: "fastcgi (default), or for nginx, apache, lighttpd and systemd scgi",
    },
    {
      name: "path",
      value: "PATH",
      about: "the path of the app, such as /app. Default: the whole site",
    },
    {
      name: "app",
      value: "FILE",
      about: `the app's module. Default: /srv/app/app.ts. For busybox, mini_httpd,
tomcat and uwsgi a CGI script in a folder cgi-bin: /srv/www/cgi-bin/app.ts`,
    },
    { name: "workers", short: "w", value: "N", about: "how many processes the app runs, or auto" },
    { name: "name", value: "NAME", about: "a name for units, upstreams and files. Default: app" },
    {
      name: "root",
      value: "DIR",
      about: `a folder whose files the web server sends itself: a file or the
index.html of a folder first, the app for the rest. Never names that
begin with a dot, but for /.well-known/, sources, databases, backups and
logs`,
    },
    {
      name: "immutable",
      value: "PATH",
      repeats: true,
      about:
        "a folder in --root whose files never change, such as /_app/immutable:\nclients keep them",
    },
    {
      name: "server-name",
      value: "NAME",
      repeats: true,
      about: "a name of the site, such as example.org. Default: all",
    },
    {
      name: "redirect-https",
      about:
        "serve the site by HTTPS, with the certificate of its --server-name, and\nredirect HTTP to it",
    },
    { name: "htaccess", about: "for apache: the .htaccess of a folder of shared hosting" },
    {
      name: "env-file",
      value: "FILE",
      about: "for systemd: a file with variables of the app, which root reads",
    },
    {
      name: "data",
      about: "for systemd: a folder that the app may write, by STATE_DIRECTORY",
    },
  ],
  instead: {
    ...names(["socket", "unix"], (path = "PATH") => `Use --backend unix:${path}`),
    ...names(["static", "public", "assets"], (folder = "DIR") => `Use --root ${folder}`),
    ...names(["host", "domain", "hostname"], (name = "NAME") => `Use --server-name ${name}`),
    ...names(["https", "tls", "ssl"], () => "Use --redirect-https and --server-name"),
  },
  example: `deno run ${SPECIFIER} config nginx --backend unix:/run/app.sock --path /app
deno run ${SPECIFIER} config haproxy --backend 10.0.0.5:9000 --backend 10.0.0.6:9000
deno run ${SPECIFIER} config caddy --root /srv/app/build/client --immutable /_app/immutable`,
};

/** Prints the configuration. @returns The exit code. */
export function run(args: Arguments): Promise<number> {
  console.log(createConfiguration(args, findProject).trimEnd());
  return Promise.resolve(0);
}

/** Returns the config of the app, unless this process may not look for it: systemd starts the app in its folder. */
function findProject(app: string): AppConfig | undefined {
  try {
    return findConfig(app);
  } catch {
    return undefined;
  }
}

/**
 * Creates a configuration.
 *
 * @param find Returns the config of an app on this machine.
 * @throws {UsageError} If the server does not support an argument.
 */
export function createConfiguration(
  args: Arguments,
  find: (app: string) => AppConfig | undefined = () => undefined,
): string {
  const [name, extra] = args.operands;
  if (name === undefined) {
    throw new UsageError(`Name what to configure, as in: config nginx\n\n${formatUsage(usage)}`);
  }
  if (extra !== undefined) {
    throw new UsageError(`One configuration is printed: "${extra}" is one too many.`);
  }
  if (!Object.hasOwn(TARGETS, name)) {
    const similar = closest(name, NAMES);
    throw new UsageError(
      `There is no configuration of "${name}".${
        similar === undefined ? ` There are ${NAMES.join(", ")}.` : ` Did you mean ${similar}?`
      }`,
    );
  }
  const { template, scgi, several, cgi, takes } = TARGETS[name];
  for (const option of PARTIAL) {
    if (!args.has(option) || takes.includes(option)) continue;
    const others = NAMES.filter((name) => TARGETS[name].takes.includes(option));
    throw new UsageError(`--${option} is for ${others.join(", ")}: ${name} does not take it.`);
  }
  const options = readOptions(args, find, cgi ? "/srv/www/cgi-bin/app.ts" : "/srv/app/app.ts");
  if (cgi && !/^\/.+\/cgi-bin\/[^/]+$/.test(options.app)) {
    throw new UsageError(
      `--app must be a script in a folder cgi-bin of the site, as in /srv/www/cgi-bin/app.ts: current value is "${options.app}".`,
    );
  }
  if (options.protocol === "scgi" && !scgi) {
    throw new UsageError(`${name} does not support SCGI: use --protocol fastcgi.`);
  }
  if (options.backends.length > 1 && !several) {
    throw new UsageError(`${name} takes one --backend here: use haproxy or nginx for several.`);
  }
  if (options.listen?.transport === "unix" && name !== "systemd") {
    throw new UsageError("--listen must be host:port: clients connect over TCP.");
  }
  return args.has("htaccess") ? htaccess(options) : template(options);
}

function readOptions(
  args: Arguments,
  find: (app: string) => AppConfig | undefined,
  defaultApp: string,
): ConfigOptions {
  const protocol = args.choice("protocol", ["fastcgi", "scgi"]) ?? "fastcgi";
  const backends = args.all("backend");
  if (backends.length === 0) {
    backends.push(defaultAddress(protocol));
  }
  const listen = args.text("listen");
  const workers = args.text("workers");
  if (workers !== undefined && workers !== "auto") args.number("workers", 1);
  const app = readWord(args, "app", PATH, "an absolute path without spaces") ?? defaultApp;
  const project = find(app);
  // The app's config may name any file.
  if (project?.lock !== undefined && !PATH.test(project.lock)) {
    throw new UsageError(
      `The app's lock file must be an absolute path without spaces: current value is ${
        JSON.stringify(project.lock)
      }.`,
    );
  }
  const serverNames = args.all("server-name").map((text) =>
    checkWord(text, "server-name", SERVER_NAME, "a name such as example.org")
  );
  if (args.has("redirect-https") && serverNames.length === 0) {
    throw new UsageError("--redirect-https needs the name of the certificate: add --server-name.");
  }
  return {
    name: readWord(args, "name", /^[\w.-]+$/, "letters, digits, dots and dashes") ?? "app",
    listen: listen === undefined ? undefined : readEndpoint(listen),
    serverNames,
    https: args.has("redirect-https"),
    files: readFiles(args),
    protocol,
    path: (readWord(args, "path", /^(?:\/[\w.~-]+)*\/?$/, "such as /app") ?? "").replace(/\/$/, ""),
    backends: backends.map(readEndpoint),
    app,
    project,
    workers,
    deno: Deno.execPath(),
    envFile: readWord(args, "env-file", PATH, "an absolute path without spaces"),
    data: args.has("data"),
  };
}

function readFiles(args: Arguments): StaticFiles | undefined {
  const root = readWord(args, "root", PATH, "an absolute path without spaces");
  const immutable = args.all("immutable");
  // The .htaccess stands in the folder itself.
  if (root === undefined && !args.has("htaccess")) {
    if (immutable.length === 0) return undefined;
    throw new UsageError("--immutable is a folder in --root: add that.");
  }
  return {
    root: root?.replace(/\/$/, "") ?? "",
    immutable: immutable.map((folder) =>
      checkWord(folder, "immutable", FOLDER, "such as /_app/immutable").replace(/\/$/, "")
    ),
  };
}

/** Reads an option. Rejects characters with a meaning in configuration files. */
function readWord(
  args: Arguments,
  name: string,
  pattern: RegExp,
  wanted: string,
): string | undefined {
  const text = args.text(name);
  return text === undefined ? undefined : checkWord(text, name, pattern, wanted);
}

function checkWord(text: string, name: string, pattern: RegExp, wanted: string): string {
  if (pattern.test(text)) return text;
  throw new UsageError(`--${name} must be ${wanted}: current value is "${text}".`);
}

function readEndpoint(address: string): Endpoint {
  const parsed = readAddress(address);
  const text = parsed.transport === "unix" ? parsed.path : parsed.hostname;
  if (parsed.transport === "unix" && !parsed.path.startsWith("/") || !/^[\w.~:\/-]+$/.test(text)) {
    throw new UsageError(
      `The address must be host:port, or unix: and an absolute path without spaces: current value is "${address}".`,
    );
  }
  return parsed;
}
