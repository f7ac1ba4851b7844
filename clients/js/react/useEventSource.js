'use client';
import { useConnection } from './useConnection.js';
import { useLive } from './useLive.js';

/** @import { AnyOptions, UseEventSource } from './types.js' */

/**
 * Opens a stream while the component is mounted: `connect` as a hook. Components that share a
 * connection use `SseProvider` and `useEvent`.
 *
 * @example
 * const { status } = useEventSource<Events>({
 *   url: '/events',
 *   ticketUrl: '/api/sse-ticket',
 *   eventHandlers: { order: (order) => show(order) },
 *   onGap: () => reload(),
 * });
 *
 * @type {UseEventSource}
 */
export const useEventSource = (/** @type {AnyOptions} */ options) =>
  useConnection(useLive(options));
