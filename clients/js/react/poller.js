// A fetcher that is called at intervals, shared by all hooks with the same key.
import { backoff } from '../src/backoff.js';
import { offline, presence } from '../src/presence.js';

/** @import { PollingOptions } from './types.js' */
/**
 * @typedef {object} PollingState
 * @property {any} data
 * @property {any} error
 * @property {boolean} isFetching
 */
/** @typedef {{ notify: () => void, options: { readonly current: PollingOptions<any> } }} User */

/** Timeout of a request, in ms. */
const TIMEOUT = 45_000;
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
    const user = [...this.#users].at(-1);
    if (!user) return Promise.resolve();
    clearTimeout(this.#timer);
    this.#set({ isFetching: true });
    return this.#request = this.#fetch(user.options.current.fetcher).then(
      (data) => { this.#finish(0, { data, error: undefined }); },
      (error) => { this.#finish(this.#failures + 1, { error }); },
    );
  }

  /** @param {PollingOptions<any>['fetcher']} fetcher */
  async #fetch(fetcher) {
    const own = new AbortController();
    const { signal } = this.#ended;
    /** @type {Promise<never>} */
    const aborted = new Promise((_, reject) => {
      own.signal.addEventListener('abort', () => reject(own.signal.reason));
    });
    const end = () => own.abort(signal.reason);
    const timer = setTimeout(() => own.abort(new Error('the request timed out')), TIMEOUT);
    signal.addEventListener('abort', end);
    try {
      return await Promise.race([fetcher({ signal: own.signal }), aborted]);
    } finally {
      clearTimeout(timer);
      signal.removeEventListener('abort', end);
    }
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
