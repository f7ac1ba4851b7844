import { listeners } from './listeners.js';
import { validated } from './schema.js';
/** @import { EventSchemas, Handler, Off, Raw } from './types.js' */

/**
 * The JSON value, or the text if it is not JSON.
 * @param {string} text
 */
export function parse(text) {
  try { return JSON.parse(text); } catch { return text; }
}

/**
 * Creates a registry of handlers by event name.
 * @param {readonly string[]} [names] names that are known without a handler
 * @param {EventSchemas} [schemas]
 * @param {(error: Error) => void} [report] called when an event does not match its schema
 */
export function handlers(names = [], schemas = {}, report = console.error) {
  /** @type {Map<string, ReturnType<typeof listeners<[any, any]>>>} */
  const byType = new Map();
  /** @param {string} type */
  const ofType = (type) => {
    let found = byType.get(type);
    if (!found) byType.set(type, found = listeners());
    return found;
  };
  names.forEach(ofType);
  return {
    /** @param {string} type @param {Handler} handler @returns {Off} */
    on: (type, handler) => ofType(type).add(handler),
    /** All names that are known. */
    types: () => [...byType.keys()],
    /**
     * Calls the handlers. Polls and shared connections also deliver names that are not known here;
     * these are ignored, as a native EventSource does.
     * @param {Raw} raw
     */
    call({ type, id, text, retained = false }) {
      const named = byType.get(type);
      if (!named) return;
      let data = parse(text);
      try {
        data = validated(schemas, type, data);
      } catch (error) {
        return report(/** @type {Error} */ (error));
      }
      const event = { type, id, text, data, retained };
      named.call(event.data, event);
      if (type !== '*' && !type.startsWith('sse.')) byType.get('*')?.call(event.data, event);
    },
  };
}
