/**
 * Limits on what a daemon accepts from web servers.
 *
 * @module
 */

import { MIN_BODY_RATE } from "../io/body_rate.ts";
import { checkNumbers } from "../io/check_numbers.ts";
import { MAX_BUFFERED_BODY } from "./request_body.ts";

/** Limits of FastCGI and SCGI servers. */
export interface LimitOptions {
  /**
   * How many bytes of variables a request may have, from 0; Infinity for no limit. Beyond it the response is 431.
   *
   * @default 262_144
   */
  maxVariableBytes?: number;
  /**
   * How many variables a request may have, from 0; Infinity for no limit. Beyond it the response is 431. Go, PHP-FPM
   * and libfcgi accept 1,000.
   *
   * @default 2000
   */
  maxVariables?: number;
  /**
   * How many bytes the body of a request may have, from 0. Beyond it the response is 413, unless the app handles the
   * error. Bodies stream, and web servers have limits of their own.
   *
   * @default Infinity
   */
  maxBodyBytes?: number;
  /**
   * How many bytes of a body are buffered, from 0, for an app that does not read them, where the connection cannot just
   * pause: it carries other requests, or the web server sends the whole body before it reads the response. Beyond it
   * the body fails with 413 in the first case, and the connection pauses in the second.
   *
   * @default 67_108_864
   */
  maxBufferedBody?: number;
  /**
   * How many bytes of bodies are in memory in total, from 0, for apps that do not read them, over all connections of all
   * servers of the process; Infinity for no limit. Beyond it a body that grows is dropped: reading it fails, and the
   * response is 503 with Retry-After unless the app handles the error. Bodies of more than 256 KiB leave a quarter of it
   * to the others. A connection that can pause does so before that.
   *
   * @default 268_435_456
   */
  maxBufferedTotal?: number;
  /**
   * How many requests may be in progress in total, from 0; Infinity for no limit. Beyond it the response is 503. A
   * handler that runs on when its client has left counts until it settles, but for five minutes at most.
   *
   * @default 1024
   */
  maxRequests?: number;
  /**
   * How long the variables of a request may take to arrive, and the first request on a new connection, in milliseconds,
   * from 0; Infinity for no limit. Beyond it the connection closes.
   *
   * @default 10_000
   */
  variablesTimeout?: number;
  /**
   * How long the next part of a body may take to arrive while the app reads it, in milliseconds, from 0; Infinity for
   * no limit. Beyond it the read fails, and the response is 408 unless the app handles the error.
   *
   * @default 60_000
   */
  bodyTimeout?: number;
  /**
   * How many bytes per second of a body must arrive, from 0, on average over a minute in which the app waits for them.
   * If there are fewer, the read fails, and the response is 408 unless the app handles the error. 0 means no minimum,
   * for bodies that are sent over a long time, such as events.
   *
   * @default 500
   */
  minBodyRate?: number;
  /**
   * How long a write may make no progress, in milliseconds, from 0; Infinity for no limit. Beyond it the connection
   * closes.
   *
   * @default 60_000
   */
  writeTimeout?: number;
}

/**
 * Returns the limits in force. An option that is absent or undefined gets its default.
 *
 * @throws {RangeError} If an option is negative or NaN, be it a limit or not.
 */
export function resolveLimits(options: LimitOptions): Required<LimitOptions> {
  checkNumbers("Cannot serve", options);
  const {
    maxVariableBytes = 262_144,
    maxVariables = 2000,
    maxBodyBytes = Infinity,
    maxBufferedBody = MAX_BUFFERED_BODY,
    maxBufferedTotal = 268_435_456,
    maxRequests = 1024,
    variablesTimeout = 10_000,
    bodyTimeout = 60_000,
    minBodyRate = MIN_BODY_RATE,
    writeTimeout = 60_000,
  } = options;
  return {
    maxVariableBytes,
    maxVariables,
    maxBodyBytes,
    maxBufferedBody,
    maxBufferedTotal,
    maxRequests,
    variablesTimeout,
    bodyTimeout,
    minBodyRate,
    writeTimeout,
  };
}

/** How long a connection may take to send a first or last request while the server shuts down, in milliseconds. */
export const NEW_CONNECTION = 1000;
