'use client';
import { useProvided } from './context.js';
import { useConnection } from './useConnection.js';

/** @import { EventSourceResult } from './types.js' */

/**
 * The state of the stream of the nearest `SseProvider`, and how to control it.
 *
 * @example
 * const { status, reconnect } = useSse();
 * if (status === 'signed-out') return <Login onDone={reconnect} />;
 *
 * @returns {EventSourceResult}
 */
export function useSse() {
  return useConnection(useProvided('useSse').live);
}
