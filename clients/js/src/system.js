/**
 * Whether a name is one of the gateway's own events about the connection. Presence events
 * (`sse.online`, `sse.offline`) are stored and repeated like those of publishers.
 * @param {string} type
 */
export const isSystem = (type) =>
  type.startsWith('sse.') && type !== 'sse.online' && type !== 'sse.offline';
