import { type Address, type Endpoint, nameOf, parseAddress } from "./address.ts";
import { openDuplex } from "./connect.ts";
import type { Duplex, Listener } from "./duplex.ts";
import type { NodeSocket } from "./node_socket.ts";
import type { Addr } from "./addr.ts";
import { type DenoOnly, denoOnly, runtime, type RuntimeFileInfo } from "./runtime.ts";

/** Options of {@linkcode listen}. */
export interface ListenOptions {
  /**
   * The mode of a Unix socket's file, an integer from 0: a user who may write to it may connect.
   *
   * @default 0o660
   */
  mode?: number;
  /**
   * The group of a Unix socket, by number from 0, or by a name in /etc/group.
   *
   * @default The group of the process
   */
  group?: number | string;
  /**
   * How many connections may wait until they are accepted, from 1. The system has a maximum, such as
   * `net.core.somaxconn`. For a Unix socket on Deno, `listen()` ignores it and uses 1024, and `prefork()` raises it to a
   * power of two.
   *
   * @default 511, with `prefork()` the system's maximum
   */
  backlog?: number;
}

/**
 * Listens on an address. The file of a Unix socket gets its group and mode before others can connect, and is removed
 * when the listener closes. A socket file that nothing listens on is replaced.
 *
 * Needs `--allow-net`, for a Unix socket `--allow-read` and `--allow-write` of its path as well.
 *
 * @param address `host:port` or `unix:/path`.
 * @throws {Error} If another process listens on the address, or the path is a file other than a socket.
 * @throws {RangeError} If a numeric mode or group is not an integer from 0, or backlog is not an integer from 1.
 *
 * @example
 * ```ts
 * import { listen } from "@gatehouse/cgi/fastcgi";
 *
 * const listener = await listen("127.0.0.1:0");
 * listener.close();
 * ```
 */
export async function listen(address: Address, options: ListenOptions = {}): Promise<Listener> {
  const parsed = parseAddress(address);
  checkBacklog(options.backlog);
  if (parsed.transport === "unix") await removeStaleSocket(parsed.path);
  const listener = denoOnly === undefined
    ? await listenNode(parsed, options)
    : listenDeno(denoOnly, parsed, options);
  return parsed.transport === "unix" ? new UnixListener(listener, parsed.path) : listener;
}

function listenDeno(deno: DenoOnly, endpoint: Endpoint, options: ListenOptions): Listener {
  if (endpoint.transport === "tcp") {
    return openNamed(
      endpoint,
      () => deno.listen({ ...endpoint, tcpBacklog: options.backlog }),
    );
  }
  const open = () => openNamed(endpoint, () => deno.listen(endpoint));
  return openUnixSocket(endpoint.path, options, open, (opened) => opened.close());
}

async function listenNode(endpoint: Endpoint, options: ListenOptions): Promise<Listener> {
  const { InheritedListener } = await import("./inherited_listener.ts");
  const { backlog = 511 } = options;
  const listen = async (socket: NodeSocket) => {
    if (endpoint.transport === "tcp") {
      const { hostname: host, port } = endpoint;
      return await socket.listen({ host, port }, backlog);
    }
    const { path } = endpoint;
    checkOwnership(options);
    const listening = openPrivately(() => socket.listen({ path }, backlog));
    // It is bound by now, and nothing else runs before its file has its group and mode.
    if (socket.bound) applyOwnership(path, options);
    await listening;
  };
  try {
    return await InheritedListener.openNode(listen);
  } catch (error) {
    throw namedError(endpoint, error);
  }
}

/** @throws {RangeError} If it is neither undefined nor an integer from 1. */
export function checkBacklog(backlog: number | undefined): void {
  if (backlog === undefined || Number.isInteger(backlog) && backlog >= 1) return;
  throw new RangeError(
    `Cannot listen as backlog must be an integer from 1: current value is ${backlog}`,
  );
}

/** Listens on an address. An error names it, which those of Deno do not. */
export function openNamed<T>(endpoint: Endpoint, open: () => T): T {
  try {
    return open();
  } catch (error) {
    throw namedError(endpoint, error);
  }
}

function namedError(endpoint: Endpoint, error: unknown): unknown {
  // Only errors of the system have a code. Others, such as those of Deno's permissions, say enough.
  const { constructor, message, code } = error as Error & { code?: string };
  if (typeof code !== "string") return error;
  const named = new (constructor as ErrorConstructor)(
    `Cannot listen on ${nameOf(endpoint)}: ${message}`,
  );
  return Object.assign(named, { code });
}

/**
 * Opens a Unix socket, whose file gets its group and mode before others can connect.
 *
 * @param open Listens on the path.
 * @param close Closes what `open` returned if its file cannot get its group and mode.
 */
export function openUnixSocket<T>(
  path: string,
  options: ListenOptions,
  open: () => T,
  close: (opened: T) => void,
): T {
  checkOwnership(options);
  const opened = openPrivately(open);
  try {
    applyOwnership(path, options);
  } catch (error) {
    close(opened);
    removeQuietly(path);
    throw error;
  }
  return opened;
}

