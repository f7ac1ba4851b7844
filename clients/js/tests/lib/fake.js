// A gateway that the test plays, and a clock that it winds: nothing here waits for real.
import { connect } from '../../src/index.js';

/** An EventSource under the test's control; all that were made are in `Fake.all`. */
export class Fake {
  static all = [];

  constructor(url) {
    this.url = new URL(url);
    this.readyState = 0;
    this.last = '';
    this.listeners = new Map();
    Fake.all.push(this);
  }

  addEventListener(type, listener) { this.listeners.set(type, [...this.listeners.get(type) ?? [], listener]); }
  close() { this.readyState = 2; }

  /** An event comes. Without an id it repeats the last one, as in browsers. */
  event(type, data = {}, id = '') {
    this.last = id || this.last;
    this.#tell(type, { data: JSON.stringify(data), lastEventId: this.last });
  }

  connected(id) { this.event('sse.connected', { connectionId: 'c' }, id); }

  /** The connection ends; `final`: it gives up. */
  fail(final = true) {
    if (this.readyState === 2) return;
    this.readyState = final ? 2 : 0;
    this.#tell('error', {});
  }

  #tell(type, event) { for (const listener of this.listeners.get(type) ?? []) if (this.readyState !== 2 || type === 'error') listener({ type, ...event }); }

  static get open() { return Fake.all.filter(({ readyState }) => readyState !== 2); }
  static get newest() { return Fake.all.at(-1); }
}

/** What is on its way arrives. */
export const settled = () => new Promise(setImmediate);

/**
 * A stream against the fake: { stream, seen, wind(ms), polls }. `answer`: what polls are answered with, from their number (1, 2, …) on:
 * a list of events `[id, type]`, an error to fail with, or nothing for a poll that is held.
 */
export async function begin(t, { answer = () => undefined, ...options } = {}) {
  t.mock.timers.reset();
  t.mock.timers.enable({ apis: ['setTimeout', 'Date'] });
  Fake.all = [];
  const seen = { events: [], states: [], errors: [], tickets: 0 };
  const polls = [];
  const fetch = (url, { signal }) => new Promise((resolve, reject) => {
    polls.push(new URL(url));
    signal.addEventListener('abort', () => reject(signal.reason));
    const events = answer(polls.length);
    if (events instanceof Error) reject(events);
    else if (events) resolve(Response.json({ events: events.map(([id, type]) => ({ id, type, data: '{}' })), lastEventId: events.at(-1)?.[0] ?? '0-0', gap: null }));
  });
  const stream = connect({ url: 'http://gateway/events', ticket: () => `ticket-${++seen.tickets}`, EventSource: Fake, fetch, lastEventId: '0-0', ...options });
  t.after(() => stream.close());
  stream.onState((state) => seen.states.push(state));
  stream.onError((error) => seen.errors.push(error.message));
  stream.on('a', (_, { id }) => seen.events.push(`a ${id}`));
  await settled();
  /** Lets time go by, in steps in which what it sets off comes to pass. */
  const wind = async (ms, step = 50) => {
    for (let gone = 0; gone < ms; gone += step) {
      t.mock.timers.tick(Math.min(step, ms - gone));
      await settled();
    }
  };
  return { stream, seen, polls, wind };
}
