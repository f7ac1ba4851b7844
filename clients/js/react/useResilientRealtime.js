'use client';
import { useConnection } from './useConnection.js';
import { useLive } from './useLive.js';

/** @import { AnyOptions, Mode, UseResilientRealtime } from './types.js' */

const POLLING = /** @type {const} */ ({ auto: true, sse: false, polling: 'only' });

/**
 * Opens a stream while the component is mounted, over SSE or by polling, as set by `mode`.
 *
 * @example
 * const { status, mode } = useResilientRealtime<Events>({
 *   url: '/events',
 *   ticketUrl: '/api/sse-ticket',
 *   mode: 'auto',
 *   eventHandlers: { order: (order) => show(order) },
 * });
 *
 * @type {UseResilientRealtime}
 */
export const useResilientRealtime = (/** @type {AnyOptions & { mode?: Mode }} */ all) => {
  const { mode = 'auto', ...options } = all;
  const result = useConnection(useLive({ ...options, polling: POLLING[mode] }));
  // Defined on the result: a copy would read `lastEventId`.
  return Object.assign(result, {
    mode: mode === 'polling' || result.status === 'polling'
      ? /** @type {const} */ ('polling')
      : /** @type {const} */ ('sse'),
  });
};
