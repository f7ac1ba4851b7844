import { useInsertionEffect, useRef } from 'react';

/**
 * A box that always holds the value of the last render that React kept (never of one that it threw away).
 * So callbacks may change from render to render, and what calls them need not be set up anew.
 * @template T
 * @param {T} value
 * @returns {{ readonly current: T }}
 */
export function useLatest(value) {
  const box = useRef(value);
  // The earliest effect: every other one, of children too, sees the new value already.
  useInsertionEffect(() => { box.current = value; });
  return box;
}
