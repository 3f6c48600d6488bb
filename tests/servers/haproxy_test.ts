import { behaviours, type Site } from "./behaviours.ts";
import { snippet, Suite } from "./harness.ts";

const haproxy = new Suite("HAProxy", { haproxy: "haproxy" }, async (rig) => {
  const tcp = await rig.daemon("fastcgi", "127.0.0.1:0");
  return await rig.serve("haproxy", ["tcp"], (port) => {
    const file = rig.write(
      "haproxy.cfg",
      `
global
  log stderr format raw daemon
  nbthread 1
defaults
  mode http
  timeout connect 5s
  timeout client 30s
  timeout server 30s
frontend tcp
  bind 127.0.0.1:${port.tcp}
  default_backend app
${snippet("haproxy", "tcp", { "127.0.0.1:9000": tcp })}
`,
    );
    return ["haproxy", ["-db", "-f", file]];
  });
});

const site = (port: number, differences: Partial<Site> = {}): Site => ({
  host: `127.0.0.1:${port}`,
  dots: "/d/./x/../y//z",
  // More than fits its buffer needs a length.
  chunked: 400,
  split: { scriptName: undefined },
  log: (rig) => rig.output("haproxy"),
  ...differences,
});

behaviours(haproxy, "FastCGI over TCP, several requests at once", ({ tcp }) => site(tcp));
