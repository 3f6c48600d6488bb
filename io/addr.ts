/**
 * The types of addresses: those of Deno, for programs that lack its types. Every room may import them.
 *
 * @module
 */

/** The address of a TCP or UDP socket, as `Deno.NetAddr`. */
export interface NetAddr {
  /** The protocol. */
  transport: "tcp" | "udp";
  /** The IP address, or the name of the host. */
  hostname: string;
  /** The port. */
  port: number;
}

/** The address of a Unix socket, as `Deno.UnixAddr`. */
export interface UnixAddr {
  /** The protocol. */
  transport: "unix" | "unixpacket";
  /** The path of the socket's file. */
  path: string;
}

/** The address of a socket between a virtual machine and its host, as `Deno.VsockAddr`. */
export interface VsockAddr {
  /** The protocol. */
  transport: "vsock";
  /** The number of the machine. */
  cid: number;
  /** The port. */
  port: number;
}

/** The address of a socket, as `Deno.Addr`. */
export type Addr = NetAddr | UnixAddr | VsockAddr;
