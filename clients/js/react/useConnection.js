'use client';
import { useState, useSyncExternalStore } from 'react';

/** @import { Live } from './live.js' */
/** @import { EventSourceResult } from './types.js' */

/**
 * The state of a stream, as the hooks return it. The component re-renders when the state changes,
 * and when the id changes if it reads `lastEventId`.
 * @param {Live} live
 * @returns {EventSourceResult}
 */
export function useConnection(live) {
  const [reader] = useState(() => ({ readsId: false }));
  const state = () => (reader.readsId ? live.stateWithId() : live.state());
  return {
    ...useSyncExternalStore(live.watch, state, live.state),
    // A getter, so that only components that read it are re-rendered when it changes.
    get lastEventId() {
      reader.readsId = true;
      live.stateWithId();
      return live.lastEventId;
    },
    reconnect: live.reconnect,
    close: live.close,
  };
}
