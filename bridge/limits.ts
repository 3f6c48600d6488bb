/**
 * What a daemon takes of its web servers.
 *
 * @module
 */

/** Limits that FastCGI and SCGI share. */
export interface LimitOptions {
  /**
   * How many bytes of variables a request may have; past it, 431.
   *
   * @default 262_144
   */
  maxVariableBytes?: number;
  /**
   * How many variables a request may have; past it, 431. Go, PHP-FPM and libfcgi accept a thousand and more.
   *
   * @default 2000
   */
  maxVariables?: number;
  /**
   * How many bytes a request's body may have; past it, 413. Bodies stream, and web servers have a limit of their own.
   *
   * @default Infinity
   */
  maxBodyBytes?: number;
  /**
   * How many bytes of a body are held for an app that does not read them, where the connection cannot just wait: it
   * carries other requests, or the web server sends all of the body before it reads the answer. Past it the request
   * ends with an error, or the connection waits.
   *
   * @default 67_108_864
   */
  maxBufferedBody?: number;
  /**
   * How many requests may be under way in all; past it, 503.
   *
   * @default 1024
   */
  maxRequests?: number;
  /**
   * How long a request's variables may take to come, in milliseconds; past it the connection is closed.
   *
   * @default 10_000
   */
  variablesTimeout?: number;
  /**
   * How long the next part of a body that the app reads may take, in milliseconds; past it reading fails, and 408 is the
   * answer unless the app has another.
   *
   * @default 60_000
   */
  bodyTimeout?: number;
  /**
   * How long the web server may take no byte of an answer, in milliseconds; past it the connection is closed.
   *
   * @default 60_000
   */
  writeTimeout?: number;
}

/** The limits in force: an option that is absent, or undefined, has its default. */
export function resolveLimits({
  maxVariableBytes = 262_144,
  maxVariables = 2000,
  maxBodyBytes = Infinity,
  maxBufferedBody = 67_108_864,
  maxRequests = 1024,
  variablesTimeout = 10_000,
  bodyTimeout = 60_000,
  writeTimeout = 60_000,
}: LimitOptions): Required<LimitOptions> {
  return {
    maxVariableBytes,
    maxVariables,
    maxBodyBytes,
    maxBufferedBody,
    maxRequests,
    variablesTimeout,
    bodyTimeout,
    writeTimeout,
  };
}

/** How much of a body is held before a connection waits for the app, in bytes. */
export const BODY_HIGH_WATER = 262_144;
/** How long a new connection may take to send its first request while the server shuts down, in milliseconds. */
export const NEW_CONNECTION = 1000;
