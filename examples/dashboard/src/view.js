// What a pane shows, as a function of what came: pure, and bounded by what a desk keeps.
import { ENTRIES, apply, entry, sound } from '../shared/desk.js';

/** How each state of the connection is told in the feed. */
const TOLD = {
  open: 'Connected again, caught up',
  reconnecting: 'Connection lost, trying again',
  polling: 'Streaming is blocked here, polling instead',
};

export const begin = (desk) => ({ desk, first: desk, feed: desk.activity, unread: 0, latest: [], connection: null });

export function reduce(view, action) {
  switch (action.type) {
    case 'events': return events(view, action.events);
    case 'connection': return connection(view, action.status, action.at);
    case 'read': return { ...view, unread: 0 };
    default: return view;
  }
}

function events(view, all) {
  const desk = all.reduce(apply, view.desk);
  const fresh = all.filter((event) => sound(event) && event.type !== 'visitors').map(entry);
  if (fresh.length === 0) return { ...view, desk };
  return {
    ...view,
    desk,
    feed: [...fresh.toReversed(), ...view.feed].slice(0, ENTRIES),
    unread: view.unread + fresh.length,
    latest: fresh,
  };
}

function connection(view, status, at) {
  if (status === view.connection) return view;
  // The first connection is no news.
  const text = view.connection === null || view.connection === 'connecting' ? null : TOLD[status];
  const feed = text ? [{ id: `connection-${at}`, type: 'connection', status, text, at }, ...view.feed].slice(0, ENTRIES) : view.feed;
  return { ...view, feed, connection: status };
}
