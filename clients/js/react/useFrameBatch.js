import { useEffect, useState } from 'react';
import { nextFrame } from './frame.js';
import { useLatest } from './useLatest.js';

/** More than this is handed over at once, so that a page that draws nothing holds no more. */
const FULL = 10_000;

/**
 * Gathers items and hands them over together, once a frame: a thousand events a second cost sixty renders at most.
 * @template T
 * @param {(items: T[]) => void} handler may change from render to render; called while the component is there
 * @returns {(item: T) => void} adds an item; the same function at every render
 */
export function useFrameBatch(handler) {
  const latest = useLatest(handler);
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
  let gone = false;

  const flush = () => {
    cancel?.();
    cancel = null;
    const all = items;
    items = [];
    if (all.length > 0) handler(all);
  };
  return {
    /** @param {T} item */
    push: (item) => {
      if (gone) return;
      items.push(item);
      if (items.length >= FULL) flush();
      else cancel ??= nextFrame(flush);
    },
    /** The component is there, until the returned function is called (strict mode does so once more). */
    attach: () => {
      gone = false;
      return () => {
        gone = true;
        cancel?.();
        cancel = null;
        items = [];
      };
    },
  };
}
