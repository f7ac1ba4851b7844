/**
 * Requests a new ticket.
 * @param {() => string | Promise<string>} ticket function of the user
 * @param {number} timeout ms
 * @returns {Promise<string>} rejects if the function throws, times out or does not return a string
 */
export const newTicket = (ticket, timeout) => new Promise((resolve, reject) => {
  const timer = setTimeout(() => reject(new Error('ticket() timed out')), timeout);
  // Must not keep a Node process alive: what ticket() waits for does that, if anything.
  /** @type {{ unref?: () => void }} */ (/** @type {unknown} */ (timer)).unref?.();
  Promise.resolve().then(ticket).then((value) => {
    if (!value || typeof value !== 'string') {
      throw new TypeError('ticket() must return a non-empty string');
    }
    resolve(value);
  }).catch(reject).finally(() => clearTimeout(timer));
});
