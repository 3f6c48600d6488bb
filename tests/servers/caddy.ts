import { configuration, type Rig } from "./harness.ts";

/** Returns a site as `config` prints it, without the block of global options, of which a Caddyfile has one. */
export function caddySite(...args: string[]): string {
  const text = configuration("caddy", ...args);
  const [global] = /^\{\n[^]*?^\}\n/m.exec(text)!;
  return text.replace(global, "");
}

/** Returns the command line that runs a Caddyfile with these sites. */
export function caddyCommand(rig: Rig, sites: string[]): [command: string, args: string[]] {
  const global = "{\nadmin off\nservers {\nprotocols h1 h2c\n}\n}";
  const file = rig.write("Caddyfile", [global, ...sites].join("\n"));
  return ["caddy", ["run", "--config", file, "--adapter", "caddyfile"]];
}

/** Returns the options of the program: Caddy writes to the home folder. */
export function caddyOptions(rig: Rig): Deno.CommandOptions {
  return { env: { HOME: rig.dir, XDG_CONFIG_HOME: rig.dir, XDG_DATA_HOME: rig.dir } };
}
