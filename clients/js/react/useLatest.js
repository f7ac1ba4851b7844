'use client';
import { useSyncExternalStore } from 'react';
import { useProvided } from './context.js';
import { NONE } from './retainedValues.js';

/** @import { UseLatest } from './types.js' */

/**
 * The current value of a key that the backend publishes with `KEEP`: a price, a counter, a status.
 * It is there as soon as the stream begins, also in components that are mounted later. Without
 * `key`: all values of the channel. The channel must be in `retained` of the `SseProvider`.
 *
 * The component re-renders when the value changes, at most once per frame.
 *
 * @example
 * <SseProvider url="/events" ticketUrl="/api/sse-ticket" retained={{
 *   'broadcast:prices': { events: ['price'], forgets: ['delisted'], key: ({ symbol }) => symbol },
 * }}>
 *
 * const btc = useLatest<Price>('broadcast:prices', 'btc'); // Price | undefined
 * const prices = useLatest<Price>('broadcast:prices'); // ReadonlyMap<string, Price>
 *
 * @type {UseLatest}
 */
export const useLatest = (/** @type {[channel: string, key?: string]} */ ...[channel, key]) => {
  const { values, channels } = useProvided('useLatest');
  if (!channels.includes(channel)) {
    throw new Error(`useLatest: ${channel} is not in \`retained\` of the <SseProvider>`);
  }
  const value = () => {
    const all = values.of(channel);
    return key === undefined ? all : all.get(key);
  };
  return useSyncExternalStore(values.watch, value, () => (key === undefined ? NONE : undefined));
};
