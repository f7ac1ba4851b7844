'use client';
import { useEffect, useState } from 'react';
import { Live } from './live.js';
import { useLatestRef } from './useLatestRef.js';

/** @import { AnyOptions } from './types.js' */

/**
 * Returns the stream of a component. A change of `url`, `topics`, `polling`, `share`,
 * `withCredentials`, `ticketUrl` or `enabled` opens a new connection, and so does a `ticket`
 * function that is added or removed; other options are read when needed.
 * @param {AnyOptions} options
 * @returns {Live}
 */
export function useLive(options) {
  const { url, ticket, ticketUrl, topics, polling, share, withCredentials } = options;
  const { eventHandlers, onMessage, enabled = true } = options;
  const latest = useLatestRef(options);
  const [live] = useState(() => new Live(latest, enabled ? 'connecting' : 'closed'));

  // Compared by content: lists are often created during rendering.
  const names = JSON.stringify([Object.keys(eventHandlers ?? {}).sort(), !onMessage]);
  const sorted = topics && [...topics].sort();
  const key = [url, sorted, polling, share, !ticket, ticketUrl, withCredentials];
  const connectionKey = JSON.stringify(key);
  useEffect(() => live.updateNames(), [live, names]);
  useEffect(() => (enabled ? live.open() : live.disable()), [live, enabled, connectionKey]);
  return live;
}
