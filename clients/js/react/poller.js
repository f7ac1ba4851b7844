// A fetcher that is called at intervals, shared by all hooks with the same key.
import { backoff } from '../src/backoff.js';
import { offline, presence } from '../src/presence.js';
import { withTimeout } from './timeout.js';

/** @import { PollingOptions } from './types.js' */
/**
 * @typedef {object} PollingState
 * @property {any} data
 * @property {any} error
 * @property {boolean} isFetching
 */
/** @typedef {{ notify: () => void, options: { readonly current: PollingOptions<any> } }} User */

/** Maximum delay of a timer, in ms. */
const LONGEST = 2e9;

/** @type {PollingState} */
export const INITIAL = { data: undefined, error: undefined, isFetching: false };

/** By key: a string, or an object of a hook without a key. @type {Map<unknown, Poller>} */
const pollers = new Map();

/** @param {unknown} key */
export const pollerOf = (key) => pollers.get(key);

/**
 * Adds a hook to the poller of a key, which starts with its first and ends with its last hook.
 * @param {unknown} key
 * @param {User} user
 * @returns {() => void} removes the hook
 */
export function joinPoller(key, user) {
  let poller = pollers.get(key);
  if (!poller) pollers.set(key, poller = new Poller(() => { pollers.delete(key); }));
  return poller.add(user);
}

export class Poller {
  /** @type {PollingState} */
  #state = INITIAL;
  #users = /** @type {Set<User>} */ (new Set());
  #failures = 0;
  /** End of the last request, in ms since 1970. */
  #last = 0;
  /** The current request. @type {Promise<void> | undefined} */
  #request;
  /** The request that follows the current one. @type {Promise<void> | undefined} */
  #next;
  /** Ends with the last hook. */
  #ended = new AbortController();
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer;
  #stopPresence;
  #onEnd;

  /** @param {() => void} onEnd called after the last hook has left */
  constructor(onEnd) {
    this.#onEnd = onEnd;
    const resume = () => this.schedule();
    this.#stopPresence = presence({ away: () => {}, back: resume, seen: resume });
  }

  state = () => this.#state;

  /** @param {User} user @returns {() => void} removes it */
  add(user) {
    this.#users.add(user);
    this.schedule();
    return () => {
      this.#users.delete(user);
      // Strict mode adds it again in the same task.
      queueMicrotask(() => {
        if (this.#users.size) this.schedule();
        else this.#end();
      });
    };
  }

  /** Fetches if it is due, and sets the timer otherwise. */
  schedule() {
    clearTimeout(this.#timer);
    const users = this.#enabled();
    if (!users.length || this.#request) return;
    const pause = this.#delay(users);
    // At most the pause: the clock may have been set back.
    const delay = this.#last ? Math.min(this.#last + pause - Date.now(), pause) : 0;
    if (delay > 0) {
      this.#timer = setTimeout(() => this.schedule(), Math.min(delay, LONGEST));
    } else if (!this.#last || !this.#isPaused(users)) this.#start();
  }

  /**
   * Fetches now. A request that has begun may be too old, so another one follows it, for all
   * callers together.
   * @returns {Promise<void>}
   */
  refetch() {
    if (!this.#request) return this.#start();
    return this.#next ??= this.#request.then(() => {
      this.#next = undefined;
      return this.#ended.signal.aborted ? undefined : this.refetch();
    });
  }

  #enabled() {
    return [...this.#users].map(({ options }) => options.current)
      .filter(({ enabled = true }) => enabled);
  }

  /** @param {PollingOptions<any>[]} users */
  #isPaused(users) {
    const hidden = globalThis.document?.hidden
      && users.every(({ pauseWhenHidden = true }) => pauseWhenHidden);
    return hidden || offline();
  }

  /** Delay until the next request. @param {PollingOptions<any>[]} users */
  #delay(users) {
    const retry = Math.min(...users.map(({ interval = 10_000 }) => interval));
    if (!this.#failures) return retry;
    const retryMax = Math.min(...users.map(({ maxInterval = 60_000 }) => maxInterval));
    return backoff(this.#failures, { retry, retryMax: Math.max(retry, retryMax) });
  }

  /** @returns {Promise<void>} */
  #start() {
    // Only `refetch` calls a disabled fetcher, and only if no other one is enabled.
    const options = this.#enabled().at(-1) ?? [...this.#users].at(-1)?.options.current;
    if (!options) return Promise.resolve();
    clearTimeout(this.#timer);
    this.#set({ isFetching: true });
    return this.#request = withTimeout(options.fetcher, this.#ended.signal).then(
      (data) => { this.#finish(0, { data, error: undefined }); },
      (error) => { this.#finish(this.#failures + 1, { error }); },
    );
  }

  /** @param {number} failures @param {Partial<PollingState>} change */
  #finish(failures, change) {
    this.#request = undefined;
    if (this.#ended.signal.aborted) return;
    this.#failures = failures;
    this.#last = Date.now();
    this.#set({ ...change, isFetching: false });
    this.schedule();
  }

  /** @param {Partial<PollingState>} change */
  #set(change) {
    this.#state = { ...this.#state, ...change };
    for (const { notify } of [...this.#users]) notify();
  }

  #end() {
    clearTimeout(this.#timer);
    this.#stopPresence();
    this.#ended.abort(new Error('no component uses it any more'));
    this.#onEnd();
  }
}
