'use client';
import { createContext, useContext } from 'react';

/** @import { Live } from './live.js' */
/** @import { RetainedValues } from './retainedValues.js' */

/**
 * What `SseProvider` provides.
 * @typedef {object} Provided
 * @property {Live} live
 * @property {RetainedValues} values
 * @property {string} url
 * @property {readonly string[]} channels those of the option `retained`
 */

export const SseContext = createContext(/** @type {Provided | null} */ (null));

/**
 * The stream of the nearest `SseProvider`.
 * @param {string} user name of the hook or component that needs it
 * @returns {Provided}
 */
export function useProvided(user) {
  const provided = useContext(SseContext);
  if (!provided) throw new Error(`${user} must be used below an <SseProvider>`);
  return provided;
}
