/** Responses that are a path of the same server, for it to answer instead. */
const paths = new WeakMap<Response, string>();

/**
 * Makes a response that has the web server answer with another of its paths, without the client's doing (RFC 3875 section
 * 6.2.2). Apache's mod_cgi, mod_cgid, mod_fcgid and mod_proxy_scgi do, and lighttpd with `cgi.local-redir`; elsewhere, and
 * over HTTP, it is a redirect of status 302.
 *
 * @param path The path, and a query if need be.
 * @throws {TypeError} If it does not begin with one slash.
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
  if (!/^\/(?!\/)[!-~]*$/.test(path)) {
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

/** The path that a response has the web server answer with, if it does. */
export function localRedirectPath(response: Response): string | undefined {
  return paths.get(response);
}
