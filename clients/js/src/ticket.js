/** @import { ConnectOptions } from './types.js' */

/**
 * Requests a new ticket.
 * @param {ConnectOptions['ticket']} ticket function of the user
 * @param {number} timeout ms
 * @returns {Promise<string | null>} null: the URL has no ticket. Rejects if the function throws,
 *   times out or returns anything else than a string or null
 */
export const newTicket = (ticket, timeout) => new Promise((resolve, reject) => {
  if (!ticket) return resolve(null);
  const timer = setTimeout(() => reject(new Error('ticket() timed out')), timeout);
  // Must not keep a Node process alive: what ticket() waits for does that, if anything.
  /** @type {{ unref?: () => void }} */ (/** @type {unknown} */ (timer)).unref?.();
  Promise.resolve().then(ticket).then((value) => {
    if (value !== null && (!value || typeof value !== 'string')) {
      throw new TypeError('ticket() must return a non-empty string, or null');
    }
    resolve(value);
  }).catch(reject).finally(() => clearTimeout(timer));
});
