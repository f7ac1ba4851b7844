// A desk is what one user sees. The backend keeps one for each user, the page goes on with it event by event:
// the same function on both sides, so that what was loaded and what was streamed cannot differ.

export const POINTS = 60;
export const ENTRIES = 50;

export const emptyDesk = () => ({ orders: 0, revenue: 0, messages: 0, visitors: [], activity: [] });

/** The desk after an event { id, type, data }. */
export function apply(desk, { id, type, data }) {
  if (type === 'visitors') return { ...desk, visitors: last(desk.visitors, data) };
  const activity = [{ id, type, ...data }, ...desk.activity].slice(0, ENTRIES);
  switch (type) {
    case 'order': return { ...desk, activity, orders: desk.orders + 1 };
    case 'payment': return { ...desk, activity, revenue: desk.revenue + data.amount };
    case 'message': return { ...desk, activity, messages: desk.messages + 1 };
    default: return desk;
  }
}

const last = (points, point) => [...points, point].slice(-POINTS);
