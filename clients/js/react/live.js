// The stream of one mounted component: opened and closed by its effects, read by its renders.
import { connect } from '../src/index.js';
import { nextFrame } from './frame.js';

/** @import { Stream } from '../src/types.js' */
/** @import { EventSourceOptions, Status } from './types.js' */

export class Live {
  /** @type {Stream | null} */
  #stream = null;
  /** The effect in force; null while there is none. @type {object | null} */
  #run = null;
  /** The effect whose stream is to be opened in a moment. @type {object | null} */
  #due = null;
  /** The names listened to, and how to stop it. @type {Map<string, () => void>} */
  #names = new Map();
  /** @type {Set<() => void>} */
  #watchers = new Set();
  /** The URL of the last stream, and where it stopped. */
  #left = { url: '', id: /** @type {string | undefined} */ (undefined) };
  #idIsShown = false;
  #frameIsDue = false;
  /** @type {{ readonly status: Status, readonly reconnectCount: number }} */
  #state;
  #latest;

  /**
   * @param {{ readonly current: EventSourceOptions }} latest the options of the last render
   * @param {Status} status until the first effect
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

  /** The last id now. Who asks for it is rendered again when it moves, once a frame at most; who never asks, never. */
  get lastEventId() {
    this.#idIsShown = true;
    return this.#stream?.lastEventId ?? this.#left.id;
  }

  /** Opens the stream; what is returned closes it. */
  open() {
    const run = {};
    this.#run = this.#due = run;
    // Strict mode ends the first of two effects before this comes to pass: one connection, one ticket.
    queueMicrotask(() => { if (this.#due === run) this.#start(); });
    return () => {
      this.#run = null;
      this.#stop();
    };
  }

  /** There is to be no stream. */
  rest() { this.#change('closed'); }

  /** Now, without waiting; also after `close`. */
  reconnect = () => {
    if (this.#stream) this.#stream.reconnect();
    else if (this.#run) this.#start();
  };

  /** Until `reconnect`, or until the next effect. */
  close = () => {
    this.#stop();
    this.rest();
  };

  /** Listens to the names that have a handler now, and no more to those that have none. */
  follow() {
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
        this.#changeIdSoon();
        this.#latest.current.eventHandlers?.[name]?.(data, event);
      }));
    }
  }

  #start() {
    this.#due = null;
    const latest = this.#latest;
    const options = latest.current;
    if (this.#left.url !== options.url) this.#left = { url: options.url, id: options.lastEventId };
    /** @type {Stream} */
    let stream;
    try {
      stream = connect({ ...options, lastEventId: this.#left.id, ticket: () => latest.current.ticket() });
    } catch (error) {
      // Options that make no stream, such as a url that is not known yet. Others, at a later render, may.
      this.#fail(/** @type {Error} */ (error));
      this.rest();
      return;
    }
    this.#stream = stream;
    stream.onState((status) => { if (this.#stream === stream) this.#change(status, stream.reconnectCount); });
    stream.onGap((gap) => latest.current.onGap?.(gap));
    stream.onError((error) => this.#fail(error));
    // On a quiet stream these move the id.
    for (const name of ['sse.connected', 'sse.heartbeat']) stream.on(name, () => this.#changeIdSoon());
    this.follow();
    this.#change(stream.state, stream.reconnectCount);
  }

  /** @param {Error} error */
  #fail(error) {
    const { onError } = this.#latest.current;
    if (onError) onError(error);
    else console.warn(error);
  }

  #stop() {
    this.#due = null;
    const stream = this.#stream;
    if (!stream) return;
    this.#stream = null;
    this.#left.id = stream.lastEventId;
    this.#names.clear();
    stream.close();
  }

  /** @param {Status} status */
  #change(status, reconnectCount = this.#state.reconnectCount) {
    if (status === this.#state.status && reconnectCount === this.#state.reconnectCount) return;
    this.#state = { status, reconnectCount };
    this.#tell();
  }

  #changeIdSoon() {
    if (!this.#idIsShown || this.#frameIsDue) return;
    this.#frameIsDue = true;
    nextFrame(() => {
      this.#frameIsDue = false;
      this.#state = { ...this.#state };
      this.#tell();
    });
  }

  #tell() { for (const watcher of this.#watchers) watcher(); }
}
