import { useLive } from './useLive.js';

/** @import { RealtimeOptions, RealtimeResult } from './types.js' */

const POLLING = /** @type {const} */ ({ auto: true, sse: false, polling: 'only' });

/**
 * Opens a stream while the component is mounted, over SSE or by polling, as set by `mode`.
 * @param {RealtimeOptions} options
 * @returns {RealtimeResult}
 */
export function useResilientRealtime({ mode = 'auto', ...options }) {
  const { live, state } = useLive({ ...options, polling: POLLING[mode] });
  return {
    ...state,
    mode: mode === 'polling' || state.status === 'polling' ? 'polling' : 'sse',
    // A getter, so that only components that read it are re-rendered when it changes.
    get lastEventId() { return live.lastEventId; },
    reconnect: live.reconnect,
    close: live.close,
  };
}
