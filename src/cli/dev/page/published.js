// Reads from the server which events were published, by any client, also while the stream
// is closed.
import { USER, read } from './config.js';
import * as record from './record.js';
import { isNew, listen, receiveStored } from './stream.js';

/** Interval, in ms, between two requests. */
const INTERVAL = 500;
let next = null; // position from which to continue
/** Stored events of names that were new: arguments of `receiveStored`. */
const unread = [];
let running = null;
let again = false;

/** Reads what was published since the last time. Concurrent calls share a request. */
export function readPublished() {
  if (running) again = true;
  running ??= readAll().finally(() => { running = null; });
  return running;
}

async function readAll() {
  do {
    again = false;
    await readOnce();
  } while (again);
}

async function readOnce() {
  const after = next;
  const query = new URLSearchParams({ user: USER, ...(after && { after }) });
  const asked = Date.now();
  const answer = await read('/dev/published?' + query);
  next = answer.next;
  // The clocks of the browser and of the server may differ. The server answered between the two.
  const skew = Math.min(Math.max(answer.now, asked), Date.now()) - answer.now;
  const unknown = new Map(); // channel: new names of events that have not arrived
  for (const event of answer.events) {
    if (event.type.startsWith('sse.')) continue;
    record.published({ ...event, at: event.at + (Math.abs(skew) > 1000 ? skew : 0) });
    listen(event.type);
    if (!isNew(event.type) || record.find(event.id).received) continue;
    unknown.set(event.channel, (unknown.get(event.channel) ?? new Set()).add(event.type));
  }
  // A closed stream replays them, now that their names are known.
  if (record.currentOutage()) return;
  for (const [channel, types] of unknown) unread.push([channel, after, types]);
  for (; unread.length; unread.shift()) await receiveStored(...unread[0]);
}

/** Begins now, and continues while the page is visible. */
export function follow() {
  const attempt = () => readPublished().catch(() => { /* the state of the stream shows it */ });
  const tick = () => { if (!document.hidden) attempt(); };
  setInterval(tick, INTERVAL);
  document.addEventListener('visibilitychange', tick);
  return attempt();
}
