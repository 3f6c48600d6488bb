import { basename, dirname } from "node:path";
import { shellQuote } from "../debug/shell_command.ts";
import { Failure } from "./errors.ts";

/**
 * Explains why a server cannot listen on an address, and what to type instead.
 *
 * @param address The address as it was typed.
 */
export function listenFailure(error: unknown, address: string): Failure {
  const { message, code } = error as Error & { code?: string };
  return new Failure(explain(error, code, address) ?? message, { cause: error });
}

function explain(error: unknown, code: string | undefined, address: string): string | undefined {
  const unix = /^unix:(.*)$/s.exec(address)?.[1];
  const [, host, port] = /^(.*):(\d+)$/.exec(address) ?? [];
  const cannot = `Cannot listen on ${address}`;
  if (error instanceof Deno.errors.NotCapable) {
    const flags = unix === undefined
      ? [`--allow-net=${address}`]
      : ["net=unix:", "read=", "write="].map((flag) => `--allow-${flag}${unix}`);
    return `${cannot} as Deno denies it: ${error.message.replace(/,.*/s, "")}. Type ${
      flags.map(shellQuote).join(" ")
    } after "deno run"`;
  }
  if (code === "EADDRINUSE") {
    const other = unix === undefined ? `${host}:${Number(port) + 1}` : `unix:${unix}.2`;
    return `${cannot}: it is in use. Try --listen ${shellQuote(other)}`;
  }
  if (code === "EADDRNOTAVAIL") {
    return `${cannot}: this machine does not have the address. Try --listen 127.0.0.1:${port}`;
  }
  if (code === "EACCES" || code === "EPERM" || error instanceof Deno.errors.PermissionDenied) {
    if (unix !== undefined) {
      const own = unix.replace(/(?:\.\w+)?$/, "");
      const socket = `${own}/${basename(unix)}`;
      return `${cannot}: this user may not create files in ${
        dirname(unix)
      }. Try a folder of your own: sudo install -d -o "$USER" ${shellQuote(own)}, and --listen ${
        shellQuote(`unix:${socket}`)
      }`;
    }
    return `${cannot}: ports below 1024 need root or CAP_NET_BIND_SERVICE. Try --listen ${host}:${
      Number(port) + 8000
    }`;
  }
  if (code === "ENOENT" && unix !== undefined) {
    return `${cannot}: ${dirname(unix)} does not exist. Create it: mkdir -p ${
      shellQuote(dirname(unix))
    }`;
  }
  return undefined;
}
