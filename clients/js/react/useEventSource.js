import { useLive } from './useLive.js';

/** @import { EventSourceOptions, EventSourceResult } from './types.js' */

/**
 * A stream while the component is there: `connect` as a hook.
 * @param {EventSourceOptions} options
 * @returns {EventSourceResult}
 */
export function useEventSource(options) {
  const { live, state } = useLive(options);
  return {
    ...state,
    // A getter: who does not ask for it need not be rendered when it moves.
    get lastEventId() { return live.lastEventId; },
    reconnect: live.reconnect,
    close: live.close,
  };
}
