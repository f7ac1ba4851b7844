import { parse } from './handlers.js';
import { Refusal } from './poll.js';
/** @import { ConnectOptions } from './types.js' */

/**
 * The ticket endpoint refused a request. With `status` 401 the user is signed out, so the stream
 * stops until `reconnect()`. Throw it in a `ticket` function of your own:
 *
 * @example
 * if (!response.ok) throw new TicketError(response.status);
 */
export class TicketError extends Error {
  /**
   * @param {number} status HTTP status of the response
   * @param {string} [action] what the endpoint did. Default: it responded with this status
   */
  constructor(status, action = `responded with ${status}`) {
    super(`the ticket endpoint ${action}`);
    this.name = 'TicketError';
    /** HTTP status of the response. */
    this.status = status;
  }
}

/**
 * Whether a ticket request failed because the user is signed out. A 401 of the gateway only means
 * that a new ticket is needed.
 * @param {any} error
 */
export const isSignedOut = (error) => error?.status === 401 && !(error instanceof Refusal);

/** @param {unknown} value */
const isTicket = (value) => value === null || (value && typeof value === 'string');

/**
 * The function that requests tickets: the user's, or one that fetches them from `ticketUrl`.
 * @param {Pick<ConnectOptions, 'ticket' | 'ticketUrl' | 'fetch'>} options
 * @param {number} timeout ms
 * @returns {ConnectOptions['ticket']}
 */
export const ticketFunction = (options, timeout) => {
  const { ticket, ticketUrl, fetch = globalThis.fetch } = options;
  if (ticket || !ticketUrl) return ticket;
  return async () => {
    const response = await fetch(ticketUrl, {
      method: 'POST',
      cache: 'no-store',
      redirect: 'manual',
      credentials: 'include', // the login may be on another origin, such as api.example.com
      signal: AbortSignal.timeout(timeout),
    });
    const { ok, status } = response;
    // A redirect leads to a login page. Its status is 0 in a browser and 3xx in Node.
    if (!ok && status < 400) throw new TicketError(401, 'redirected the request');
    if (!ok) throw new TicketError(status);
    const value = parse(await response.text())?.ticket;
    if (isTicket(value)) return value;
    throw new TypeError('ticketUrl must respond with { "ticket": "…" }');
  };
};

/**
 * Requests a new ticket.
 * @param {ConnectOptions['ticket']} ticket
 * @param {number} timeout ms
 * @returns {Promise<string | null>} null: the URL has no ticket. Rejects if the function throws,
 *   times out or returns anything else than a string or null
 */
export const newTicket = (ticket, timeout) => new Promise((resolve, reject) => {
  if (!ticket) return resolve(null);
  const timer = setTimeout(
    () => reject(new Error('the request to ticketUrl, or ticket(), timed out')), timeout,
  );
  // Must not keep a Node process alive: what ticket() waits for does that, if anything.
  /** @type {{ unref?: () => void }} */ (/** @type {unknown} */ (timer)).unref?.();
  Promise.resolve().then(ticket).then((value) => {
    if (isTicket(value)) return resolve(value);
    throw new TypeError('ticket() must return a non-empty string, or null');
  }).catch(reject).finally(() => clearTimeout(timer));
});
