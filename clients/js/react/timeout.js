/** Timeout of a request, in ms. */
const TIMEOUT = 45_000;

/**
 * Calls a function that sends a request. Rejects after 45 s, or when `signal` is aborted; the
 * function's own signal is aborted as well then.
 * @template Data
 * @param {(context: { signal: AbortSignal }) => Promise<Data>} request
 * @param {AbortSignal} signal
 * @returns {Promise<Data>}
 */
export async function withTimeout(request, signal) {
  const own = new AbortController();
  /** @type {Promise<never>} */
  const aborted = new Promise((_, reject) => {
    own.signal.addEventListener('abort', () => reject(own.signal.reason));
  });
  const end = () => own.abort(signal.reason);
  const timer = setTimeout(() => own.abort(new Error('the request timed out')), TIMEOUT);
  signal.addEventListener('abort', end);
  try {
    return await Promise.race([request({ signal: own.signal }), aborted]);
  } finally {
    clearTimeout(timer);
    signal.removeEventListener('abort', end);
  }
}
