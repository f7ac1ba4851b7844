import { useEffect, useState, useSyncExternalStore } from 'react';
import { Live } from './live.js';
import { useLatest } from './useLatest.js';

/** @import { EventSourceOptions } from './types.js' */

/**
 * Returns the stream of a component, and its state in this render. A change of `url`, `topics`,
 * `polling`, `share`, `withCredentials` or `enabled` opens a new connection, and so does a `ticket`
 * function that is added or removed; other options are read when needed.
 * @param {EventSourceOptions} options
 */
export function useLive(options) {
  const { url, ticket, topics, polling, share, withCredentials, enabled = true } = options;
  const { eventHandlers } = options;
  const latest = useLatest(options);
  const [live] = useState(() => new Live(latest, enabled ? 'connecting' : 'closed'));
  const state = useSyncExternalStore(live.watch, live.state, live.state);

  // Compared by content: lists are often created during rendering.
  const key = [url, topics && [...topics].sort(), polling, share, !ticket, withCredentials];
  const connectionKey = JSON.stringify(key);
  useEffect(() => (enabled ? live.open() : live.disable()), [live, enabled, connectionKey]);

  const names = JSON.stringify(Object.keys(eventHandlers ?? {}).sort());
  useEffect(() => live.updateNames(), [live, names]);

  return { live, state };
}
