import { readable } from 'svelte/store';
import { connectInPage } from '../src/inert.js';
/** @import { Readable } from 'svelte/store' */
/** @import { ConnectOptions, Off, State, Stream } from '../src/types.js' */

/**
 * A store with the state of a stream, which is open while the store has subscribers or handlers.
 * `latest` returns a store with the data of the latest event of a name.
 * @template {Record<string, any>} [Events=Record<string, any>]
 * @typedef {Omit<Stream<Events>, 'state' | 'close' | 'reconnectCount'> & Readable<State> & {
 *   latest<Type extends keyof Events & string>(
 *     type: Type): Readable<Events[Type] | undefined>,
 *   latest<Type extends keyof Events & string, Initial>(
 *     type: Type, initial: Initial): Readable<Events[Type] | Initial>,
 * }} Sse
 */

const REGISTER = /** @type {const} */ (['on', 'onState', 'onGap', 'onSnapshot', 'onError']);

/**
 * Creates a stream. It opens with the first subscriber or handler, closes with the last one, and
 * resumes with the next one. Server-side rendering opens no connection.
 * @template {Record<string, any>} [Events=Record<string, any>]
 * @param {ConnectOptions} options
 * @returns {Sse<Events>}
 */
export function createSse(options) {
  let { lastEventId } = options;
  let stream = /** @type {any} */ (undefined);
  // Counts the users of the stream.
  const users = readable(stream, (/** @type {any} */ set) => {
    stream = connectInPage({ ...options, lastEventId });
    set(stream);
    return () => {
      ({ lastEventId } = stream);
      stream = stream.close();
    };
  });
  /** Uses the stream until the returned function is called. @param {() => Off} use */
  const using = (use) => {
    let off = () => {};
    const stop = users.subscribe(() => { off = use(); });
    return () => { off(); stop(); };
  };
  const sse = readable(/** @type {State} */ ('connecting'), (set) => using(() => {
    set(stream.state);
    return stream.onState(set);
  }));
  return Object.defineProperties(/** @type {any} */ ({
    ...sse,
    ...Object.fromEntries(REGISTER.map((name) => [
      name, (/** @type {any[]} */ ...args) => using(() => stream[name](...args)),
    ])),
    latest: (/** @type {string} */ type, /** @type {any} */ initial) =>
      readable(initial, (set) => using(() => stream.on(type, set))),
    reconnect: () => stream?.reconnect(),
  }), { lastEventId: { get: () => stream?.lastEventId ?? lastEventId } });
}
