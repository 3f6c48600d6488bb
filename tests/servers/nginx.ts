import type { Rig } from "./harness.ts";

/** Writes a configuration with these blocks in its http block, and returns the command line that runs nginx with it. */
export function nginxCommand(rig: Rig, blocks: string[]): [command: string, args: string[]] {
  // nginx looks for included files in the directory of the configuration.
  for (const name of ["fastcgi_params", "scgi_params"]) rig.write(name, stockParameters(name));
  const temp = ["client_body", "fastcgi", "scgi", "proxy", "uwsgi"]
    .map((name) => `${name}_temp_path ${rig.dir}/nginx-${name};`);
  const file = rig.write(
    "nginx.conf",
    `
${Deno.uid() === 0 ? "user root;" : ""}
daemon off;
pid ${rig.dir}/nginx.pid;
error_log ${rig.dir}/error.log warn;
events {}
http {
access_log off;
${[...temp, ...blocks].join("\n")}
}
`,
  );
  return ["nginx", ["-e", rig.logFile("error.log"), "-c", file]];
}

/** Returns the text of a parameter file of the nginx package. */
export function stockParameters(name: string): string {
  return Deno.readTextFileSync(`/etc/nginx/${name}`);
}
