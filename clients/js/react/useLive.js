import { useEffect, useState, useSyncExternalStore } from 'react';
import { Live } from './live.js';
import { useLatest } from './useLatest.js';

/** @import { EventSourceOptions } from './types.js' */

/**
 * The stream of a component, and its state at this render.
 * Another url, other topics, `polling`, `share` or `enabled` make a new connection. Nothing else does: the rest is read when it is needed.
 * @param {EventSourceOptions} options
 */
export function useLive(options) {
  const { url, topics, polling, share, enabled = true, eventHandlers } = options;
  const latest = useLatest(options);
  const [live] = useState(() => new Live(latest, enabled ? 'connecting' : 'closed'));
  const state = useSyncExternalStore(live.watch, live.state, live.state);

  // By value: lists are often written in the render itself.
  const what = JSON.stringify([url, topics && [...topics].sort(), polling, share]);
  useEffect(() => (enabled ? live.open() : live.rest()), [live, enabled, what]);

  const names = JSON.stringify(Object.keys(eventHandlers ?? {}).sort());
  useEffect(() => live.follow(), [live, names]);

  return { live, state };
}
