import { useLive } from './useLive.js';

/** @import { RealtimeOptions, RealtimeResult } from './types.js' */

const POLLING = /** @type {const} */ ({ auto: true, sse: false, polling: 'only' });

/**
 * A stream while the component is there, over SSE or polls, as told or as it gets through.
 * @param {RealtimeOptions} options
 * @returns {RealtimeResult}
 */
export function useResilientRealtime({ mode = 'auto', ...options }) {
  const { live, state } = useLive({ ...options, polling: POLLING[mode] });
  return {
    ...state,
    mode: mode === 'polling' || state.status === 'polling' ? 'polling' : 'sse',
    // A getter: who does not ask for it need not be rendered when it moves.
    get lastEventId() { return live.lastEventId; },
    reconnect: live.reconnect,
    close: live.close,
  };
}
