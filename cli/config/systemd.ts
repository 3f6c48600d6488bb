import { dirname } from "node:path";
import { formatAddress } from "../address.ts";
import { SPECIFIER } from "../version.ts";
import { allowRemote, type ConfigOptions } from "./options.ts";

/** Matches the paths that ProtectHome= hides. */
const HOME = /^\/(?:home|root|run\/user)\//;

/**
 * A socket unit and a service unit of systemd, as `systemctl cat` shows them. Long, as one template shows the two units as
 * their reader sees them.
 */
export function systemd(options: ConfigOptions): string {
  const { name, listen, protocol, path, backends: [backend], app, project, workers, deno, data } =
    options;
  const folder = project?.folder ?? dirname(app);
  const socket = listen ?? backend;
  // Deno adds this package to the lock file that it uses, and the project's is read-only.
  const lock = project?.lock === undefined ? undefined : `%C/${name}/deno.lock`;
  const config = [
    ...project?.flags ?? [],
    ...(lock === undefined ? ["--no-lock"] : [`--lock=${lock}`, "--frozen=false"]),
  ].join(" ");
  const flags = [
    "--no-prompt",
    "--cached-only",
    config,
    "--allow-env",
    `--allow-read=${folder}${data ? `,%S/${name}` : ""}`,
    ...(data ? [`--allow-write=%S/${name}`] : []),
    ...(workers === undefined ? [] : [`--allow-run=${deno}`]),
  ];
  const serve = [
    `serve ${app} --protocol ${protocol} --listen ${workers === undefined ? "systemd" : "fd:0"}`,
    ...(path === "" ? [] : [`--base-path ${path}`]),
    ...(workers === undefined ? [] : [`--workers ${workers}`]),
    ...allowRemote(socket),
  ];
  return `# /etc/systemd/system/${name}.socket
# systemd opens the socket, and starts the service at the first request. To check and start both:
#   systemd-analyze verify ${name}.socket ${name}.service
#   systemctl enable --now ${name}.socket
[Unit]
Description=The socket of ${app}

[Socket]
ListenStream=${socket.transport === "unix" ? socket.path : formatAddress(socket)}
${
    socket.transport === "unix"
      ? "# The web server's group may connect. On Fedora: apache, nginx or lighttpd\nSocketGroup=www-data\nSocketMode=0660\n"
      : "NoDelay=yes\n"
  }
[Install]
WantedBy=sockets.target

# /etc/systemd/system/${name}.service
[Unit]
Description=${app} over ${protocol === "fastcgi" ? "FastCGI" : "SCGI"}
Requires=${name}.socket
After=${name}.socket network.target

[Service]
# Each connection takes a file descriptor.
LimitNOFILE=65536
# Deno looks here for deno.json or package.json.
WorkingDirectory=${dirname(project?.path ?? app)}
# What many packages look at.
Environment=NODE_ENV=production
# Without it the journal has the escape codes of Deno's colors.
Environment=NO_COLOR=1
${
    options.envFile === undefined
      ? ""
      : `# root reads it, not the app's user: chmod 600 ${options.envFile}
EnvironmentFile=${options.envFile}
`
  }${
    lock === undefined ? "" : `# The service may not write to the app's folder.
ExecStartPre=cp ${project!.lock} ${lock}
`
  }# Downloads what the app imports, once; the app itself runs with what is in the cache.
ExecStartPre=${deno} cache ${config} ${SPECIFIER} ${app}
ExecStart=${deno} run ${flags.join(" ")} ${SPECIFIER} ${serve.join(" ")}
${
    workers === undefined ? "" : `# The workers share the socket as their standard input.
StandardInput=socket
StandardOutput=journal
StandardError=journal
# Replaces the workers one by one: systemctl reload ${name}
ExecReload=/bin/kill -HUP $MAINPID
`
  }# Requests in progress have 10 seconds to end.
KillMode=mixed
TimeoutStopSec=15
Restart=on-failure

# A user of its own, which may write to its cache${data ? " and its data" : ""} and nowhere else.
DynamicUser=yes
CacheDirectory=${name}
Environment=DENO_DIR=%C/${name}
${
    data
      ? `# For databases, uploads and the like: the app finds the folder in the variable STATE_DIRECTORY.
StateDirectory=${name}
StateDirectoryMode=0700
`
      : ""
  }UMask=0077
ProtectSystem=strict
${protectHome([folder, deno])}
PrivateTmp=yes
PrivateDevices=yes
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectProc=invisible
NoNewPrivileges=yes
CapabilityBoundingSet=
LockPersonality=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native
# Not MemoryDenyWriteExecute, as Deno compiles JavaScript to machine code.
`;
}

/** Hides home folders, but for paths in them that the service reads. */
function protectHome(paths: string[]): string {
  const shown = paths.filter((path) => HOME.test(path));
  if (shown.length === 0) return "ProtectHome=yes";
  return `# Of home folders the service sees these paths only.
ProtectHome=tmpfs
BindReadOnlyPaths=${shown.join(" ")}`;
}
