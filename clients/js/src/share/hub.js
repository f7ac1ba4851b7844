import { startEngine } from '../engine.js';
import { TicketError } from '../ticket.js';
/** @import { Settings, State } from '../types.js' */

/**
 * Time, in ms, for a tab to answer a ticket request before another tab is asked as well. The
 * request fails after `watchdog`.
 */
const TICKET_TIMEOUT = 5000;

/**
 * A message on the channel of a group. `to`: only for this member.
 *
 * From the hub: `hello` (a new hub, or the response to a `join`), `event`, `at`, `state`, `error`,
 * `ask` (requests a ticket).
 *
 * From members: `join`, `leave`, `types`, `ticket`, `seen`, `reconnect`.
 *
 * From a tab or worker that has acquired the lock: `turn`.
 *
 * `from`: name of the member, or number of the hub. Of two hubs, the one with the larger number is
 * newer.
 * @typedef {{ kind: string, value?: any, from?: string | number, to?: string }} Message
 */

/**
 * Initial state of a hub.
 * @typedef {object} HubOptions
 * @property {string} name name of the channel
 * @property {number} last number of the previous hub
 * @property {Settings} settings `lastEventId` is where the hub resumes
 * @property {string[]} types all event names of the group
 */

/**
 * An error as it is sent to other tabs.
 * @typedef {{ name?: string, message: string, status?: number, code?: string }} Packed
 */

/** @param {any} error whatever was thrown @returns {Packed} */
export const packed = (error) => {
  const { name, message = String(error), status, code } = Object(error);
  return { name, message, status, code };
};

/** @param {Packed} value @returns {Error} */
export const unpacked = ({ name = 'Error', message, status, code }) => Object.assign(
  name === 'TicketError' ? new TicketError(Number(status)) : new Error(),
  { name, message, status, code },
);

/**
 * Owns the group's connection and forwards events to the members. Runs in a shared worker or in one
 * of the tabs.
 * @param {HubOptions} options
 * @param {() => void} onClose called when the hub has closed
 * @param {Settings['ticket']} [ticket] default: requests tickets from the members
 */
export function openHub({ name, last, settings, types }, onClose, ticket) {
  const channel = new BroadcastChannel(name);
  // Based on the time, so that it is larger even if this tab never received the previous number.
  const me = Math.max(Date.now(), last + 1) + Math.random();
  /** @type {Set<string>} */
  const members = new Set();
  /**
   * Members that did not answer, such as a tab that crashed without leaving. They are asked last.
   * @type {Set<string>}
   */
  const silent = new Set();
  const known = new Set(types);
  let { lastEventId: at } = settings;
  /** @type {State} */
  let state = 'connecting';
  /** Whether the stream has brought retained values. */
  let kept = false;
  /** Id of the last event sent to the members. */
  let sent = '';
  /**
   * Settles the pending ticket request.
   * @type {(answer: { ticket?: string | null, error?: Packed }) => void}
   */
  let settleTicket = () => {};
  /** Members that the pending ticket request has not asked yet. @type {string[]} */
  let left = [];

  /** @param {string} kind @param {any} [value] @param {string} [to] */
  const send = (kind, value, to) => channel.postMessage({ kind, value, from: me, to });
  /** @param {string} [to] */
  const hello = (to) => send('hello', { at, state, types: [...known], kept }, to);

  /** Asks the newest member, and one more after each timeout. @returns {Promise<string | null>} */
  const requestTicket = () => new Promise((resolve, reject) => {
    left = [...silent, ...[...members].filter((member) => !silent.has(member))];
    /** @type {string | undefined} */
    let asked;
    const askNext = () => {
      if (asked) silent.add(asked);
      asked = left.pop();
      if (asked) send('ask', undefined, asked);
    };
    // Several members can be asked before the request fails.
    const timer = setInterval(askNext, Math.min(TICKET_TIMEOUT, settings.watchdog / 3));
    const end = setTimeout(
      () => settleTicket({ error: { message: 'no tab returned a ticket' } }), settings.watchdog,
    );
    settleTicket({ error: { message: 'another ticket was requested' } });
    settleTicket = ({ ticket, error }) => {
      clearInterval(timer);
      clearTimeout(end);
      if (ticket !== undefined) resolve(ticket);
      else reject(unpacked(/** @type {Packed} */ (error)));
    };
    askNext();
  });

  const engine = startEngine({ ...settings, ticket: ticket ?? requestTicket }, {
    event(event) {
      sent = event.id;
      kept ||= event.type === 'sse.snapshot';
      // An event without its own id repeats the previous one, and members would drop it as a
      // duplicate.
      send('event', sent === at ? { ...event, id: '' } : event);
    },
    at(id) {
      at = id;
      if (id !== sent) send('at', id);
    },
    state(newState) {
      state = newState;
      if (newState !== 'closed') send('state', newState);
    },
    error: (error) => send('error', packed(error)),
  }, types);

  let open = true;
  const close = () => {
    if (!open) return;
    open = false;
    clearTimeout(emptyTimer);
    settleTicket({ error: { message: 'the group has no members left' } });
    engine.close();
    channel.close();
    onClose();
  };
  // The tab that requested this hub may have gone before it started.
  const emptyTimer = setTimeout(() => { if (!members.size) close(); }, settings.heartbeat);

  /**
   * A new member may have a user who has signed in again.
   * @param {string} member
   */
  const add = (member) => {
    if (members.has(member)) return;
    members.add(member);
    left.push(member);
    if (state === 'signed-out') engine.reconnect();
  };
  /** @param {string[]} more */
  const listen = (more) => {
    for (const type of more) known.add(type);
    engine.listen(more);
  };
  channel.onmessage = (/** @type {{ data: Message }} */ { data: { kind, value, from } }) => {
    if (typeof from !== 'string') {
      // This hub did not respond for a while, and another one has taken over.
      if (from && from > me) close();
      return;
    }
    silent.delete(from);
    if (kind === 'join') {
      add(from);
      listen(value.types);
      if (value.fresh) hello(from);
    } else if (kind === 'leave') {
      if (members.delete(from) && !members.size) close();
    } else if (kind === 'types') listen(value);
    else if (kind === 'ticket') settleTicket(value);
    else if (kind === 'seen') engine.seen();
    else if (kind === 'reconnect') engine.reconnect();
  };
  hello();
  return { add, close };
}
