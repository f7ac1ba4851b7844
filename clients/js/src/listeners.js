/** @import { Off } from './types.js' */

/**
 * Creates an ordered collection of callbacks. An exception in one is reported and does not affect
 * the others.
 * @template {any[]} Args
 */
export function listeners() {
  /** @type {Set<{ listener: (...args: Args) => void }>} */
  const entries = new Set();
  return {
    /** @param {(...args: Args) => void} listener @returns {Off} */
    add(listener) {
      const entry = { listener };
      entries.add(entry);
      return () => { entries.delete(entry); };
    },
    /** @param {Args} args @returns {boolean} whether there was a listener */
    call(...args) {
      // A copy: listeners added during the call are not called.
      for (const entry of [...entries]) {
        try {
          if (entries.has(entry)) entry.listener(...args);
        } catch (error) {
          // Browsers report it like an uncaught exception; in Node that would end the process.
          (globalThis.reportError ?? console.error)(error);
        }
      }
      return entries.size > 0;
    },
  };
}
