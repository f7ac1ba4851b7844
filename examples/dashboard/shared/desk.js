// A desk is the state that a user sees. The backend keeps one per user, and the page updates its
// copy event by event. Both use the same function, so that loaded and streamed state are
// consistent.

export const POINTS = 60;
export const ENTRIES = 50;

export const emptyDesk = () => ({ orders: 0, revenue: 0, messages: 0, visitors: [], activity: [] });

const time = (value) => Math.abs(value) <= 8.64e15; // range of Date
const number = Number.isFinite;
const text = (value) => typeof value === 'string';
/**
 * Required data by event type. Other programs publish too, and an invalid event must not break the
 * page.
 */
const SHAPES = {
  visitors: { at: time, count: number },
  order: { at: time, order: number, customer: text, total: number },
  payment: { at: time, order: number, amount: number, method: text },
  message: { at: time, from: text, text },
};

/** Whether an event is of a known type and has valid data. */
export const isValid = ({ type, data }) => Object.hasOwn(SHAPES, type)
  && data !== null && typeof data === 'object'
  && Object.entries(SHAPES[type]).every(([name, accepts]) => accepts(data[name]));

/** Converts an event to an entry of the feed. */
export const entry = ({ id, type, data }) => ({ ...data, id, type });

/** Returns the desk after an event { id, type, data }. Ignores invalid events. */
export function apply(desk, event) {
  const { type, data } = event;
  if (!isValid(event)) return desk;
  if (type === 'visitors') return { ...desk, visitors: last(desk.visitors, data) };
  const activity = [entry(event), ...desk.activity].slice(0, ENTRIES);
  switch (type) {
    case 'order': return { ...desk, activity, orders: desk.orders + 1 };
    case 'payment': return { ...desk, activity, revenue: desk.revenue + data.amount };
    default: return { ...desk, activity, messages: desk.messages + 1 };
  }
}

const last = (points, point) => [...points, point].slice(-POINTS);
