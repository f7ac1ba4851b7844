import * as vue from 'vue';
import { connectInPage } from '../src/inert.js';
/** @import { ConnectOptions, State, Stream } from '../src/types.js' */

/**
 * A stream whose `state` is a ref. `latest` returns a ref with the data of the latest event of a
 * name. Handlers that a component registers are removed with it.
 * @template {Record<string, any>} [Events=Record<string, any>]
 * @typedef {Omit<Stream<Events>, 'state'> & {
 *   state: Readonly<vue.Ref<State>>,
 *   latest<Type extends keyof Events & string>(
 *     type: Type): Readonly<vue.Ref<Events[Type] | undefined>>,
 *   latest<Type extends keyof Events & string, Initial>(
 *     type: Type, initial: Initial): Readonly<vue.Ref<Events[Type] | Initial>>,
 * }} Sse
 */

const KEY = /** @type {vue.InjectionKey<Sse<any>>} */ (Symbol('@sse-gateway/client'));
const REGISTER = /** @type {const} */ (['on', 'onState', 'onGap', 'onSnapshot', 'onError']);

/**
 * Opens a stream until the component, or the effect scope, ends. Its descendants get it with
 * `useSse`. Server-side rendering opens no connection.
 * @template {Record<string, any>} [Events=Record<string, any>]
 * @param {ConnectOptions} options
 * @returns {Sse<Events>}
 */
export function provideSse(options) {
  const stream = connectInPage(options);
  const state = vue.shallowRef(stream.state);
  stream.onState((/** @type {State} */ now) => { state.value = now; });
  vue.onScopeDispose(stream.close);
  const sse = Object.create(stream, { state: { value: vue.readonly(state) } });
  for (const name of REGISTER) sse[name] = (/** @type {any[]} */ ...args) => {
    const off = stream[name](...args);
    if (vue.getCurrentScope()) vue.onScopeDispose(off);
    return off;
  };
  sse.latest = (/** @type {string} */ type, /** @type {any} */ initial) => {
    const value = vue.shallowRef(initial);
    sse.on(type, (/** @type {any} */ data) => { value.value = data; });
    return value;
  };
  if (vue.getCurrentInstance()) vue.provide(KEY, sse);
  return sse;
}

/**
 * The stream that an ancestor has opened with `provideSse`.
 * @template {Record<string, any>} [Events=Record<string, any>]
 * @returns {Sse<Events>}
 */
export function useSse() {
  const sse = vue.inject(KEY);
  if (!sse) throw new Error('useSse: no ancestor of the component has called provideSse');
  return sse;
}
