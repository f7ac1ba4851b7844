/** @import { State } from './types.js' */

/**
 * State of a connection, and the counters that decide what happens next.
 * @typedef {object} Model
 * @property {State} state
 * @property {number} failures consecutive SSE connection attempts without a response
 * @property {number} tries consecutive failures of any kind, for the back-off
 */

/**
 * - `connected`: SSE received `sse.connected`
 * - `answered`: a poll succeeded
 * - `lost`: a working connection ended, or the gateway was busy; not a failure
 * - `failed`: an SSE connection attempt got no response
 * - `slow`: an SSE connection attempt got no response for so long that streams count as blocked
 * - `error`: a ticket request or a poll failed
 * - `signed-out`: the ticket endpoint refused the user
 * - `restarted`: the user reconnects a stream that was signed out
 * - `closed`: the user closed the stream
 * @typedef {'connected' | 'answered' | 'lost' | 'failed' | 'slow' | 'error' | 'signed-out'
 *   | 'restarted' | 'closed'} Input
 */

/** @type {Readonly<Model>} */
export const START = { state: 'connecting', failures: 0, tries: 0 };

/**
 * Computes the next model. All decisions about states and counters are made here.
 * @param {Readonly<Model>} model
 * @param {Input} input
 * @param {number} limit number of failures that starts polling
 * @returns {Model}
 */
export function step({ state, failures, tries }, input, limit) {
  // Final, whatever is still in flight.
  if (state === 'closed') return { state, failures, tries };
  if (input === 'restarted' || input === 'signed-out' || input === 'closed') {
    return { state: input === 'restarted' ? 'connecting' : input, failures, tries: 0 };
  }
  if (state === 'signed-out') return { state, failures, tries };
  if (input === 'connected') return { state: 'open', failures: 0, tries: 0 };
  if (input === 'answered') return { state: 'polling', failures, tries: 0 };
  if (input === 'slow') return { state, failures: Math.max(failures, limit), tries };
  return {
    state: state === 'connecting' ? state : 'reconnecting',
    failures: failures + Number(input === 'failed'),
    tries: tries + Number(input !== 'lost'),
  };
}
