// What was published and what was received, when, and when the stream was interrupted. The other
// modules report to it, and the timeline, the list and the counts are drawn from it.

/** Maximum number of events to remember. */
const MAX_EVENTS = 5000;
/** Time, in ms, in which changes are reported together. */
const DELAY = 50;

/**
 * An event. `published` and `received` are times in ms: the first is known from the log, the second
 * from the stream, and either may come first. `order` is its place in the log, `arrival` in the
 * stream. `copies` counts how often it arrived.
 */
const events = new Map();
/** { from, to, why }; `to` is undefined while it lasts. */
export const outages = [];
/** { at, reason } */
export const gaps = [];
export const counts = { published: 0, received: 0 };
let place = 0;
let arrival = 0;
let timer = 0;
const listeners = new Set();

/** Calls `listener` soon after changes. */
export const onChange = (listener) => listeners.add(listener);
function changed() {
  timer ||= setTimeout(() => {
    timer = 0;
    for (const listener of listeners) listener();
  }, DELAY);
}

export const all = () => events.values();
export const find = (id) => events.get(id);
export const currentOutage = () => {
  const last = outages.at(-1);
  return last && last.to === undefined ? last : undefined;
};

function entry(id) {
  let event = events.get(id);
  if (!event) {
    events.set(id, event = { id, copies: 0 });
    // Also if the log no longer contains it.
    counts.published += 1;
    if (events.size > MAX_EVENTS) events.delete(events.keys().next().value);
  }
  return event;
}

/** The log contains this event. Events must be passed in the order of the log. */
export function published({ id, type, channel, at }) {
  Object.assign(entry(id), { type, channel, published: at, order: place += 1 });
  changed();
}

/** The stream brought this event. `id` is empty for an event that is not stored. */
export function received({ id, type, time, history }) {
  const event = entry(id || 'unstored ' + (arrival + 1));
  event.copies += 1;
  if (event.copies > 1) return;
  Object.assign(event, { type, received: time, arrival: arrival += 1, history });
  counts.received += 1;
  changed();
}

export function interrupted(why) {
  if (currentOutage()) return;
  outages.push({ from: Date.now(), to: undefined, why });
  changed();
}
export function resumed() {
  const outage = currentOutage();
  if (!outage) return;
  outage.to = Date.now();
  changed();
}
export function gap(reason) {
  gaps.push({ at: Date.now(), reason });
  changed();
}

/** Whether an event was published before an outage ended, and received after that. */
export const isReplayed = ({ published, received, history }) =>
  !history &&
  outages.some(({ to }) => published < to && received >= to);

const source = ({ channel }) => (channel?.startsWith('broadcast:') ? 'broadcasts' : 'user');

/** Whether events arrived in log order. User events and broadcasts have no common order. */
export function areInOrder(arrived) {
  const latest = { user: 0, broadcasts: 0 };
  return arrived.every((event) => {
    const before = latest[source(event)];
    latest[source(event)] = event.order;
    return event.order > before;
  });
}

/** The events that will not arrive: later ones of their source have. */
export function missing() {
  const latest = { user: 0, broadcasts: 0 };
  for (const event of events.values()) {
    if (event.received && event.order > latest[source(event)]) latest[source(event)] = event.order;
  }
  return new Set([...events.values()].filter(
    (event) => event.order < latest[source(event)] && !event.received,
  ));
}

/** The events that were published during an outage and not received before it, in their order. */
export const publishedDuring = ({ from, to = Infinity }) =>
  [...events.values()]
    .filter(({ published, received }) => published < to && !(received < from) && published >= from)
    .sort((one, other) => one.order - other.order);
