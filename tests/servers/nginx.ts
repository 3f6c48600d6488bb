import type { Rig } from "./harness.ts";

/** The command line of an nginx with these blocks in its http block. */
export function nginxCommand(rig: Rig, blocks: string[]): [command: string, args: string[]] {
  // Where the configuration is, nginx looks for what it includes.
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

/** A file of parameters as the package has it. */
export function stockParameters(name: string): string {
  return Deno.readTextFileSync(`/etc/nginx/${name}`);
}
