// A desk is what one user sees. The backend keeps one for each user, the page goes on with it event by event:
// the same function on both sides, so that what was loaded and what was streamed cannot differ.

export const POINTS = 60;
export const ENTRIES = 50;

export const emptyDesk = () => ({ orders: 0, revenue: 0, messages: 0, visitors: [], activity: [] });

const time = (value) => Math.abs(value) <= 8.64e15; // as far as dates go
const number = Number.isFinite;
const text = (value) => typeof value === 'string';
/** What the data of each type must hold. Other programs publish too: one wrong event must not be the end of the page. */
const SHAPES = {
  visitors: { at: time, count: number },
  order: { at: time, order: number, customer: text, total: number },
  payment: { at: time, order: number, amount: number, method: text },
  message: { at: time, from: text, text },
};

/** Whether it is an event that a desk can take. */
export const sound = ({ type, data }) => Object.hasOwn(SHAPES, type) && data !== null && typeof data === 'object'
  && Object.entries(SHAPES[type]).every(([name, right]) => right(data[name]));

/** An event as an entry of a list. */
export const entry = ({ id, type, data }) => ({ ...data, id, type });

/** The desk after an event { id, type, data }. */
export function apply(desk, event) {
  const { type, data } = event;
  if (!sound(event)) return desk;
  if (type === 'visitors') return { ...desk, visitors: last(desk.visitors, data) };
  const activity = [entry(event), ...desk.activity].slice(0, ENTRIES);
  switch (type) {
    case 'order': return { ...desk, activity, orders: desk.orders + 1 };
    case 'payment': return { ...desk, activity, revenue: desk.revenue + data.amount };
    default: return { ...desk, activity, messages: desk.messages + 1 };
  }
}

const last = (points, point) => [...points, point].slice(-POINTS);
