/**
 * Tells when the page cannot receive (offline, frozen, in the bfcache), when it can again, and when someone looks at it. Workers have only
 * online and offline, Node nothing.
 * @param {object} tell
 * @param {() => void} tell.away
 * @param {() => void} tell.back
 * @param {() => void} tell.seen
 * @returns {() => void} stops it
 */
export function presence({ away, back, seen }) {
  const page = globalThis.document;
  const own = new AbortController();
  /** @param {{ addEventListener?: Function }} target @param {Record<string, (event: any) => void>} acts */
  const listen = (target, acts) => {
    for (const [name, act] of Object.entries(acts)) target?.addEventListener?.(name, act, { signal: own.signal });
  };
  listen(globalThis, {
    offline: away,
    online: back,
    // Not at the end of the page: only if it may come back.
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

/** Whether the browser says that there is no network. */
export const offline = () => globalThis.navigator?.onLine === false;
