// State from a request, events on top of it, and commands whose result is anticipated.
import { backoff } from '../src/backoff.js';
import { nextFrame } from './frame.js';
import { withTimeout } from './timeout.js';

/** @import { StreamEvent } from '../src/types.js' */
/** @import { Live } from './live.js' */
/** @import { AnyHybridOptions, PendingCommand } from './types.js' */
/**
 * @typedef {object} HybridState
 * @property {any} data
 * @property {any} error
 * @property {any} commandError
 * @property {boolean} isLoading
 * @property {readonly PendingCommand<any>[]} pending
 */

/** Delays between failed loads, in ms. */
const DELAYS = { retry: 1000, retryMax: 30_000 };
/** Time, in ms, for the event of a command to arrive after the response. */
const CONFIRM_TIMEOUT = 10_000;

/** @type {HybridState} */
const START = {
  data: undefined, error: undefined, commandError: undefined, isLoading: true, pending: [],
};

/** @param {{ data: any }} event @param {{ id: string }} command */
const hasCommandId = ({ data }, { id }) => data?.commandId === id;

const newId = () =>
  globalThis.crypto?.randomUUID?.() ?? `${Date.now()}-${String(Math.random()).slice(2)}`;

export class Hybrid {
  /** What was loaded, with the events since. */
  #base = /** @type {{ state: any } | null} */ (null);
  /** Events since the running load began: its result may be older. */
  #log = /** @type {StreamEvent[]} */ ([]);
  /** The running load; replaced by a later one. @type {AbortController | null} */
  #load = null;
  #failures = 0;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #retryTimer;
  /** Commands without a result yet. */
  #pending = /** @type {(PendingCommand<any> & { isAccepted?: boolean })[]} */ ([]);
  #state = START;
  #watchers = /** @type {Set<() => void>} */ (new Set());
  #cancelFrame = /** @type {(() => void) | null} */ (null);
  #active = /** @type {object | null} */ (null);
  #latest;

  /** @param {{ readonly current: AnyHybridOptions }} latest options of the latest render */
  constructor(latest) { this.#latest = latest; }

  /** For useSyncExternalStore. @param {() => void} watcher */
  watch = (watcher) => {
    this.#watchers.add(watcher);
    return () => { this.#watchers.delete(watcher); };
  };

  state = () => this.#state;

  /**
   * Loads, and follows the stream. What was loaded before the stream began may lack an event, so
   * it is loaded again then.
   * @param {Live} live
   * @returns {() => void} stops
   */
  attach(live) {
    const active = this.#active = {};
    const isConnected = () => ['open', 'polling'].includes(live.state().status);
    let wasConnected = isConnected();
    const offs = [
      live.watch(() => {
        if (wasConnected || !isConnected()) return;
        wasConnected = true;
        this.reload();
      }),
      live.on('sse.gap', () => { this.reload(); }),
      ...Object.keys(this.#latest.current.events ?? {}).map((type) =>
        live.on(type, (_, event) => this.#receive(event))),
    ];
    // Strict mode ends the first of two effects before the microtask runs.
    queueMicrotask(() => { if (this.#active === active && !this.#load) this.reload(); });
    return () => {
      this.#active = null;
      for (const off of offs) off();
      this.#load?.abort();
      this.#load = null;
      clearTimeout(this.#retryTimer);
      this.#cancelFrame?.();
      this.#cancelFrame = null;
    };
  }

  /** Loads the state again. Resolves when it is loaded, or the attempt has failed. */
  reload = async () => {
    if (!this.#active) return;
    clearTimeout(this.#retryTimer);
    this.#load?.abort();
    const load = this.#load = new AbortController();
    this.#log = [];
    const accepted = new Set(this.#pending.filter(({ isAccepted }) => isAccepted));
    /** @type {any} */
    let error;
    try {
      const state = await withTimeout(this.#latest.current.load, load.signal);
      if (this.#load !== load) return;
      this.#base = { state: this.#log.reduce(this.#reduce, state) };
      this.#pending = this.#pending.filter((command) => !accepted.has(command));
      this.#failures = 0;
    } catch (thrown) {
      if (this.#load !== load) return;
      error = thrown;
      const delay = backoff(this.#failures++, DELAYS);
      this.#retryTimer = setTimeout(this.reload, delay);
    }
    this.#load = null;
    this.#publish({ error, isLoading: !this.#base && !error });
  };

  /**
   * Sends a command, and shows its expected result until the event arrives.
   * @param {any} input
   * @returns {Promise<any>} the result of `command`
   */
  send = (input) => {
    const result = this.#send(input);
    result.catch(() => { /* in `commandError` */ });
    return result;
  };

  /** @param {any} input */
  async #send(input) {
    const { command, confirmTimeout = CONFIRM_TIMEOUT } = this.#latest.current;
    if (!command) throw new Error('useHybrid: send() needs the option `command`');
    const pending = { id: newId(), input, isAccepted: false };
    this.#pending = [...this.#pending, pending];
    this.#publish({ commandError: undefined });
    try {
      const result = await command(input, { id: pending.id });
      pending.isAccepted = true;
      // The backend may publish nothing, or the event was lost: the state shows the result.
      if (this.#pending.includes(pending)) {
        setTimeout(() => { if (this.#pending.includes(pending)) this.reload(); }, confirmTimeout);
      }
      return result;
    } catch (error) {
      this.#pending = this.#pending.filter((other) => other !== pending);
      this.#publish({ commandError: error });
      throw error;
    }
  }

  /** @param {StreamEvent} event */
  #receive(event) {
    const { isResult = hasCommandId } = this.#latest.current;
    if (this.#load) this.#log.push(event);
    this.#pending = this.#pending.filter((command) => !isResult(event, command));
    if (this.#base) this.#base = { state: this.#reduce(this.#base.state, event) };
    this.#cancelFrame ??= nextFrame(() => {
      this.#cancelFrame = null;
      this.#publish({});
    });
  }

  /** @param {any} state @param {StreamEvent} event */
  #reduce = (state, event) => {
    const reducer = this.#latest.current.events?.[event.type];
    return reducer ? reducer(state, event.data, event) : state;
  };

  /** @param {Partial<HybridState>} change */
  #publish(change) {
    const { optimistic } = this.#latest.current;
    const data = this.#base && optimistic
      ? this.#pending.reduce(
        (state, { id, input }) => optimistic(state, input, { id }), this.#base.state,
      )
      : this.#base?.state;
    this.#state = { ...this.#state, ...change, data, pending: this.#pending };
    for (const watcher of [...this.#watchers]) watcher();
  }
}
