import { connect } from './index.js';
/** @import { ConnectOptions } from './types.js' */

const off = () => {};
const register = () => off;

/**
 * `connect` in a page. Without `document`, which is server-side rendering, a stream that never
 * connects: nothing on the server would close it.
 * @param {ConnectOptions} options
 * @returns {any}
 */
export const connectInPage = (options) => (globalThis.document ? connect(options) : {
  on: register,
  onState: register,
  onGap: register,
  onSnapshot: register,
  onError: register,
  reconnect() {},
  close() {},
  state: 'connecting',
  lastEventId: options.lastEventId,
  reconnectCount: 0,
});
