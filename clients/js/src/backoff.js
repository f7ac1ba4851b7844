/**
 * Delay before the next attempt, in ms: `min(retry x 2^n, retryMax)` minus up to 30 % jitter, so
 * that clients that were disconnected together do not reconnect together.
 * @param {number} n number of previous failures
 * @param {{ retry: number, retryMax: number }} settings first and maximum delay, in ms
 * @param {() => number} [random] returns a number from 0 to 1
 */
export const backoff = (n, { retry, retryMax }, random = Math.random) =>
  Math.min(retry * 2 ** n, retryMax) * (0.7 + 0.3 * random());
