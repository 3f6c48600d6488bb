/**
 * What SELinux keeps a web server from doing, read from labels and switches. It is never turned off: each finding has the
 * line that labels a file as what it is, or turns on the one switch that is needed.
 *
 * @module
 */

import { dirname } from "node:path";
import { shellQuote } from "../../debug/shell_command.ts";
import type { Protocol } from "./connection.ts";
import { createFinding, type FindingOf } from "./finding.ts";
import { denoArguments, type FirstLine, isOfNode } from "./first_line.ts";
import { stat } from "./user.ts";

/** All kinds of findings. Words in braces are replaced. */
export const SELINUX_FINDINGS = {
  "selinux-script": {
    what: "SELinux does not let web servers run {path}: its type is {type}, not {wanted}",
    advice: "Give the folder of scripts the type {wanted}.",
  },
  "selinux-memory": {
    what: "SELinux does not let scripts of web servers compile JavaScript: httpd_execmem is off",
    advice: "Turn on httpd_execmem.",
  },
  "selinux-data": {
    what:
      "SELinux does not let scripts of web servers write {path}: its type is {type}, not {wanted}",
    advice: "Give the folder of the data the type {wanted}.",
  },
  "selinux-socket": {
    what: "SELinux does not let the web server connect to {path}: its type is {type}, not {wanted}",
    advice: "Give the socket the type {wanted}.",
  },
  "selinux-network": {
    what:
      "SELinux does not let the web server connect to {address}: httpd_can_network_connect is off",
    advice: "Turn on httpd_can_network_connect.",
  },
} as const;

/** Something that SELinux keeps a web server from doing. */
export type SELinuxFinding = FindingOf<keyof typeof SELINUX_FINDINGS>;

/** The types that the policy has for what web servers run, write and connect to. */
const SCRIPT = "httpd_sys_script_exec_t";
const DATA = "httpd_sys_rw_content_t";
const SOCKET = "httpd_var_run_t";
/** Types with the same rights: of other scripts, and of programs for everyone. */
const RUNS = /^(?:httpd_\w*script_exec_t|bin_t)$/;
const WRITES = /^(?:httpd_\w*_rw_content_t|httpd_cache_t|public_content_rw_t)$/;
const CONNECTS = /^httpd_\w+_t$/;

/** SELinux of this machine. */
export class SELinux {
  #mount: string;
  #substitutions: string;
  #labelOf: (path: string) => string | undefined;

  private constructor(
    mount: string,
    substitutions: string,
    labelOf: (path: string) => string | undefined,
  ) {
    this.#mount = mount;
    this.#substitutions = substitutions;
    this.#labelOf = labelOf;
  }

  /**
   * Returns SELinux if it enforces its policy.
   *
   * @param mount Where its file system is mounted.
   * @param config The folder of its configuration.
   * @param labelOf Returns the label of a file.
   */
  static find(
    mount = "/sys/fs/selinux",
    config = "/etc/selinux",
    labelOf: (path: string) => string | undefined = readLabel,
  ): SELinux | undefined {
    if (read(`${mount}/enforce`)?.trim() !== "1") return undefined;
    const [, policy] = /^SELINUXTYPE=(\w+)/m.exec(read(`${config}/config`) ?? "") ?? [];
    const file = `${config}/${policy ?? "targeted"}/contexts/files/file_contexts.subs_dist`;
    return new SELinux(mount, read(file) ?? "", labelOf);
  }

  /** Returns whether a switch of the policy is off; false if there is none of this name. */
  isOff(name: string): boolean {
    // The value that is in force, and the one that is to be.
    return read(`${this.#mount}/booleans/${name}`)?.startsWith("0") === true;
  }

  /** Returns the type in the label of a file, or undefined if it has no label. */
  typeOf(path: string): string | undefined {
    return this.#labelOf(path)?.split(":")[2];
  }

  /** Returns the line that gives a file, or a folder with all that is in it, a type, now and when it is labeled anew. */
  label(path: string, type: string): string {
    const isFolder = stat(path)?.isDirectory === true;
    const pattern = this.#canonical(path).replaceAll(/[.+*?^$()[\]{}|\\]/g, "\\$&") +
      (isFolder ? "(/.*)?" : "");
    return `sudo semanage fcontext -a -t ${type} ${shellQuote(pattern)} && sudo restorecon ${
      isFolder ? "-R " : ""
    }${shellQuote(path)}`;
  }

