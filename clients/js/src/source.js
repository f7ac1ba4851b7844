import { SYSTEM } from './system.js';
/** @import { Raw, SourceConstructor } from './types.js' */

/** Maximum delay, in ms, that the gateway requests with `sse.busy`. */
const BUSY = 30_000;

/**
 * Opens an EventSource, which may reconnect by itself, and monitors it with a watchdog.
 * @param {object} options
 * @param {SourceConstructor} options.EventSource
 * @param {string} options.url
 * @param {string[]} options.types event names
 * @param {number} options.heartbeat ms
 * @param {number} options.watchdog ms
 * @param {boolean} [options.withCredentials] sends cookies to another origin
 * @param {object} callbacks
 * @param {(event: Raw) => void} callbacks.event an event, including the gateway's own
 * @param {(final: boolean, answered: boolean) => void} callbacks.ended the connection ended.
 *   `final`: the EventSource will not reconnect. `answered`: it had received an event
 * @param {() => void} callbacks.slow no response within one heartbeat of the start or of an end
 * @param {(answered: boolean) => void} callbacks.silent nothing was received for `watchdog`
 */
export function openSource(options, callbacks) {
  const { EventSource, url, types, heartbeat, watchdog, withCredentials } = options;
  const source = new EventSource(url, { withCredentials });
  /** @type {Set<string>} */
  const known = new Set();
  let answered = false;
  /** npm `eventsource` still delivers what it has read after `close()`. */
  let closed = false;
  let lastActivity = Date.now();
  let timeout = watchdog;

  // One timer that reads the clock; resetting a timer for every event would be slower.
  const check = () => {
    const now = Date.now();
    lastActivity = Math.min(lastActivity, now); // the clock may have been set back
    clearTimeout(timer);
    if (now - lastActivity < timeout) timer = setTimeout(check, lastActivity + timeout - now);
    else callbacks.silent(answered);
  };
  let timer = setTimeout(check, timeout);
  let slowTimer = setTimeout(callbacks.slow, heartbeat);

  /** @param {string} type */
  const listen = (type) => {
    if (known.has(type)) return;
    known.add(type);
    source.addEventListener(type, ({ data, lastEventId }) => {
      // The EventSource's own `open` and `error` have no data; the gateway may use these names too.
      if (data === undefined || closed) return;
      lastActivity = Date.now();
      answered = true;
      timeout = type === 'sse.busy' ? watchdog + BUSY : watchdog;
      clearTimeout(slowTimer);
      callbacks.event({ type, id: lastEventId, text: data });
    });
  };
  for (const type of [...SYSTEM, ...types]) listen(type);

  source.addEventListener('error', ({ data }) => {
    if (data !== undefined || closed) return;
    const wasAnswered = answered;
    lastActivity = Date.now();
    answered = false;
    clearTimeout(slowTimer);
    const final = source.readyState === 2;
    // A native reconnect may be blocked as well. After `sse.busy` it starts later.
    if (!final) slowTimer = setTimeout(callbacks.slow, heartbeat + timeout - watchdog);
    callbacks.ended(final, wasAnswered);
  });

  return {
    listen,
    /** Runs the watchdog now, for example after a time in which timers may have been suspended. */
    check,
    close() {
      closed = true;
      clearTimeout(timer);
      clearTimeout(slowTimer);
      source.close();
    },
  };
}
