// The map: index.js gives users their stream. engine.js keeps one connection alive: source.js is SSE, poll.js a poll, machine.js decides on
// states, backoff.js on waits, presence.js sees the page go and come. handlers.js calls the users' handlers. share/ is one connection for
// all tabs, and is only loaded where that is wanted.
import { run } from './engine.js';
import { handlers } from './handlers.js';
import { listeners } from './listeners.js';
/** @import { Engine, Gap, ConnectOptions, Settings, Sink, State, Stream } from './types.js' */

export * from './types.js';

/** Timers hold no more than 2^31 ms; 2e9 is 23 days. */
const EVER = 2e9;
const DEFAULTS = { polling: true, retry: 1000, retryMax: 30_000, failures: 3, probe: 60_000 };

/**
 * Opens a stream of events that goes on until `close()`: it comes back by itself, with new tickets and where it stopped.
 *
 * @example
 * const stream = connect({ url: 'https://events.example.com/events', ticket: async () => (await (await fetch('/api/sse-ticket', { method: 'POST' })).json()).ticket });
 * stream.on('order-completed', (order) => show(order));
 * stream.onGap(() => reload());
 *
 * @template {Record<string, any>} [Events=Record<string, any>] data by event name
 * @param {ConnectOptions} options
 * @returns {Stream<Events>}
 * @throws {TypeError} without `url` or `ticket`, or if `share` is no name. Whatever fails later goes to `onError`, and is tried again
 */
export function connect(options) {
  if (!options?.url || typeof options.ticket !== 'function') throw new TypeError('connect() needs { url, ticket: () => … }');
  // Everyone in a group gets the events of whoever's ticket was used: a name for all would give a user's events to the next one.
  if (options.share && typeof options.share !== 'string') throw new TypeError('share: give a name that holds the user, such as `user-${id}`');
  const { heartbeat = 15_000 } = options;
  /** @type {Settings} */
  const settings = usable({ ...DEFAULTS, heartbeat, watchdog: 3 * heartbeat, ...usable(options) });

  const registry = handlers(settings.types);
  const states = /** @type {ReturnType<typeof listeners<[State]>>} */ (listeners());
  const errors = /** @type {ReturnType<typeof listeners<[Error]>>} */ (listeners());
  /** @type {State} */
  let state = 'connecting';
  let { lastEventId } = settings;
  let reconnectCount = 0;
  /** @type {Engine | undefined} */
  let engine;

  /** @type {Sink} */
  const sink = {
    event: registry.call,
    at(id) { lastEventId = id; },
    state(now) {
      if (state === now || state === 'closed') return;
      if (state === 'reconnecting' && now !== 'closed') reconnectCount++;
      state = now;
      states.call(now);
    },
    error(error) {
      if (!errors.call(error)) console.warn('sse-gateway-client:', error);
    },
  };
  const own = () => { engine = run(settings, sink, registry.types()); };
  // Tabs are shared where there are tabs. What it takes is loaded only then.
  if (settings.share && globalThis.document && globalThis.BroadcastChannel) {
    import('./share/member.js').then(({ join }) => {
      if (state !== 'closed') engine = join(settings, sink, registry.types());
    }).catch((error) => {
      sink.error(error);
      if (state !== 'closed') own();
    });
  } else own();

  return {
    /** @param {string} type @param {(data: any, event: any) => void} handler */
    on(type, handler) {
      const off = registry.on(type, handler);
      engine?.listen([type]);
      return off;
    },
    onState: states.add,
    /** @param {(gap: Gap) => void} listener */
    onGap: (listener) => registry.on('sse.gap', listener),
    onError: errors.add,
    reconnect: () => engine?.reconnect(),
    close() {
      engine?.close();
      sink.state('closed');
    },
    get state() { return state; },
    get lastEventId() { return lastEventId; },
    get reconnectCount() { return reconnectCount; },
  };
}

/** Options that are `undefined` count as absent, and a wait for ever (`Infinity`) is one that ends after all. @param {ConnectOptions} options @returns {any} */
const usable = (options) => Object.fromEntries(Object.entries(options)
  .filter(([, value]) => value !== undefined)
  .map(([name, value]) => [name, typeof value === 'number' ? Math.min(value, EVER) : value]));
