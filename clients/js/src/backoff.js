/**
 * How long to wait before a new try, in ms: `min(first x 2^n, most)`, of which up to 30 % are taken off at random, so that clients that
 * were cut off together do not come back together.
 * @param {number} n failures before this one
 * @param {{ retry: number, retryMax: number }} settings first and longest wait, in ms
 * @param {() => number} [random] from 0 to 1
 */
export const backoff = (n, { retry, retryMax }, random = Math.random) => Math.min(retry * 2 ** n, retryMax) * (0.7 + 0.3 * random());
