'use client';
import { createElement, useEffect, useMemo, useState } from 'react';
import { SseContext } from './context.js';
import { RetainedValues } from './retainedValues.js';
import { useLatestRef } from './useLatestRef.js';
import { useLive } from './useLive.js';

/** @import { AnyOptions, Provider } from './types.js' */

/**
 * Opens one stream for all components below it, while it is mounted. They use it with `useEvent`,
 * `useGap`, `useLatest`, `useHybrid`, `usePresence`, `useSse`, `ConnectionStatus` and
 * `SseDevtools`. It is not re-rendered by events or changes of the state.
 *
 * Give it a `key` with the user's id, so that another user gets another stream.
 *
 * @example
 * <SseProvider key={user.id} url="/events" ticketUrl="/api/sse-ticket" share={`user-${user.id}`}>
 *   <App />
 * </SseProvider>
 *
 * @type {Provider}
 */
export const SseProvider = ({ children, retained = {}, ...options }) => {
  const { url } = options;
  const live = useLive(/** @type {AnyOptions} */ (options));
  const latest = useLatestRef(retained);
  const [values] = useState(() => new RetainedValues(latest));
  const names = JSON.stringify(
    Object.entries(retained).map(([channel, { events, forgets }]) => [channel, events, forgets]),
  );
  useEffect(() => values.attach(live, url), [live, values, url, names]);
  const provided = useMemo(
    () => ({ live, values, url, channels: Object.keys(retained) }),
    [live, values, url, names],
  );
  return createElement(SseContext.Provider, { value: provided }, children);
};
