/** @import { Off } from './types.js' */

/**
 * Functions to be called. One that throws is reported and does not stop the others.
 * @template {any[]} Args
 */
export function listeners() {
  /** @type {Set<{ act: (...args: Args) => void }>} */
  const all = new Set();
  return {
    /** @param {(...args: Args) => void} act @returns {Off} */
    add(act) {
      const entry = { act };
      all.add(entry);
      return () => { all.delete(entry); };
    },
    /** @param {Args} args @returns {boolean} whether there was anyone to call */
    call(...args) {
      // A copy: one that is added meanwhile waits for the next call.
      for (const entry of [...all]) {
        try {
          if (all.has(entry)) entry.act(...args);
        } catch (error) {
          // In browsers as if it had not been caught; Node has no such way and would end.
          (globalThis.reportError ?? console.error)(error);
        }
      }
      return all.size > 0;
    },
  };
}
