/** The default of the option `shutdownTimeout`: how long requests in progress may take at the end, in milliseconds. */
export const SHUTDOWN_TIMEOUT = 10_000;
/** How long input is drained after the last byte of a response, in total and without a byte, in milliseconds. */
export const LINGER = 30_000;
export const LINGER_IDLE = 5_000;
