'use client';
import { useEffect } from 'react';
import { useProvided } from './context.js';
import { useLatestRef } from './useLatestRef.js';

/** @import { Handler } from '../src/types.js' */
/** @import { UseEvent } from './types.js' */

/**
 * Calls the handler for every event of a name on the stream of the nearest `SseProvider`, once and
 * in order, while the component is mounted. The handler may change between renders. `*` covers all
 * names that are known; the gateway's own events (`sse.…`) have handlers, too.
 *
 * @example
 * useEvent('order', (order, { id, retained }) => show(order)); // typed by `Register`
 * useEvent<Events>('order', (order: Order) => show(order));
 *
 * @type {UseEvent}
 */
export const useEvent = (/** @type {string} */ type, /** @type {Handler} */ handler) => {
  const { live } = useProvided('useEvent');
  const latest = useLatestRef(handler);
  useEffect(
    () => live.on(type, (data, event) => latest.current(data, event)),
    [live, type, latest],
  );
};
