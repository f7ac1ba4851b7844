export { ConnectionStatus } from './ConnectionStatus.js';
export { useEventSource } from './useEventSource.js';
export { useFrameBatch } from './useFrameBatch.js';
export { usePresence } from './usePresence.js';
export { useResilientRealtime } from './useResilientRealtime.js';

/** @import * as Types from './types.js' */
/** @typedef {Types.EventSourceOptions} EventSourceOptions */
/** @typedef {Types.EventSourceResult} EventSourceResult */
/** @typedef {Types.Mode} Mode */
/** @typedef {Types.PresenceOptions} PresenceOptions */
/** @typedef {Types.PresenceResult} PresenceResult */
/** @typedef {Types.RealtimeOptions} RealtimeOptions */
/** @typedef {Types.RealtimeResult} RealtimeResult */
/** @typedef {Types.Status} Status */
