// npm `eventsource` that records events and can be awaited.
import { EventEmitter, once } from 'node:events';
import { EventSource } from 'eventsource';
import { withTimeout } from './processes.js';

const SYSTEM = ['sse.connected', 'sse.gap', 'sse.busy', 'sse.closing'];

export class Listener extends EventEmitter {
  /**
   * Listens to the named events and the gateway's own. `all` has every event, `events` those
   * without the gateway's own.
   */
  static async open(t, url, names) {
    const listener = new Listener();
    listener.all = [];
    listener.source = new EventSource(url);
    t.after(() => listener.source.close());
    for (const name of [...SYSTEM, ...names]) {
      listener.source.addEventListener(name, ({ type, data, lastEventId }) => {
        listener.all.push({ type, data, id: lastEventId });
        listener.emit('received');
      });
    }
    await listener.connected();
    return listener;
  }

  get events() {
    return this.all.filter(({ type }) => !type.startsWith('sse.'));
  }
  get gaps() {
    return this.all.filter(({ type }) => type === 'sse.gap').map(({ data }) => JSON.parse(data));
  }

  /** Waits until the stream has been opened `times` times in total. */
  connected(times = 1) {
    return this.until((all) => all.filter(({ type }) => type === 'sse.connected').length >= times);
  }
  /** Waits until there are `count` events, and resolves to them. */
  async got(count) {
    await this.until(() => this.events.length >= count);
    return this.events;
  }

  until(condition) {
    const search = async () => {
      while (!condition(this.all)) await once(this, 'received');
    };
    return withTimeout(
      search(),
      () =>
        `condition not met; state ${this.source.readyState}, ` +
        `events: ${JSON.stringify(this.all, null, 1)}`,
    );
  }
}

/**
 * Gaps that must not occur with durable events. `unrecorded` concerns plain publishes and may
 * occur.
 */
export const relevantGaps = (gaps) => gaps.filter(({ reason }) => reason !== 'unrecorded');

/** The numbers of an id, `<ms>-<seq>.<epoch>`, the most significant first. */
function numbers(id) {
  const [, ms, seq, epoch] = /^(\d+)-(\d+)\.([0-9a-z]+)$/.exec(id);
  return [parseInt(epoch, 36), Number(ms), Number(seq)];
}

/** Whether ids are strictly ascending. */
export function inOrder(ids) {
  return ids.map(numbers).every((id, place, all) => {
    if (place === 0) return true;
    const before = all[place - 1];
    const differs = id.findIndex((number, n) => number !== before[n]);
    return differs >= 0 && id[differs] > before[differs];
  });
}
