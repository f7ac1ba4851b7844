import { address } from './address.js';
import { parse } from './handlers.js';
import { request } from './poll.js';
import { newTicket, ticketFunction } from './ticket.js';
/** @import { History, HistoryOptions } from './types.js' */

/** Timeout of the ticket and of each page, in ms. */
const TIMEOUT = 45_000;
/** Maximum number of events in one page. */
const LIMIT = 1000;

/**
 * Reads the stored events of a channel, oldest first, page by page until the end. A stream that is
 * opened with the resulting `lastEventId` continues them without a gap or a duplicate.
 *
 * @example
 * const { events, lastEventId } = await history({ url, ticketUrl, channel: 'user:42:events' });
 * events.forEach(({ data }) => add(data));
 * const stream = connect({ url, ticketUrl, lastEventId });
 *
 * @template [Data=any]
 * @param {HistoryOptions} options
 * @returns {Promise<History<Data>>} rejects with an error that has the gateway's `status` and
 *   `code`, and `retryAfter` in ms
 */
export async function history(options) {
  const { url, channel, since, until, fetch = globalThis.fetch, withCredentials } = options;
  const ticket = await newTicket(ticketFunction(options, TIMEOUT), TIMEOUT);
  /** @type {Record<string, string | number | undefined>} */
  let range = { since, after: options.after };
  const events = [];
  for (;;) {
    const members = { ticket, channel, until, limit: LIMIT, ...range };
    const page = address({ url }, '/history', members);
    const answer = await request(fetch, page, TIMEOUT, undefined, withCredentials);
    for (const { id, type, data } of answer.events) {
      events.push({ id, type, text: data, data: parse(data), retained: false });
    }
    if (answer.next === null) return { events, lastEventId: answer.lastEventId };
    range = { after: answer.next };
  }
}
