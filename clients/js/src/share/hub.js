import { run } from '../engine.js';
/** @import { Settings, State } from '../types.js' */

/** A tab that does not answer within so many ms is not waited for alone: another one is asked too. */
const TICKET = 5000;

/**
 * What goes over the channel of a group. `to`: only for this member.
 * From the hub: `hello` (a hub has begun, or answers to a `join`), `event`, `at`, `state`, `error`, `ask` (for a ticket).
 * From members: `join`, `leave`, `types`, `ticket`, `seen`, `reconnect`.
 * `from`: a member's name, or the number of the hub; of two hubs the one with the greater number is the newer one.
 * @typedef {{ kind: string, value?: any, from?: string | number, to?: string }} Message
 */

/**
 * What a new hub must know.
 * @typedef {object} Begin
 * @property {string} name of the channel
 * @property {number} last the number of the hub before
 * @property {Settings} settings with `lastEventId` where to go on
 * @property {string[]} types all event names of the group
 */

/**
 * Holds the group's one connection and tells the members what comes. It runs in a shared worker, or in one of the tabs.
 * @param {Begin} begin
 * @param {() => void} over called once nobody is left
 * @param {Settings['ticket']} [ticket] without it a member is asked
 */
export function openHub({ name, last, settings, types }, over, ticket) {
  const channel = new BroadcastChannel(name);
  // By the time, so that it is greater also where whoever begins has not heard of the hub before.
  const me = Math.max(Date.now(), last + 1) + Math.random();
  /** @type {Set<string>} */
  const members = new Set();
  /** Those who have not answered: a tab that has crashed never left. They are asked after all others. @type {Set<string>} */
  const silent = new Set();
  const known = new Set(types);
  let { lastEventId: at } = settings;
  /** @type {State} */
  let state = 'connecting';
  /** The id of the last event: members know that they stand there. */
  let told = '';
  /** Settles the ticket that is awaited. @type {(answer: { ticket?: string, error?: string }) => void} */
  let answered = () => {};

  /** @param {string} kind @param {any} [value] @param {string} [to] */
  const say = (kind, value, to) => channel.postMessage({ kind, value, from: me, to });
  /** @param {string} [to] */
  const hello = (to) => say('hello', { at, state, types: [...known] }, to);

  /** Asks the newest member, and one more whenever that takes long. @returns {Promise<string>} */
  const ask = () => new Promise((resolve, reject) => {
    const left = [...silent, ...[...members].filter((member) => !silent.has(member))];
    /** @type {string | undefined} */
    let asked;
    const next = () => {
      if (asked) silent.add(asked);
      asked = left.pop();
      if (asked) say('ask', undefined, asked);
      else answered({ error: 'no tab gave a ticket' });
    };
    const timer = setInterval(next, TICKET);
    answered = ({ ticket, error }) => {
      clearInterval(timer);
      if (ticket) resolve(ticket); else reject(new Error(error));
    };
    next();
  });

  const engine = run({ ...settings, ticket: ticket ?? ask }, {
    // An event without an id of its own says so: members would take it for one they have had.
    event(event) {
      told = event.id;
      say('event', told === at ? { ...event, id: '' } : event);
    },
    at(now) {
      at = now;
      if (now !== told) say('at', now);
    },
    state(now) {
      state = now;
      if (now !== 'closed') say('state', now);
    },
    error: ({ message }) => say('error', message),
  }, types);

  let open = true;
  const close = () => {
    if (!open) return;
    open = false;
    clearTimeout(lonely);
    answered({ error: 'nobody is left' });
    engine.close();
    channel.close();
    over();
  };
  // Whoever wanted it may have gone before it began.
  const lonely = setTimeout(() => { if (!members.size) close(); }, settings.heartbeat);

  /** @param {string[]} more */
  const listen = (more) => {
    for (const type of more) known.add(type);
    engine.listen(more);
  };
  channel.onmessage = (/** @type {{ data: Message }} */ { data: { kind, value, from } }) => {
    if (typeof from !== 'string') {
      // This one has hung, and another has taken over.
      if (from && from > me) close();
      return;
    }
    silent.delete(from);
    if (kind === 'join') {
      members.add(from);
      listen(value.types);
      if (value.fresh) hello(from);
    } else if (kind === 'leave') {
      if (members.delete(from) && !members.size) close();
    } else if (kind === 'types') listen(value);
    else if (kind === 'ticket') answered(value);
    else if (kind === 'seen') engine.seen();
    else if (kind === 'reconnect') engine.reconnect();
  };
  hello();
  return {
    /** @param {string} member */
    add: (member) => members.add(member),
    close,
  };
}
