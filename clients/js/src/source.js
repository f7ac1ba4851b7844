/** @import { Raw, Source } from './types.js' */

const SYSTEM = ['sse.connected', 'sse.heartbeat', 'sse.gap', 'sse.busy', 'sse.closing'];
/** After `sse.busy` the browser waits for up to 30 s, as it was told. */
const BUSY = 30_000;

/**
 * The life of one EventSource, its own reconnects included, and the watchdog over it.
 * @param {object} options
 * @param {new (url: string, init?: { withCredentials?: boolean }) => Source} options.EventSource
 * @param {string} options.url
 * @param {string[]} options.types event names
 * @param {number} options.heartbeat ms
 * @param {number} options.watchdog ms
 * @param {boolean} [options.withCredentials] whether cookies go along to another origin
 * @param {object} tell
 * @param {(event: Raw) => void} tell.event an event, the gateway's own included
 * @param {(final: boolean, answered: boolean) => void} tell.ended the connection has ended. `final`: the EventSource has given up;
 *   else it comes back by itself. `answered`: the gateway had been reached
 * @param {() => void} tell.slow no answer yet, a heartbeat's time after the start or after an end
 * @param {(answered: boolean) => void} tell.silent nothing has come for the watchdog's time
 */
export function openSource({ EventSource, url, types, heartbeat, watchdog, withCredentials }, tell) {
  const source = new EventSource(url, { withCredentials });
  /** @type {Set<string>} */
  const known = new Set();
  let answered = false;
  /** npm `eventsource` still hands on what it has read. */
  let closed = false;
  let heard = Date.now();
  let bound = watchdog;

  // One timer that looks after the time, instead of one that every event sets anew.
  const look = () => {
    const now = Date.now();
    heard = Math.min(heard, now); // the clock was put back
    clearTimeout(timer);
    if (now - heard < bound) timer = setTimeout(look, heard + bound - now);
    else tell.silent(answered);
  };
  let timer = setTimeout(look, bound);
  let slow = setTimeout(tell.slow, heartbeat);

  /** @param {string} type */
  const listen = (type) => {
    if (known.has(type)) return;
    known.add(type);
    source.addEventListener(type, ({ data, lastEventId }) => {
      // Without data it is the EventSource's own `open` or `error`: events of the gateway may have these names too.
      if (data === undefined || closed) return;
      heard = Date.now();
      answered = true;
      bound = type === 'sse.busy' ? watchdog + BUSY : watchdog;
      clearTimeout(slow);
      tell.event({ type, id: lastEventId, text: data });
    });
  };
  for (const type of [...SYSTEM, ...types]) listen(type);

  source.addEventListener('error', ({ data }) => {
    if (data !== undefined || closed) return;
    const was = answered;
    heard = Date.now();
    answered = false;
    clearTimeout(slow);
    const final = source.readyState === 2;
    // Its own reconnect may be held back as well. After `sse.busy` it waits longer before it tries.
    if (!final) slow = setTimeout(tell.slow, heartbeat + bound - watchdog);
    tell.ended(final, was);
  });

  return {
    listen,
    /** Whether it is still alive: after a time in which timers may not have run. */
    look,
    close() {
      closed = true;
      clearTimeout(timer);
      clearTimeout(slow);
      source.close();
    },
  };
}
