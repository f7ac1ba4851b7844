// The state of a pane, computed from events and connection changes. Its size is bounded.
import { ENTRIES, apply, entry, isValid } from '../shared/desk.js';

/** Feed entries for changes of the connection state. */
const CONNECTION_TEXTS = {
  open: 'Reconnected and caught up',
  reconnecting: 'Connection lost, reconnecting',
  polling: 'Streaming is blocked, polling instead',
};

export const begin = (desk) => ({
  desk,
  first: desk,
  feed: desk.activity,
  unread: 0,
  latest: [],
  connection: null,
});

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
  const fresh = all.filter((event) => isValid(event) && event.type !== 'visitors').map(entry);
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
  // The first connection is not worth an entry.
  const isFirst = view.connection === null || view.connection === 'connecting';
  const text = isFirst ? null : CONNECTION_TEXTS[status];
  if (!text) return { ...view, connection: status };
  const change = { id: `connection-${at}`, type: 'connection', status, text, at };
  return { ...view, feed: [change, ...view.feed].slice(0, ENTRIES), connection: status };
}
