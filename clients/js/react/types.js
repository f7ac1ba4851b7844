// The types that users see. Nothing here runs.

/** @import { ConnectOptions, Gap, Handler, State } from '../src/types.js' */

/** Where a stream stands; `closed` also while it is not enabled. @typedef {State} Status */

/**
 * @typedef {object} ReactOptions
 * @property {Record<string, Handler>} [eventHandlers] by the event's name; may change from render to render
 * @property {boolean} [enabled] false: no connection; true again: on from where it stopped. Default true
 * @property {(gap: Gap) => void} [onGap] events may be missing: load the state again from the backend
 * @property {(error: Error) => void} [onError] for logs; the stream goes on trying
 */

/** @typedef {ConnectOptions & ReactOptions} EventSourceOptions */

/**
 * How events come: `sse` alone, `polling` alone, or `auto`: SSE, and polls where it does not get through.
 * @typedef {'auto' | 'sse' | 'polling'} Mode
 */

/** @typedef {Omit<EventSourceOptions, 'polling'> & { mode?: Mode }} RealtimeOptions `mode`: default `auto` */

/**
 * @typedef {object} EventSourceResult
 * @property {Status} status
 * @property {number} reconnectCount how often it was connected again after it was lost
 * @property {string | undefined} lastEventId as it is now; who reads it while rendering is rendered when it moves, once a frame at most
 * @property {() => void} reconnect at once, with a new ticket; also after `close`
 * @property {() => void} close until `reconnect`, or until an option that matters changes
 */

/** @typedef {EventSourceResult & { mode: 'sse' | 'polling' }} RealtimeResult `mode`: how events come at present */

export {};
