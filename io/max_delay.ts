/** The maximum delay of a timer, about 25 days, in milliseconds. A timer with a longer delay fires at once. */
export const MAX_DELAY: number = 2 ** 31 - 1;
