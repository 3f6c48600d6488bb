/**
 * Checks that all options with a number are in range: limits, timeouts and counts are numbers from 0, and Infinity means no
 * limit. A comparison with NaN is always false, so that it would turn a limit off.
 *
 * @param cannot What fails, such as "Cannot serve".
 * @throws {RangeError} If one is negative or NaN.
 */
export function checkNumbers(cannot: string, options: object): void {
  for (const [name, value] of Object.entries(options)) {
    if (typeof value !== "number" || value >= 0) continue;
    throw new RangeError(
      `${cannot} as ${name} must be a number from 0: current value is ${value}`,
    );
  }
}
