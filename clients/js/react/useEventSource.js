import { useLive } from './useLive.js';

/** @import { EventSourceOptions, EventSourceResult } from './types.js' */

/**
 * Opens a stream while the component is mounted: `connect` as a hook.
 * @param {EventSourceOptions} options
 * @returns {EventSourceResult}
 */
export function useEventSource(options) {
  const { live, state } = useLive(options);
  return {
    ...state,
    // A getter, so that only components that read it are re-rendered when it changes.
    get lastEventId() { return live.lastEventId; },
    reconnect: live.reconnect,
    close: live.close,
  };
}
