/** @import { State } from './types.js' */

/**
 * What the next step depends on.
 * @typedef {object} Model
 * @property {State} state
 * @property {number} failures SSE connects in a row that brought no answer
 * @property {number} tries failures of any kind in a row, for the back-off
 */

/**
 * - `connected`: SSE has said `sse.connected`
 * - `answered`: a poll was answered
 * - `lost`: what worked has ended, or the gateway was busy: no failure
 * - `failed`: an SSE connect brought no answer
 * - `slow`: an SSE connect has had no answer for so long that streams are held to be blocked
 * - `hitch`: no ticket, or a poll that failed
 * @typedef {'connected' | 'answered' | 'lost' | 'failed' | 'slow' | 'hitch' | 'closed'} Input
 */

/** @type {Readonly<Model>} */
export const START = { state: 'connecting', failures: 0, tries: 0 };

/**
 * The only place that decides on states and counts.
 * @param {Readonly<Model>} model
 * @param {Input} input
 * @param {number} limit so many failures start polling
 * @returns {Model}
 */
export function step({ state, failures, tries }, input, limit) {
  // For good, whatever was on its way.
  if (state === 'closed') return { state, failures, tries };
  if (input === 'connected') return { state: 'open', failures: 0, tries: 0 };
  if (input === 'answered') return { state: 'polling', failures, tries: 0 };
  if (input === 'slow') return { state, failures: Math.max(failures, limit), tries };
  if (input === 'closed') return { state: 'closed', failures, tries };
  return {
    state: state === 'connecting' ? state : 'reconnecting',
    failures: failures + Number(input === 'failed'),
    tries: tries + Number(input !== 'lost'),
  };
}
