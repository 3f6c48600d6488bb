/** How long input is drained after the last byte of a response, in total and without a byte, in milliseconds. */
export const LINGER = 30_000;
export const LINGER_IDLE = 5_000;
