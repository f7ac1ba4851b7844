// The stream of a mounted component. Effects open and close it, renders read it.
import { connect } from '../src/index.js';
import { nextFrame } from './frame.js';

/** @import { Stream } from '../src/types.js' */
/** @import { EventSourceOptions, Status } from './types.js' */

export class Live {
  /** @type {Stream | null} */
  #stream = null;
  /** The active effect. @type {object | null} */
  #effect = null;
  /** The effect whose stream opens in the next microtask. @type {object | null} */
  #pendingEffect = null;
  /** Event names with a handler, and how to remove it. @type {Map<string, () => void>} */
  #names = new Map();
  /** @type {Set<() => void>} */
  #watchers = new Set();
  /** URL and last event id of the previous stream. */
  #previous = { url: '', id: /** @type {string | undefined} */ (undefined) };
  #idIsShown = false;
  #frameIsPending = false;
  /** @type {{ readonly status: Status, readonly reconnectCount: number }} */
  #state;
  #latest;

  /**
   * @param {{ readonly current: EventSourceOptions }} latest options of the latest render
   * @param {Status} status status until the first effect
   */
  constructor(latest, status) {
    this.#latest = latest;
    this.#state = { status, reconnectCount: 0 };
  }

  /** For useSyncExternalStore. @param {() => void} watcher */
  watch = (watcher) => {
    this.#watchers.add(watcher);
    return () => { this.#watchers.delete(watcher); };
  };

  state = () => this.#state;

  /**
   * Current id. Reading it makes the component re-render when the id changes, at most once per
   * frame.
   */
  get lastEventId() {
    this.#idIsShown = true;
    return this.#stream?.lastEventId ?? this.#previous.id;
  }

  /** Opens the stream. The returned function closes it. */
  open() {
    const effect = {};
    this.#effect = this.#pendingEffect = effect;
    // Strict mode ends the first of two effects before the microtask runs: one connection, one
    // ticket.
    queueMicrotask(() => { if (this.#pendingEffect === effect) this.#start(); });
    return () => {
      this.#effect = null;
      this.#stop();
    };
  }

  /** Shows `closed` while no stream is wanted. */
  disable() { this.#change('closed'); }

  /** Reconnects immediately, also after `close`. */
  reconnect = () => {
    if (this.#stream) this.#stream.reconnect();
    else if (this.#effect) this.#start();
  };

  /** Closes the stream until `reconnect` or the next effect. */
  close = () => {
    this.#stop();
    this.disable();
  };

  /** Adds and removes handlers to match the event names of the latest render. */
  updateNames() {
    const stream = this.#stream;
    if (!stream) return;
    const wanted = new Set(Object.keys(this.#latest.current.eventHandlers ?? {}));
    for (const [name, off] of this.#names) {
      if (wanted.has(name)) continue;
      off();
      this.#names.delete(name);
    }
    for (const name of wanted) {
      if (this.#names.has(name)) continue;
      this.#names.set(name, stream.on(name, (data, event) => {
        this.#scheduleIdChange();
        this.#latest.current.eventHandlers?.[name]?.(data, event);
      }));
    }
  }

  #start() {
    this.#pendingEffect = null;
    const latest = this.#latest;
    const options = latest.current;
    if (this.#previous.url !== options.url) {
      this.#previous = { url: options.url, id: options.lastEventId };
    }
    const ticket = options.ticket && (() => latest.current.ticket?.() ?? null);
    /** @type {Stream} */
    let stream;
    try {
      stream = connect({ ...options, lastEventId: this.#previous.id, ticket });
    } catch (error) {
      // Invalid options, such as a url that is not known yet. A later render may provide valid
      // ones.
      this.#report(/** @type {Error} */ (error));
      this.disable();
      return;
    }
    this.#stream = stream;
    stream.onState((status) => {
      if (this.#stream === stream) this.#change(status, stream.reconnectCount);
    });
    stream.onGap((gap) => latest.current.onGap?.(gap));
    stream.onSnapshot((snapshot) => latest.current.onSnapshot?.(snapshot));
    stream.onError((error) => this.#report(error));
    // These advance the id while there are no events.
    for (const name of ['sse.connected', 'sse.heartbeat']) {
      stream.on(name, () => this.#scheduleIdChange());
    }
    this.updateNames();
    this.#change(stream.state, stream.reconnectCount);
  }

  /** @param {Error} error */
  #report(error) {
    const { onError } = this.#latest.current;
    if (onError) onError(error);
    else console.warn(error);
  }

  #stop() {
    this.#pendingEffect = null;
    const stream = this.#stream;
    if (!stream) return;
    this.#stream = null;
    this.#previous.id = stream.lastEventId;
    this.#names.clear();
    stream.close();
  }

  /** @param {Status} status */
  #change(status, reconnectCount = this.#state.reconnectCount) {
    if (status === this.#state.status && reconnectCount === this.#state.reconnectCount) return;
    this.#state = { status, reconnectCount };
    this.#notify();
  }

  #scheduleIdChange() {
    if (!this.#idIsShown || this.#frameIsPending) return;
    this.#frameIsPending = true;
    nextFrame(() => {
      this.#frameIsPending = false;
      this.#state = { ...this.#state };
      this.#notify();
    });
  }

  #notify() { for (const watcher of this.#watchers) watcher(); }
}
