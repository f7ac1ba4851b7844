import { useMemo, useState } from 'react';
import { addChanges, hidesPresence, NONE, onlineUsers } from './changes.js';
import { useFrameBatch } from './useFrameBatch.js';

/** @import { PresenceOptions, PresenceResult } from './types.js' */
/** @import { Change } from './changes.js' */

/**
 * Keeps the set of users who are online up to date, with at most one render per frame. Pass its
 * handlers to the stream, whose ticket needs the claim `presence`.
 *
 * Load `initial` when the stream is connected, and again after a gap. Events that arrived before
 * it are applied, too: the last event of a user decides.
 * @param {PresenceOptions} [options]
 * @returns {PresenceResult}
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
  const online = useMemo(() => onlineUsers(initial, changes), [initial, changes]);
  return { online, eventHandlers };
}
