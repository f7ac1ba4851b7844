'use client';
import { useEffect, useState } from 'react';
import { nextFrame } from './frame.js';
import { useLatestRef } from './useLatestRef.js';

/**
 * Maximum size of a batch. A full batch is passed on immediately, even if the page draws nothing.
 */
const FULL = 10_000;

/**
 * Collects items and passes them to the handler once per frame, so that a thousand events per
 * second cause at most sixty renders.
 *
 * @example
 * const add = useFrameBatch<Trade>((trades) => setRows((all) => [...all, ...trades].slice(-200)));
 * useEvent('trade', (trade) => add(trade));
 *
 * @template T
 * @param {(items: T[]) => void} handler may change between renders; called while the component is
 *   mounted
 * @returns {(item: T) => void} adds an item; the same function in every render
 */
export function useFrameBatch(handler) {
  const latest = useLatestRef(handler);
  const [batch] = useState(() => createBatch((/** @type {T[]} */ items) => latest.current(items)));
  useEffect(() => batch.attach(), [batch]);
  return batch.push;
}

/**
 * @template T
 * @param {(items: T[]) => void} handler
 */
function createBatch(handler) {
  /** @type {T[]} */
  let items = [];
  /** @type {(() => void) | null} */
  let cancel = null;
  let unmounted = false;

  const flush = () => {
    cancel?.();
    cancel = null;
    const batch = items;
    items = [];
    if (batch.length > 0) handler(batch);
  };
  return {
    /** @param {T} item */
    push: (item) => {
      if (unmounted) return;
      items.push(item);
      if (items.length >= FULL) flush();
      else cancel ??= nextFrame(flush);
    },
    /** Marks the component as mounted until the returned function is called. */
    attach: () => {
      unmounted = false;
      return () => {
        unmounted = true;
        cancel?.();
        cancel = null;
        items = [];
      };
    },
  };
}
