// The shared worker: runs the hub of its group while the group has members. A group has one hub,
// run by the tab or worker that has the lock.
import { openHub } from './hub.js';
/** @import { HubOptions } from './hub.js' */

/** Time, in ms, for the tabs to report where the hub starts. */
const START_TIMEOUT = 5000;

/** @type {ReturnType<typeof openHub> | undefined} */
let hub;
let waiting = false;
/** @type {((options: HubOptions) => void) | undefined} */
let open;

/**
 * Handles a message from a tab. The first message has only the name. `begin` follows after the
 * tab knows that the worker has the lock, because the tab determines where the hub starts.
 * @param {{ name: string, from: string, begin?: HubOptions }} message
 */
function receive({ name, from, begin }) {
  if (!hub && begin) open?.(begin);
  hub?.add(from);
  if (hub || waiting) return;
  waiting = true;
  let end = () => { waiting = false; };
  /** @param {(value?: undefined) => void} release */
  const hold = (release) => {
    end = () => {
      clearTimeout(timer);
      waiting = false;
      open = hub = undefined;
      end = () => {};
      release();
    };
    const timer = setTimeout(() => end(), START_TIMEOUT);
    open = (options) => {
      clearTimeout(timer);
      open = undefined;
      hub = openHub(options, () => end());
    };
    const channel = new BroadcastChannel(name);
    channel.postMessage({ kind: 'turn' });
    channel.close();
  };
  const work = () => new Promise(hold);
  // Rejected if a tab stole the lock because this worker did not respond for too long. The hub has
  // received the new hub's `hello` by then.
  if (navigator.locks) navigator.locks.request(name, work).catch(() => end());
  else work();
}

globalThis.addEventListener('connect', (event) => {
  const [port] = /** @type {MessageEvent} */ (event).ports;
  if (port) port.onmessage = ({ data }) => receive(data);
});