/** @throws {RangeError} If a numeric mode or group is not an integer from 0. */
function checkOwnership({ mode, group }: ListenOptions): void {
  for (const [name, value] of Object.entries({ mode, group })) {
    if (typeof value !== "number" || Number.isInteger(value) && value >= 0) continue;
    throw new RangeError(
      `Cannot listen as ${name} must be an integer from 0: current value is ${value}`,
    );
  }
}

/**
 * Sets the group and mode of a socket's file.
 *
 * @throws {Error} If others could connect before, as the umask is unusual and may not be set.
 */
export function applyOwnership(path: string, { mode = 0o660, group }: ListenOptions): void {
  const before = runtime.statSync(path).mode! & 0o777;
  if ((before & ~mode & 0o022) !== 0) {
    throw new Error(
      `Cannot listen on ${path} as others must not connect before it has mode ${
        mode.toString(8)
      }: the umask gave it ${before.toString(8)}. Type "umask 022" before, or add --allow-sys`,
    );
  }
  if (group !== undefined) runtime.chownSync(path, null, groupId(group));
  runtime.chmodSync(path, mode);
}

/** Opens a socket whose file only its owner can use, if the umask may be set. */
export function openPrivately<T>(open: () => T): T {
  const permission = { name: "sys", kind: "umask" } as const;
  if (runtime.permissions.querySync(permission).state !== "granted") return open();
  const before = runtime.umask(0o177);
  try {
    return open();
  } finally {
    runtime.umask(before);
  }
}

function groupId(group: number | string): number {
  if (typeof group === "number") return group;
  const line = runtime.readTextFileSync("/etc/group").split("\n")
    .map((entry) => entry.split(":")).find(([name]) => name === group);
  if (line === undefined) {
    throw new Error(
      `Cannot set the socket's group as it must be in /etc/group: current value is "${group}"`,
    );
  }
  return Number(line[2]);
}

/**
 * Removes a socket file that nothing listens on (rule F7).
 *
 * @throws {Error} If a process listens on it, or the file is not a socket.
 */
export async function removeStaleSocket(path: string): Promise<void> {
  let info: RuntimeFileInfo;
  try {
    info = await runtime.lstat(path);
  } catch (error) {
    if (error instanceof runtime.errors.NotFound) return;
    throw error;
  }
  if (!info.isSocket) {
    throw new Error(`Cannot listen on ${path}: it is a file other than a socket`);
  }
  try {
    (await openDuplex({ transport: "unix", path })).close();
  } catch (error) {
    if (!(error instanceof runtime.errors.ConnectionRefused)) throw error;
    await runtime.remove(path);
    return;
  }
  throw new Error(
    `Cannot listen on ${path}: ${
      listeningProcess(path)
    } listens there. Stop it, or use another path`,
  );
}

/** The flags of a listening socket in /proc/net/unix. */
const LISTENING = " 00010000 ";

/** Describes the process that listens on a Unix socket, as far as /proc may be read. */
function listeningProcess(path: string): string {
  try {
    const line = runtime.readTextFileSync("/proc/net/unix").split("\n")
      .find((entry) => entry.includes(LISTENING) && entry.endsWith(` ${path}`));
    const inode = line?.trim().split(/\s+/)[6];
    for (const { name: pid } of runtime.readDirSync("/proc")) {
      if (/^\d+$/.test(pid) && hasSocket(pid, inode)) {
        return `process ${pid} (${runtime.readTextFileSync(`/proc/${pid}/comm`).trim()})`;
      }
    }
  } catch {
    // Deno denies access to /proc without --allow-all.
  }
  return "another process";
}

function hasSocket(pid: string, inode: string | undefined): boolean {
  try {
    return [...runtime.readDirSync(`/proc/${pid}/fd`)].some(({ name }) =>
      linkTarget(`/proc/${pid}/fd/${name}`) === `socket:[${inode}]`
    );
  } catch {
    // The process has ended, or belongs to another user.
    return false;
  }
}

function linkTarget(path: string): string | undefined {
  try {
    return runtime.readLinkSync(path);
  } catch {
    // The process has closed the descriptor.
    return undefined;
  }
}

/** Removes a file and ignores errors. */
export function removeQuietly(path: string): void {
  try {
    runtime.removeSync(path);
  } catch {
    // It does not exist.
  }
}

/** A Unix listener that removes its file when it closes. */
class UnixListener implements Listener {
  readonly addr: Addr;
  #listener: Listener;
  #path: string;

  constructor(listener: Listener, path: string) {
    this.#listener = listener;
    this.#path = path;
    this.addr = listener.addr;
  }

  [Symbol.asyncIterator](): AsyncIterator<Duplex> {
    return this.#listener[Symbol.asyncIterator]();
  }

  close(): void {
    removeQuietly(this.#path);
    this.#listener.close();
  }

  ref(): void {
    this.#listener.ref?.();
  }

  unref(): void {
    this.#listener.unref?.();
  }
}
