'use client';
import { useEvent } from './useEvent.js';

/** @import { Gap } from '../src/types.js' */

/**
 * Calls the handler when events may be missing: load the state again from your backend.
 *
 * @example
 * useGap(() => reload());
 *
 * @param {(gap: Gap) => void} handler may change between renders
 */
export function useGap(handler) {
  useEvent('sse.gap', handler);
}
