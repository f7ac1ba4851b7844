'use client';
import { useInsertionEffect, useRef } from 'react';

/**
 * Returns a ref to the value of the latest committed render (never of a discarded one), so that
 * callbacks can change between renders without being registered again.
 * @template T
 * @param {T} value
 * @returns {{ readonly current: T }}
 */
export function useLatestRef(value) {
  const ref = useRef(value);
  // Runs before all other effects, including those of children.
  useInsertionEffect(() => { ref.current = value; });
  return ref;
}