  /** Returns the name that the policy has for a path, as /run may be another name of /var/run or the other way round. */
  #canonical(path: string): string {
    for (const [, from, to] of this.#substitutions.matchAll(/^(\/\S+)\s+(\/\S+)/gm)) {
      if (path.startsWith(`${from}/`)) return to + path.slice(from.length);
    }
    return path;
  }
}

/**
 * Finds what SELinux keeps a script of a web server from.
 *
 * @param script The script, without symbolic links.
 * @param first Its first line.
 */
export function examineScriptLabels(
  script: string,
  first: FirstLine | undefined,
  selinux = SELinux.find(),
): SELinuxFinding[] {
  if (selinux === undefined) return [];
  const findings: SELinuxFinding[] = [];
  const check = (id: "selinux-script" | "selinux-data", path: string, wanted: string) => {
    const type = selinux.typeOf(path);
    if (type === undefined || (id === "selinux-script" ? RUNS : WRITES).test(type)) return;
    // What is made in a folder gets its type.
    const folder = stat(path)?.isDirectory ? path : dirname(path);
    const labeled = id === "selinux-script" && !isOfScripts(folder) ? path : folder;
    const line = selinux.label(labeled, wanted);
    findings.push(createFinding(SELINUX_FINDINGS, id, { path, type, wanted }, line));
  };
  check("selinux-script", script, SCRIPT);
  const isJavaScript = denoArguments(first) !== undefined || isOfNode(first);
  if (isJavaScript && selinux.isOff("httpd_execmem")) {
    const line = "sudo setsebool -P httpd_execmem on";
    findings.push(createFinding(SELINUX_FINDINGS, "selinux-memory", {}, line));
  }
  for (const path of writablePaths(first)) {
    check("selinux-data", stat(path) === undefined ? dirname(path) : path, DATA);
  }
  return findings;
}

/** Returns whether a folder is one for scripts, by its name. */
function isOfScripts(folder: string): boolean {
  return /\/[\w-]*cgi[\w-]*$/.test(folder);
}

/** Returns the paths that a first line lets Deno write. */
function writablePaths(first: FirstLine | undefined): string[] {
  return (denoArguments(first) ?? []).flatMap((argument) => {
    const paths = /^(?:--allow-write|-W)=(.*)$/s.exec(argument)?.[1] ?? "";
    return paths.split(",").filter((path) => path.startsWith("/") && path !== "/dev/null");
  });
}

/** Finds what SELinux keeps a web server from that passes requests to some addresses. */
export function examineConnections(
  addresses: { protocol: Protocol; address: string }[],
  selinux = SELinux.find(),
): SELinuxFinding[] {
  if (selinux === undefined) return [];
  const findings: SELinuxFinding[] = [];
  for (const { address } of addresses) {
    const path = /^unix:(.*)$/s.exec(address)?.[1];
    if (path === undefined) continue;
    const type = selinux.typeOf(path);
    if (type === undefined || CONNECTS.test(type)) continue;
    const line = selinux.label(path, SOCKET);
    const values = { path, type, wanted: SOCKET };
    findings.push(createFinding(SELINUX_FINDINGS, "selinux-socket", values, line));
  }
  const network = addresses.find(({ address }) => !address.startsWith("unix:"));
  if (network !== undefined && selinux.isOff("httpd_can_network_connect")) {
    const line = "sudo setsebool -P httpd_can_network_connect on";
    findings.push(createFinding(SELINUX_FINDINGS, "selinux-network", { ...network }, line));
  }
  return findings;
}

/** Reads the label of a file, by a program that is everywhere: Deno reads no extended attributes. */
function readLabel(path: string): string | undefined {
  try {
    const { success, stdout } = new Deno.Command("stat", {
      args: ["-L", "-c", "%C", path],
      stderr: "null",
    }).outputSync();
    return success ? new TextDecoder().decode(stdout).trim() : undefined;
  } catch (error) {
    if (error instanceof Deno.errors.NotCapable) throw error;
    return undefined;
  }
}

/** Reads a file, if this process may: of /sys only one that may do all. */
function read(file: string): string | undefined {
  try {
    return Deno.readTextFileSync(file);
  } catch {
    return undefined;
  }
}
