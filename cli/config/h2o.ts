import type { Endpoint } from "../../io/address.ts";
import { type ConfigOptions, indent, startLines } from "./options.ts";

/** A configuration of h2o. */
export function h2o(options: ConfigOptions): string {
  const { listen, path, backends: [backend] } = options;
  return `# /etc/h2o/h2o.conf. To check and load it: h2o -m test -c /etc/h2o/h2o.conf && systemctl reload h2o
# The app:
${startLines(options)}

# The user that connects to the app, if it listens on a Unix socket.
user: www-data
hosts:
  default:
    listen:
${indent(listenOn(listen), "      ")}
    paths:
      ${path || "/"}:
        fastcgi.connect:
${indent(connect(backend), "          ")}
`;
}

function listenOn(listen: Endpoint | undefined): string {
  if (listen?.transport !== "tcp") return "port: 80";
  return `host: "${listen.hostname}"\nport: ${listen.port}`;
}

function connect(backend: Endpoint): string {
  return backend.transport === "tcp"
    ? `host: "${backend.hostname}"\nport: ${backend.port}\ntype: tcp`
    : `port: ${backend.path}\ntype: unix`;
}
