/**
 * The gateway side: handlers with which a Deno server responds from CGI scripts and FastCGI and SCGI applications.
 *
 * ```ts no-assert
 * import { cgiGateway, fastCGIGateway } from "@gatehouse/cgi/gateway";
 *
 * const scripts = cgiGateway({ root: "/srv/cgi-bin", basePath: "/cgi-bin" });
 * const php = fastCGIGateway("unix:/run/php/php-fpm.sock", { root: "/srv/www", index: "index.php" });
 *
 * const server = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen() {} }, (request, info) =>
 *   new URL(request.url).pathname.startsWith("/cgi-bin/") ? scripts(request, info) : php(request, info));
 * await server.shutdown();
 * ```
 *
 * @module
 */

export { cgiGateway, fetchCGI } from "./gateway/cgi.ts";
export { fastCGIGateway, fetchFastCGI } from "./gateway/fastcgi.ts";
export { fetchSCGI, scgiGateway } from "./gateway/scgi.ts";
export type {
  CGIGatewayOptions,
  FastCGIGatewayOptions,
  Gateway,
  GatewayInfo,
  GatewayOptions,
  SCGIGatewayOptions,
  SendFileOptions,
} from "./gateway/options.ts";
export type { Address } from "./io/address.ts";
export type { Addr, NetAddr, UnixAddr, VsockAddr } from "./io/addr.ts";
export type { ServeInfo } from "./io/runtime.ts";
