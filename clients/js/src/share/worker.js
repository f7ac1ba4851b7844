// The shared worker: holds the hub of its group while it has members. One hub a group, whatever runs it: whoever has the lock.
import { openHub } from './hub.js';
/** @import { Begin } from './hub.js' */

/** So long, in ms, the tabs may take to say where to begin. */
const BEGIN = 5000;

/** @type {ReturnType<typeof openHub> | undefined} */
let hub;
let waiting = false;
/** @type {((begin: Begin) => void) | undefined} */
let open;

/**
 * From a tab, first with the name alone; with `begin` once it was told that it is the worker's turn: only then it knows where to begin.
 * @param {{ name: string, from: string, begin?: Begin }} message
 */
function hear({ name, from, begin }) {
  if (!hub && begin) open?.(begin);
  hub?.add(from);
  if (hub || waiting) return;
  waiting = true;
  let end = () => { waiting = false; };
  const work = () => new Promise((/** @type {(value?: undefined) => void} */ resolve) => {
    end = () => {
      clearTimeout(late);
      waiting = false;
      open = hub = undefined;
      end = () => {};
      resolve();
    };
    const late = setTimeout(() => end(), BEGIN);
    open = (begin) => {
      clearTimeout(late);
      open = undefined;
      hub = openHub(begin, () => end());
    };
    const channel = new BroadcastChannel(name);
    channel.postMessage({ kind: 'turn' });
    channel.close();
  });
  // Rejected: a tab has taken the lock away, since this worker had not answered for too long; its hub has heard of that.
  if (navigator.locks) navigator.locks.request(name, work).catch(() => end());
  else work();
}

globalThis.addEventListener('connect', (event) => {
  const [port] = /** @type {MessageEvent} */ (event).ports;
  if (port) port.onmessage = ({ data }) => hear(data);
});
