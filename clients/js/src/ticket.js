/**
 * A new ticket.
 * @param {() => string | Promise<string>} ticket the user's function
 * @param {number} longest ms
 * @returns {Promise<string>} rejected with what it threw, if it took too long, or if what it gave is no ticket
 */
export const newTicket = (ticket, longest) => new Promise((resolve, reject) => {
  const late = setTimeout(() => reject(new Error('ticket() does not end')), longest);
  // Node need not live for this: whatever ticket() waits for keeps it alive, unless the stream has been closed.
  /** @type {{ unref?: () => void }} */ (/** @type {unknown} */ (late)).unref?.();
  Promise.resolve().then(ticket).then((got) => {
    if (!got || typeof got !== 'string') throw new TypeError('ticket() must give a string');
    resolve(got);
  }).catch(reject).finally(() => clearTimeout(late));
});
