// npm `eventsource` with a memory: what came, in order, and a way to await the next.
import { EventEmitter, once } from 'node:events';
import { EventSource } from 'eventsource';
import { within } from './processes.js';

const SYSTEM = ['sse.connected', 'sse.gap', 'sse.busy', 'sse.closing'];

export class Listener extends EventEmitter {
  /** Listens to the named events (and the gateway's own). `all` holds what came, `events` without the gateway's own. */
  static async open(t, url, names) {
    const listener = new Listener();
    listener.all = [];
    listener.source = new EventSource(url);
    t.after(() => listener.source.close());
    for (const name of [...SYSTEM, ...names]) {
      listener.source.addEventListener(name, ({ type, data, lastEventId }) => {
        listener.all.push({ type, data, id: lastEventId });
        listener.emit('came');
      });
    }
    await listener.connected();
    return listener;
  }

  get events() { return this.all.filter(({ type }) => !type.startsWith('sse.')); }
  get gaps() { return this.all.filter(({ type }) => type === 'sse.gap').map(({ data }) => JSON.parse(data)); }

  /** Waits until the stream has been opened `times` times in all. */
  connected(times = 1) { return this.until((all) => all.filter(({ type }) => type === 'sse.connected').length >= times); }
  /** Waits until `count` events are there; they. */
  async got(count) {
    await this.until(() => this.events.length >= count);
    return this.events;
  }

  until(enough) {
    const search = async () => { while (!enough(this.all)) await once(this, 'came'); };
    return within(search(), () => `in vain; so far: ${JSON.stringify(this.all, null, 1)}, state ${this.source.readyState}`);
  }
}

/** Gaps that a test with only durable events must not see: `unrecorded` speaks of bare ones, and says "may". */
export const told = (gaps) => gaps.filter(({ reason }) => reason !== 'unrecorded');

/** Ascending and each only once: the ids of a stream. */
export function inOrder(ids) {
  const parts = ids.map((id) => id.split('-').map(Number));
  return parts.every(([ms, seq], place) => place === 0 || ms > parts[place - 1][0] || (ms === parts[place - 1][0] && seq > parts[place - 1][1]));
}
