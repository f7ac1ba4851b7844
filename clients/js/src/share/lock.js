// The group's lock. The tab or worker that has it runs the group's hub.

/**
 * Waits for the lock, until `signal` is aborted.
 * @param {string} name name of the group
 * @param {AbortSignal} signal aborted when this tab leaves the group; also releases the lock
 * @param {(release: () => void) => void} onLock called with the lock acquired
 * @param {() => void} onUnavailable locks are not available: insecure origin, or site data are
 *   blocked
 */
export function queueForLock(name, signal, onLock, onUnavailable) {
  if (!navigator.locks) return onUnavailable();
  request(name, { signal }, signal, onLock, onUnavailable);
}

/**
 * Takes the lock from an owner that no longer responds. Only one tab at a time attempts this; its
 * hub has `patience` ms to announce itself.
 * @param {string} name
 * @param {AbortSignal} signal
 * @param {(release: () => void) => void} onLock
 * @param {() => void} onUnavailable
 * @param {number} patience
 */
export async function stealLock(name, signal, onLock, onUnavailable, patience) {
  if (!navigator.locks) return onUnavailable();
  await navigator.locks.request(`${name} steal`, { ifAvailable: true }, async (lock) => {
    if (!lock || signal.aborted) return;
    request(name, { steal: true }, signal, onLock, onUnavailable);
    await new Promise((resolve) => { setTimeout(resolve, patience); });
  }).catch(() => { /* locks failed for now: the caller tries again */ });
}

/**
 * @param {string} name
 * @param {LockOptions} options
 * @param {AbortSignal} signal
 * @param {(release: () => void) => void} onLock
 * @param {() => void} onUnavailable
 */
function request(name, options, signal, onLock, onUnavailable) {
  /** @param {(value?: undefined) => void} release */
  const hold = (release) => {
    if (signal.aborted) return release();
    signal.addEventListener('abort', () => release());
    onLock(release);
  };
  navigator.locks.request(name, options, () => new Promise(hold)).catch((error) => {
    if (signal.aborted) return;
    // Stolen, because this tab did not respond for too long.
    if (error.name === 'AbortError') queueForLock(name, signal, onLock, onUnavailable);
    else onUnavailable();
  });
}
