/** docs/frameworks.md, followed for two of its frameworks: one without a build, and the one that builds fastest. */
import { testWith } from "../testing/needs.ts";
import { follow } from "./frameworks.ts";

const NEEDS = {
  nginx: "nginx-light",
  "/etc/nginx/fastcgi_params": "nginx-common",
  apache2: "apache2",
  "systemd-socket-activate": "systemd",
};

for (const name of ["Hono", "Nitro"]) {
  testWith(NEEDS, `docs/frameworks.md works as written for ${name}`, async () => {
    await follow(name);
  });
}
