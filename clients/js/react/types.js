// The public types. This module contains no code.

/** @import { ConnectOptions, Gap, Handler, Snapshot, State } from '../src/types.js' */

/** State of a stream; also `closed` while the hook is not enabled. @typedef {State} Status */

/**
 * Options of the hooks, in addition to those of `connect`.
 * @typedef {object} ReactOptions
 * @property {Record<string, Handler>} [eventHandlers] handlers by event name; may change between
 *   renders
 * @property {boolean} [enabled] false: do not connect; true after false: resume where the stream
 *   stopped. Default: true
 * @property {(gap: Gap) => void} [onGap] events may be missing: load the state again from your
 *   backend
 * @property {(snapshot: Snapshot) => void} [onSnapshot] the keys that have a retained value; the
 *   values follow as events. Discard those of other keys
 * @property {(error: Error) => void} [onError] for logs; the stream keeps retrying
 */

/**
 * Options of `useEventSource`.
 * @typedef {ConnectOptions & ReactOptions} EventSourceOptions
 */

/**
 * Transport selection: `sse` only, `polling` only, or `auto`: SSE, and polling if SSE is blocked.
 * @typedef {'auto' | 'sse' | 'polling'} Mode
 */

/**
 * Options of `useResilientRealtime`. `mode` defaults to `auto`.
 * @typedef {Omit<EventSourceOptions, 'polling'> & { mode?: Mode }} RealtimeOptions
 */

/**
 * Result of `useEventSource`.
 * @typedef {object} EventSourceResult
 * @property {Status} status current state
 * @property {number} reconnectCount number of times the connection was lost and re-established
 * @property {string | undefined} lastEventId current id. A component that reads it during rendering
 *   is re-rendered when it changes, at most once per frame
 * @property {() => void} reconnect reconnects immediately, with a new ticket; also after `close`
 * @property {() => void} close closes the stream until `reconnect` is called or an option changes
 *   that opens a new connection
 */

/**
 * Options of `usePresence`.
 * @typedef {object} PresenceOptions
 * @property {Iterable<string>} [initial] ids of the users who are online, as your backend has read
 *   them from `GET /presence`; may arrive later, and replaces the previous ones
 */

/**
 * Result of `usePresence`.
 * @typedef {object} PresenceResult
 * @property {ReadonlySet<string>} online ids of the users who are online; a new set if it changes
 * @property {Record<'sse.online' | 'sse.offline' | 'sse.gap', Handler>} eventHandlers for the
 *   option `eventHandlers` of a hook with a stream; the same object in every render
 */

/**
 * Result of `useResilientRealtime`. `mode` is the current transport.
 * @typedef {EventSourceResult & { mode: 'sse' | 'polling' }} RealtimeResult
 */

export {};
