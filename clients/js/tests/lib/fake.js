// A fake gateway and a fake clock, both controlled by the test: nothing waits in real time.
import { connect } from '../../src/index.js';

/** An EventSource controlled by the test. `Fake.all` has every instance. */
export class Fake {
  static all = [];

  constructor(url, init) {
    this.url = new URL(url);
    this.withCredentials = init?.withCredentials;
    this.readyState = 0;
    this.last = '';
    this.listeners = new Map();
    Fake.all.push(this);
  }

  addEventListener(type, listener) {
    this.listeners.set(type, [...(this.listeners.get(type) ?? []), listener]);
  }
  close() {
    this.readyState = 2;
  }

  /** Delivers an event. Without an id it repeats the last one, as in browsers. */
  event(type, data = {}, id = '') {
    this.last = id || this.last;
    this.#dispatch(type, { data: JSON.stringify(data), lastEventId: this.last });
  }

  connected(id) {
    this.event('sse.connected', { connectionId: 'c' }, id);
  }

  /** Ends the connection. `final`: without a native reconnect. */
  fail(final = true) {
    if (this.readyState === 2) return;
    this.readyState = final ? 2 : 0;
    this.#dispatch('error', {});
  }

  #dispatch(type, event) {
    for (const listener of this.listeners.get(type) ?? [])
      if (this.readyState !== 2 || type === 'error') listener({ type, ...event });
  }

  static get open() {
    return Fake.all.filter(({ readyState }) => readyState !== 2);
  }
  static get newest() {
    return Fake.all.at(-1);
  }
}

/** Resolves after all pending promises have settled. */
export const settled = () => new Promise(setImmediate);

/**
 * Opens a stream to the fake gateway: { stream, seen, advance(ms), polls }. `answer(n)` returns the
 * response to the n-th poll: a list of events `[id, type]`, a whole response, an error, or
 * undefined to keep the poll pending.
 */
export async function openStream(t, { answer = () => undefined, ...options } = {}) {
  t.mock.timers.reset();
  t.mock.timers.enable({ apis: ['setTimeout', 'Date'] });
  Fake.all = [];
  const seen = { events: [], states: [], errors: [], tickets: 0 };
  const polls = [];
  const fetch = (url, { signal, credentials }) => new Promise((resolve, reject) => {
    polls.push(Object.assign(new URL(url), { credentials }));
    signal.addEventListener('abort', () => reject(signal.reason));
    const events = answer(polls.length);
    if (events instanceof Error) reject(events);
    else if (events && !Array.isArray(events)) resolve(Response.json(events));
    else if (events)
      resolve(
        Response.json({
          events: events.map(([id, type]) => ({ id, type, data: '{}' })),
          lastEventId: events.at(-1)?.[0] ?? '0-0.a',
          gap: null,
        }),
      );
  });
  const stream = connect({
    url: 'http://gateway/events',
    ticket: () => `ticket-${++seen.tickets}`,
    EventSource: Fake,
    fetch,
    lastEventId: '0-0.a',
    ...options,
  });
  t.after(() => stream.close());
  stream.onState((state) => seen.states.push(state));
  stream.onError((error) => seen.errors.push(error.message));
  stream.on('a', (_, { id }) => seen.events.push(`a ${id}`));
  await settled();
  /** Advances the clock in steps, and lets promises settle after each. */
  const advance = async (ms, step = 50) => {
    for (let elapsed = 0; elapsed < ms; elapsed += step) {
      t.mock.timers.tick(Math.min(step, ms - elapsed));
      await settled();
    }
  };
  return { stream, seen, polls, advance };
}
