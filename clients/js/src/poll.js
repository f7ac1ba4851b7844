/** @import { ConnectOptions, Raw } from './types.js' */

/**
 * Response of `/events/poll`.
 * @typedef {object} Answer
 * @property {{ id: string | null, type: string, data: string, retained?: boolean }[]} events
 * @property {string} lastEventId
 * @property {object | null} gap
 * @property {object} [snapshot]
 */

/** A request that the gateway, or a proxy in front of it, refused. */
export class Refusal extends Error {
  /**
   * @param {number} status HTTP status
   * @param {string} code error code of the gateway, such as `ticket-expired`
   * @param {string} message
   * @param {number} retryAfter delay in ms that the gateway requested; 0: none
   */
  constructor(status, code, message, retryAfter) {
    super(`refused with ${status}: ${code}: ${message}`);
    this.status = status;
    this.code = code;
    this.retryAfter = retryAfter;
  }
}

/**
 * Sends one poll. Resolves to its events in order, preceded by a gap and a snapshot if there are
 * any, and the id that the stream has reached.
 * @param {NonNullable<ConnectOptions['fetch']>} fetch
 * @param {string} url
 * @param {number} timeout ms
 * @param {AbortSignal} signal aborts the poll
 * @param {boolean} [withCredentials] sends cookies to another origin
 * @returns {Promise<{ events: Raw[], at: string }>}
 * @throws {Refusal} on any status other than 2xx
 */
export async function poll(fetch, url, timeout, signal, withCredentials) {
  const body = await request(fetch, url, timeout, signal, withCredentials);
  const { events, lastEventId, gap, snapshot } = /** @type {Answer} */ (body);
  /** @type {Raw[]} */
  const raw = events.map(({ id, type, data, retained }) => ({
    // A retained value is no position of the stream: only `lastEventId` follows all of them.
    type, id: retained ? '' : id ?? '', text: data, retained,
  }));
  if (snapshot) raw.unshift({ type: 'sse.snapshot', id: '', text: JSON.stringify(snapshot) });
  if (gap) raw.unshift({ type: 'sse.gap', id: '', text: JSON.stringify(gap) });
  return { events: raw, at: lastEventId };
}

/**
 * Sends a GET request and resolves to the JSON of the response; otherwise as `poll`.
 * @param {NonNullable<ConnectOptions['fetch']>} fetch
 * @param {string} url
 * @param {number} timeout ms
 * @param {AbortSignal} [signal]
 * @param {boolean} [withCredentials]
 * @returns {Promise<any>}
 * @throws {Refusal}
 */
export async function request(fetch, url, timeout, signal, withCredentials) {
  const own = new AbortController();
  const end = () => own.abort(signal?.reason ?? new Error('the request timed out'));
  const timer = setTimeout(end, timeout);
  signal?.addEventListener('abort', end);
  const credentials = withCredentials ? 'include' : 'same-origin';
  try {
    const response = await fetch(url, { signal: own.signal, cache: 'no-store', credentials });
    const body = await response.json().catch(() => ({}));
    if (!response.ok) {
      const code = body.error ?? 'unknown';
      const message = body.message ?? 'the response is not from the gateway';
      const retryAfter = Number(response.headers.get('retry-after')) * 1000 || 0;
      throw new Refusal(response.status, code, message, retryAfter);
    }
    return body;
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener('abort', end);
  }
}
