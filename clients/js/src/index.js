// Module map. index.js implements the public API. engine.js maintains a connection: source.js is
// SSE, poll.js one poll, machine.js decides about states, backoff.js about delays, and presence.js
// observes the page. handlers.js calls the user's handlers, schema.js checks their data, and
// ticket.js requests tickets. history.js, which is separate, reads
// stored events. share/ implements one connection for
// all tabs and is only loaded on request.
import { startEngine } from './engine.js';
import { handlers } from './handlers.js';
import { listeners } from './listeners.js';
import { ticketFunction } from './ticket.js';
/** @import { Engine, Gap, ConnectOptions, Settings, Sink, State, Stream } from './types.js' */
/** @import { EventSchemas, EventsOf, Snapshot } from './types.js' */

export { SchemaError } from './schema.js';
export { TicketError } from './ticket.js';
export * from './types.js';

/** Maximum duration, in ms: 23 days. Timers are limited to 2^31 ms. */
const LONGEST = 2e9;
const DEFAULTS = { polling: true, retry: 1000, retryMax: 30_000, failures: 3, probe: 60_000 };

/**
 * Opens a stream of events that stays active until `close()`. It reconnects by itself, with new
 * tickets, and resumes where it stopped.
 *
 * @example
 * const stream = connect({
 *   url: 'https://events.example.com/events',
 *   ticketUrl: '/api/sse-ticket', // your backend responds with { "ticket": "…" }
 * });
 * stream.on('order-completed', (order) => show(order));
 * stream.onGap(() => reload());
 *
 * @template {EventSchemas} Schemas
 * @overload
 * @param {ConnectOptions & { schemas: Schemas }} options
 * @returns {Stream<EventsOf<Schemas>>}
 */
/**
 * Opens a stream of events. The type parameter has the data by event name.
 *
 * @example
 * connect<{ order: Order }>({ url: '/events', ticketUrl: '/api/sse-ticket' });
 *
 * @template {Record<string, any>} [Events=Record<string, any>] data by event name
 * @overload
 * @param {ConnectOptions} options
 * @returns {Stream<Events>}
 */
/**
 * @param {ConnectOptions} options
 * @returns {Stream<any>}
 * @throws {TypeError} if `url` is missing, `ticket` is not a function, or `share` is not a string.
 *   Later errors go to `onError` and are retried
 */
export function connect(options) {
  if (!options?.url || typeof (options.ticket ?? connect) !== 'function') {
    throw new TypeError(
      'connect() needs { url, ticketUrl }, { url, ticket: () => … }, or { url } without a ticket',
    );
  }
  // All tabs of a group receive the events of the user whose ticket opened the connection: a common
  // name would deliver one user's events to the next.
  if (options.share && typeof options.share !== 'string') {
    throw new TypeError('share must be a name that contains the user\'s id, such as `user-${id}`');
  }
  const { heartbeat = 15_000, types = [], schemas = {} } = options;
  /** @type {Settings} */
  const settings = normalize({
    ...DEFAULTS, heartbeat, watchdog: 3 * heartbeat, ...normalize(options),
    schemas: undefined, // functions, which a shared worker cannot receive
  });
  settings.ticket = ticketFunction(settings, settings.watchdog);

  const states = /** @type {ReturnType<typeof listeners<[State]>>} */ (listeners());
  const errors = /** @type {ReturnType<typeof listeners<[Error]>>} */ (listeners());
  /** @type {State} */
  let state = 'connecting';
  let { lastEventId } = settings;
  let reconnectCount = 0;
  /** @type {Engine | undefined} */
  let engine;

  /** @param {Error} error */
  const report = (error) => {
    if (!errors.call(error)) console.warn('@sse-gateway/client:', error);
  };
  const registry = handlers([...types, ...Object.keys(schemas)], schemas, report);
  /** @type {Sink} */
  const sink = {
    event: registry.call,
    at(id) { lastEventId = id; },
    state(now) {
      if (state === now || state === 'closed') return;
      if (state === 'reconnecting' && (now === 'open' || now === 'polling')) reconnectCount++;
      state = now;
      states.call(now);
    },
    error: report,
  };
  const startOwn = () => { engine = startEngine(settings, sink, registry.types()); };
  // Sharing needs tabs. Its code is only loaded here.
  if (settings.share && globalThis.document && globalThis.BroadcastChannel) {
    import('./share/member.js').then(({ joinGroup }) => {
      if (state !== 'closed') engine = joinGroup(settings, sink, registry.types());
    }).catch((error) => {
      sink.error(error);
      if (state !== 'closed') startOwn();
    });
  } else startOwn();

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
    /** @param {(snapshot: Snapshot) => void} listener */
    onSnapshot: (listener) => registry.on('sse.snapshot', listener),
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

/**
 * Removes options that are `undefined` and limits durations (`Infinity`) to what timers support.
 * @param {ConnectOptions} options
 * @returns {any}
 */
const normalize = (options) => Object.fromEntries(Object.entries(options)
  .filter(([, value]) => value !== undefined)
  .map(([name, value]) => [name, typeof value === 'number' ? Math.min(value, LONGEST) : value]));
