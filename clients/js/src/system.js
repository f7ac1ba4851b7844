/** The gateway's own events about the connection. */
export const SYSTEM = [
  'sse.connected', 'sse.heartbeat', 'sse.gap', 'sse.snapshot', 'sse.busy', 'sse.closing',
];
/** The gateway's own events about users. */
export const PRESENCE = ['sse.online', 'sse.offline'];

/**
 * Whether a name is one of the gateway's own events about the connection. Presence events
 * are stored and repeated like those of publishers.
 * @param {string} type
 */
export const isSystem = (type) =>
  type.startsWith('sse.') && !PRESENCE.includes(type);
