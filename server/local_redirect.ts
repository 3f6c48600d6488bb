/** The paths of local redirects. */
const paths = new WeakMap<Response, string>();

/**
 * Creates a response that makes the web server respond with another of its paths, without involving the client (RFC 3875
 * section 6.2.2). Apache's mod_cgi, mod_cgid, mod_fcgid and mod_proxy_scgi support it, and lighttpd with
 * `cgi.local-redir`. Elsewhere, and over HTTP, the client gets a redirect with status 302.
 *
 * @param path The path and an optional query, percent-encoded.
 * @throws {TypeError} If the path does not begin with exactly one slash, or has a space, a backslash, a control character
 * or a character beyond ASCII.
 *
 * @example
 * ```ts
 * import { localRedirect } from "@gatehouse/cgi/cgi";
 *
 * const app = () => localRedirect("/maintenance.html");
 * app();
 * ```
 */
export function localRedirect(path: string): Response {
  if (!/^\/(?!\/)[!-[\]-~]*$/.test(path)) {
    throw new TypeError(
      `Cannot redirect locally as the path must begin with one slash and be encoded: current value is ${
        JSON.stringify(path)
      }`,
    );
  }
  const response = new Response(null, { status: 302, headers: { location: path } });
  paths.set(response, path);
  return response;
}

/** Returns the path of a local redirect, or undefined if the response is not one. */
export function localRedirectPath(response: Response): string | undefined {
  return paths.get(response);
}
