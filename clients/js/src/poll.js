/** @import { ConnectOptions, Raw } from './types.js' */

/**
 * @typedef {object} Answer
 * @property {{ id: string | null, type: string, data: string }[]} events
 * @property {string} lastEventId
 * @property {object | null} gap
 */

/** A poll that was not answered with events. */
export class Refusal extends Error {
  /**
   * @param {number} status of HTTP
   * @param {string} code the gateway's word for it, such as `ticket-expired`
   * @param {string} message
   * @param {number} wait ms until the gateway wants to be asked again; 0: it did not say
   */
  constructor(status, code, message, wait) {
    super(`poll refused with ${status}: ${code}: ${message}`);
    this.status = status;
    this.code = code;
    this.wait = wait;
  }
}

/**
 * One poll: its events, in order, the gap before them if there is one, and where the stream then stands.
 * @param {NonNullable<ConnectOptions['fetch']>} fetch
 * @param {string} url
 * @param {number} timeout ms
 * @param {AbortSignal} signal ends it
 * @param {boolean} [withCredentials] whether cookies go along to another origin
 * @returns {Promise<{ events: Raw[], at: string }>}
 */
export async function poll(fetch, url, timeout, signal, withCredentials) {
  const own = new AbortController();
  const end = () => own.abort(signal.reason ?? new Error('a poll was not answered in time'));
  const timer = setTimeout(end, timeout);
  signal.addEventListener('abort', end);
  try {
    const response = await fetch(url, { signal: own.signal, cache: 'no-store', credentials: withCredentials ? 'include' : 'same-origin' });
    const body = await response.json().catch(() => ({}));
    if (!response.ok) {
      const wait = Number(response.headers.get('retry-after')) * 1000 || 0;
      throw new Refusal(response.status, body.error ?? 'unknown', body.message ?? 'no answer of the gateway', wait);
    }
    const { events, lastEventId, gap } = /** @type {Answer} */ (body);
    /** @type {Raw[]} */
    const raw = events.map(({ id, type, data }) => ({ type, id: id ?? '', text: data }));
    if (gap) raw.unshift({ type: 'sse.gap', id: '', text: JSON.stringify(gap) });
    return { events: raw, at: lastEventId };
  } finally {
    clearTimeout(timer);
    signal.removeEventListener('abort', end);
  }
}
