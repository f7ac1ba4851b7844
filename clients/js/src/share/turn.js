// Whose turn it is to run the group's hub: whoever has the group's lock.

/**
 * Waits for the lock until `signal`.
 * @param {string} name of the group
 * @param {AbortSignal} signal the end of this tab's stay; gives the lock back, too
 * @param {(over: () => void) => void} granted it is this tab's turn; `over` gives it back
 * @param {() => void} impossible there are no locks here: an insecure origin, or site data are blocked
 */
export function queue(name, signal, granted, impossible) {
  if (!navigator.locks) return impossible();
  request(name, { signal }, signal, granted, impossible);
}

/**
 * Takes the lock from whoever has it and does not answer any more. One tab at a time tries that, and has `patience` ms to be heard of.
 * @param {string} name
 * @param {AbortSignal} signal
 * @param {(over: () => void) => void} granted
 * @param {() => void} impossible
 * @param {number} patience
 */
export async function steal(name, signal, granted, impossible, patience) {
  if (!navigator.locks) return impossible();
  await navigator.locks.request(`${name} mend`, { ifAvailable: true }, async (lock) => {
    if (!lock || signal.aborted) return;
    request(name, { steal: true }, signal, granted, impossible);
    await new Promise((resolve) => { setTimeout(resolve, patience); });
  }).catch(() => { /* no lock to be had now: whoever asked will ask again */ });
}

/** @param {string} name @param {LockOptions} options @param {AbortSignal} signal @param {(over: () => void) => void} granted @param {() => void} impossible */
function request(name, options, signal, granted, impossible) {
  navigator.locks.request(name, options, () => new Promise((/** @type {(value?: undefined) => void} */ resolve) => {
    if (signal.aborted) return resolve();
    signal.addEventListener('abort', () => resolve());
    granted(resolve);
  })).catch(({ name: fault }) => {
    if (signal.aborted) return;
    if (fault === 'AbortError') queue(name, signal, granted, impossible); // it was stolen: this tab had not answered for too long
    else impossible();
  });
}
