// The stream of a mounted component or provider. Effects open and close it, renders read it.
import { connect } from '../src/index.js';
import { nextFrame } from './frame.js';

/** @import { Handler, Stream } from '../src/types.js' */
/** @import { AnyOptions, Status } from './types.js' */
/** @typedef {{ readonly status: Status, readonly reconnectCount: number }} LiveState */
/** A registered handler. @typedef {{ type: string, handler: Handler, off?: () => void }} Entry */

export class Live {
  /** @type {Stream | null} */
  #stream = null;
  /** The active effect. @type {object | null} */
  #effect = null;
  /** The effect whose stream opens in the next microtask. @type {object | null} */
  #pendingEffect = null;
  /** Added to each stream. */
  #handlers = /** @type {Set<Entry>} */ (new Set());
  /** Names in the options that have a handler, and how to remove it. */
  #names = /** @type {Map<string, () => void>} */ (new Map());
  #errors = /** @type {Set<(error: Error) => void>} */ (new Set());
  /** @type {Set<() => void>} */
  #watchers = new Set();
  /** URL and last event id of the previous stream. */
  #previous = { url: '', id: /** @type {string | undefined} */ (undefined) };
  #idIsRead = false;
  #frameIsPending = false;
  /** @type {LiveState} */
  #state;
  /** Replaced with the state, and when the id changes. @type {LiveState} */
  #stateWithId;
  #latest;

  /**
   * @param {{ readonly current: AnyOptions }} latest options of the latest render
   * @param {Status} status status until the first effect
   */
  constructor(latest, status) {
    this.#latest = latest;
    this.#state = this.#stateWithId = { status, reconnectCount: 0 };
  }

  /** For useSyncExternalStore. @param {() => void} watcher */
  watch = (watcher) => {
    this.#watchers.add(watcher);
    return () => { this.#watchers.delete(watcher); };
  };

  state = () => this.#state;

  /** Like `state`; changes with the id as well, at most once per frame. */
  stateWithId = () => {
    this.#idIsRead = true;
    return this.#stateWithId;
  };

  get lastEventId() { return this.#stream?.lastEventId ?? this.#previous.id; }

  /**
   * Registers a handler for this stream and those that replace it.
   * @param {string} type
   * @param {Handler} handler
   * @returns {() => void} removes it
   */
  on(type, handler) {
    /** @type {Entry} */
    const entry = { type, handler };
    this.#handlers.add(entry);
    this.#attach(entry);
    return () => {
      this.#handlers.delete(entry);
      entry.off?.();
    };
  }

  /** @param {(error: Error) => void} listener @returns {() => void} removes it */
  onError(listener) {
    this.#errors.add(listener);
    return () => { this.#errors.delete(listener); };
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
    const { eventHandlers, onMessage } = this.#latest.current;
    const wanted = new Set(Object.keys(eventHandlers ?? {}));
    if (onMessage) wanted.add('message').add('*');
    for (const [name, off] of this.#names) {
      if (wanted.has(name)) continue;
      off();
      this.#names.delete(name);
    }
    for (const name of wanted) {
      if (this.#names.has(name)) continue;
      this.#names.set(name, this.on(name, (data, event) => {
        const { eventHandlers, onMessage } = this.#latest.current;
        eventHandlers?.[name]?.(data, event);
        if (name === '*') onMessage?.(event);
      }));
    }
  }

  /** @param {Entry} entry */
  #attach(entry) {
    entry.off = this.#stream?.on(entry.type, (data, event) => {
      this.#scheduleIdChange();
      entry.handler(data, event);
    });
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
    let wasOpen = false;
    stream.onState((status) => {
      const isOpen = status === 'open' || status === 'polling';
      if (isOpen && !wasOpen) latest.current.onOpen?.();
      wasOpen = isOpen;
    });
    stream.onGap((gap) => latest.current.onGap?.(gap));
    stream.onSnapshot((snapshot) => latest.current.onSnapshot?.(snapshot));
    stream.onError((error) => this.#report(error));
    // These advance the id while there are no events.
    for (const name of ['sse.connected', 'sse.heartbeat']) {
      stream.on(name, () => this.#scheduleIdChange());
    }
    for (const entry of this.#handlers) this.#attach(entry);
    this.#change(stream.state, stream.reconnectCount);
  }

  /** @param {Error} error */
  #report(error) {
    for (const listener of this.#errors) listener(error);
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
    for (const entry of this.#handlers) entry.off = undefined;
    stream.close();
  }

  /** @param {Status} status */
  #change(status, reconnectCount = this.#state.reconnectCount) {
    if (status === this.#state.status && reconnectCount === this.#state.reconnectCount) return;
    this.#state = this.#stateWithId = { status, reconnectCount };
    this.#notify();
  }

  #scheduleIdChange() {
    if (!this.#idIsRead || this.#frameIsPending) return;
    this.#frameIsPending = true;
    nextFrame(() => {
      this.#frameIsPending = false;
      this.#stateWithId = { ...this.#state };
      this.#notify();
    });
  }

  #notify() { for (const watcher of this.#watchers) watcher(); }
}
