'use client';
import { useCallback, useEffect, useState, useSyncExternalStore } from 'react';
import { INITIAL, pollerOf, joinPoller } from './poller.js';
import { useLatestRef } from './useLatestRef.js';

/** @import { PollingOptions, PollingResult } from './types.js' */

/**
 * Calls a fetcher at intervals while the component is mounted: for state that has no events, or
 * while there is no stream. Hooks with the same `key` share requests and data. It pauses while the
 * page is hidden or offline, and after a failure the interval grows.
 *
 * @example
 * const { data, error, refetch } = usePolling<Order[]>({
 *   key: '/api/orders',
 *   fetcher: async ({ signal }) => {
 *     const response = await fetch('/api/orders', { signal });
 *     if (!response.ok) throw new Error(`status ${response.status}`);
 *     return response.json();
 *   },
 *   interval: 5000,
 * });
 *
 * @template Data
 * @param {PollingOptions<Data>} options
 * @returns {PollingResult<Data>}
 */
export function usePolling(options) {
  const { key, enabled = true, interval, pauseWhenHidden } = options;
  const latest = useLatestRef(options);
  const [own] = useState({});
  const id = key ?? own;
  const subscribe = useCallback(
    (/** @type {() => void} */ notify) => joinPoller(id, { notify, options: latest }),
    [id, latest],
  );
  const state = () => pollerOf(id)?.state() ?? INITIAL;
  const { data, error, isFetching } = useSyncExternalStore(subscribe, state, () => INITIAL);
  useEffect(() => pollerOf(id)?.schedule(), [id, enabled, interval, pauseWhenHidden]);
  const refetch = useCallback(async () => pollerOf(id)?.refetch(), [id]);
  return {
    data, error, isFetching, isLoading: enabled && data === undefined && error === undefined,
    refetch,
  };
}
