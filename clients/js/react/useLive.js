import { useEffect, useState, useSyncExternalStore } from 'react';
import { Live } from './live.js';
import { useLatest } from './useLatest.js';

/** @import { EventSourceOptions } from './types.js' */

/**
 * Returns the stream of a component, and its state in this render. A change of `url`, `topics`,
 * `polling`, `share` or `enabled` opens a new connection; other options are read when needed.
 * @param {EventSourceOptions} options
 */
export function useLive(options) {
  const { url, topics, polling, share, enabled = true, eventHandlers } = options;
  const latest = useLatest(options);
  const [live] = useState(() => new Live(latest, enabled ? 'connecting' : 'closed'));
  const state = useSyncExternalStore(live.watch, live.state, live.state);

  // Compared by content: lists are often created during rendering.
  const connectionKey = JSON.stringify([url, topics && [...topics].sort(), polling, share]);
  useEffect(() => (enabled ? live.open() : live.disable()), [live, enabled, connectionKey]);

  const names = JSON.stringify(Object.keys(eventHandlers ?? {}).sort());
  useEffect(() => live.updateNames(), [live, names]);

  return { live, state };
}
