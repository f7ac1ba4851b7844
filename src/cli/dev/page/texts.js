// Texts for the gateway's system events, by reason.

export const GAPS = {
  expired:
    'Events may be missing: the page was disconnected for longer than the history retains events.',
  trimmed:
    'Events are missing: the history no longer contains the position where this page stopped.',
  reset:
    'Events may be missing: Redis lost data or was restored to an earlier state. ' +
    'The stream continues from now.',
  unrecorded: 'Events may be missing: plain PUBLISH messages were temporarily not recorded.',
  'unknown-id': 'The last event id is unknown to this gateway. The stream continues from now.',
};
export const BUSY = {
  full: 'The gateway has reached its connection limit. The browser retries automatically.',
  'user-full': 'This user has reached the connection limit. The browser retries automatically.',
  'too-often':
    'Too many connections were opened in a short time. The browser retries automatically.',
  'keys-away':
    'The gateway cannot fetch the keys that verify tickets. The browser retries automatically.',
  'redis-away': 'The gateway is not connected to Redis. The browser retries automatically.',
  draining: 'The gateway is shutting down. The browser retries automatically.',
};
export const CLOSING = {
  draining: 'The gateway is shutting down. The browser reconnects automatically.',
  'max-age': 'The stream has reached its maximum age. The browser reconnects automatically.',
  'session-over': 'The session has expired. The page requests a new ticket.',
  'taken-over': 'Another connection is using the same ticket.',
  revoked: 'The session was revoked.',
};
