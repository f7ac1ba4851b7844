'use client';
import { useContext, useEffect, useMemo, useState } from 'react';
import { addChanges, hidesPresence, NONE, onlineUsers } from './changes.js';
import { SseContext } from './context.js';
import { useFrameBatch } from './useFrameBatch.js';

/** @import { PresenceOptions, PresenceResult } from './types.js' */
/** @import { Change } from './changes.js' */

/**
 * Keeps the set of users who are online up to date, with at most one render per frame. It uses the
 * stream of the nearest `SseProvider`; without one, pass its handlers to a stream. The ticket needs
 * the claim `presence`.
 *
 * Load `initial` when the stream is connected, and again after a gap. Events that arrived before
 * it are applied, too: the last event of a user decides.
 *
 * @example
 * const { online } = usePresence({ initial: ['1', '2'] });
 *
 * @template {string} [User=string] ids of users
 * @param {PresenceOptions<User>} [options]
 * @returns {PresenceResult<User>}
 */
export function usePresence({ initial } = {}) {
  const [changes, setChanges] = useState(NONE);
  const add = useFrameBatch((/** @type {Change[]} */ items) =>
    setChanges((before) => addChanges(before, items)));
  const [eventHandlers] = useState(() => ({
    'sse.online': (/** @type {{ user: string }} */ { user }) => add([user, true]),
    'sse.offline': (/** @type {{ user: string }} */ { user }) => add([user, false]),
    'sse.gap': (/** @type {{ channels: string[] }} */ gap) => {
      if (hidesPresence(gap)) add(null);
    },
  }));
  const live = useContext(SseContext)?.live;
  useEffect(() => {
    if (!live) return undefined;
    const offs = Object.entries(eventHandlers).map(([name, handler]) => live.on(name, handler));
    return () => { for (const off of offs) off(); };
  }, [live, eventHandlers]);
  const online = useMemo(() => onlineUsers(initial, changes), [initial, changes]);
  return { online: /** @type {ReadonlySet<any>} */ (online), eventHandlers };
}
