import { listeners } from './listeners.js';
/** @import { Handler, Off, Raw } from './types.js' */

/** @param {string} text */
function parsed(text) {
  try { return JSON.parse(text); } catch { return text; }
}

/**
 * Handlers by event name.
 * @param {readonly string[]} [names] names that count as known from the beginning
 */
export function handlers(names = []) {
  /** @type {Map<string, ReturnType<typeof listeners<[any, any]>>>} */
  const byType = new Map();
  /** @param {string} type */
  const of = (type) => {
    let found = byType.get(type);
    if (!found) byType.set(type, found = listeners());
    return found;
  };
  names.forEach(of);
  return {
    /** @param {string} type @param {Handler} handler @returns {Off} */
    on: (type, handler) => of(type).add(handler),
    /** All names that were ever asked for. */
    types: () => [...byType.keys()],
    /**
     * Calls the handlers. Polls and shared connections bring names that nobody here knows: those are left out, as a native EventSource does.
     * @param {Raw} raw
     */
    call({ type, id, text }) {
      const named = byType.get(type);
      if (!named) return;
      const event = { type, id, text, data: parsed(text) };
      named.call(event.data, event);
      if (type !== '*' && !type.startsWith('sse.')) byType.get('*')?.call(event.data, event);
    },
  };
}
