import { useEffect, useState, useSyncExternalStore } from 'react';
import { Live } from './live.js';
import { useLatest } from './useLatest.js';

/** @import { EventSourceOptions } from './types.js' */

/**
 * Returns the stream of a component, and its state in this render. A change of `url`, `topics`,
 * `polling`, `share`, `withCredentials`, `ticketUrl` or `enabled` opens a new connection, and so does a
 * `ticket` function that is added or removed; other options are read when needed.
 * @param {EventSourceOptions} options
 */
export function useLive(options) {
  const { url, ticket, ticketUrl, topics, polling, share, withCredentials } = options;
  const { eventHandlers, enabled = true } = options;
  const latest = useLatest(options);
  const [live] = useState(() => new Live(latest, enabled ? 'connecting' : 'closed'));
  const state = useSyncExternalStore(live.watch, live.state, live.state);

  // Compared by content: lists are often created during rendering.
  const names = JSON.stringify(Object.keys(eventHandlers ?? {}).sort());
  const sorted = topics && [...topics].sort();
  const key = [url, sorted, polling, share, !ticket, ticketUrl, withCredentials];
  const connectionKey = JSON.stringify(key);
  useEffect(() => (enabled ? live.open() : live.disable()), [live, enabled, connectionKey]);

  useEffect(() => live.updateNames(), [live, names]);

  return { live, state };
}
