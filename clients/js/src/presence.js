/**
 * Reports when the page cannot receive events (offline, frozen, in the back-forward cache), when it
 * can again, and when it becomes visible. In workers only offline and online are reported, in Node
 * nothing.
 * @param {object} callbacks
 * @param {() => void} callbacks.away
 * @param {() => void} callbacks.back
 * @param {() => void} callbacks.seen
 * @returns {() => void} removes the listeners
 */
export function presence({ away, back, seen }) {
  const page = globalThis.document;
  const own = new AbortController();
  /**
   * @param {{ addEventListener?: Function }} target
   * @param {Record<string, (event: any) => void>} listeners
   */
  const listen = (target, listeners) => {
    for (const [name, listener] of Object.entries(listeners)) {
      target?.addEventListener?.(name, listener, { signal: own.signal });
    }
  };
  listen(globalThis, {
    offline: away,
    online: back,
    // Only if the page may return, not when it is unloaded.
    pagehide: ({ persisted }) => { if (persisted) away(); },
    pageshow: ({ persisted }) => { if (persisted) back(); },
  });
  listen(page, {
    freeze: away,
    resume: back,
    visibilitychange: () => { if (!page.hidden) seen(); },
  });
  return () => own.abort();
}

/** Whether the browser reports that it is offline. */
export const offline = () => globalThis.navigator?.onLine === false;
