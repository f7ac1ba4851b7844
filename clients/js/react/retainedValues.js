// The current values of retained keys, for useLatest.
import { nextFrame } from './frame.js';

/** @import { Snapshot, StreamEvent } from '../src/types.js' */
/** @import { Live } from './live.js' */
/** @import { Retained } from './types.js' */

/** No values. @type {ReadonlyMap<string, any>} */
export const NONE = new Map();

/**
 * Whether a list of channels, and patterns that end with `*`, includes a channel.
 * @param {string[]} covers
 * @param {string} channel
 */
export const includes = (covers, channel) => covers.some((pattern) =>
  (pattern.endsWith('*') ? channel.startsWith(pattern.slice(0, -1)) : pattern === channel));

export class RetainedValues {
  /** Values by channel and key; a map is replaced when it changes. */
  #channels = /** @type {Map<string, ReadonlyMap<string, any>>} */ (new Map());
  /** Maps that were replaced since the last frame, and can be changed. */
  #fresh = /** @type {Set<string>} */ (new Set());
  #watchers = /** @type {Set<() => void>} */ (new Set());
  #cancel = /** @type {(() => void) | null} */ (null);
  #url = '';
  #latest;

  /** @param {{ readonly current: Record<string, Retained> }} latest the provider's `retained` */
  constructor(latest) { this.#latest = latest; }

  /**
   * Follows the stream. Another URL is another gateway, with other values.
   * @param {Live} live
   * @param {string} url
   * @returns {() => void} stops
   */
  attach(live, url) {
    if (url !== this.#url) for (const [channel] of this.#channels) this.#change(channel).clear();
    this.#url = url;
    const definitions = Object.values(this.#latest.current);
    const all = definitions.flatMap(({ events, forgets = [] }) => [...events, ...forgets]);
    const names = new Set(all);
    if (!names.size) return () => {};
    const offs = [...names].map((name) =>
      live.on(name, (data, event) => this.#apply(name, data, event)));
    offs.push(live.on('sse.snapshot', (snapshot) => this.#discard(snapshot)));
    return () => {
      for (const off of offs) off();
      this.#cancel?.();
      this.#cancel = null;
    };
  }

  /** For useSyncExternalStore. Called at most once per frame. @param {() => void} watcher */
  watch = (watcher) => {
    this.#watchers.add(watcher);
    return () => { this.#watchers.delete(watcher); };
  };

  /** The values of a channel. @param {string} channel */
  of(channel) {
    // The map is in use from now on.
    this.#fresh.delete(channel);
    return this.#channels.get(channel) ?? NONE;
  }

  /** @param {string} name @param {any} data @param {StreamEvent} event */
  #apply(name, data, event) {
    for (const [channel, definition] of Object.entries(this.#latest.current)) {
      const { events, forgets = [], key } = definition;
      const isValue = events.includes(name);
      if (!isValue && !forgets.includes(name)) continue;
      const found = key(data, event);
      if (found === undefined || found === null) continue;
      if (isValue) this.#change(channel).set(String(found), data);
      else this.#change(channel).delete(String(found));
    }
  }

  /** Discards values that were forgotten while the stream was interrupted. @param {Snapshot} now */
  #discard({ covers, channels }) {
    for (const [channel, values] of this.#channels) {
      if (!includes(covers, channel)) continue;
      const current = new Set(channels[channel]);
      for (const key of values.keys()) if (!current.has(key)) this.#change(channel).delete(key);
    }
  }

  /** The map of a channel, to be changed. @param {string} channel @returns {Map<string, any>} */
  #change(channel) {
    this.#cancel ??= nextFrame(() => {
      this.#cancel = null;
      for (const watcher of this.#watchers) watcher();
    });
    if (!this.#fresh.has(channel)) {
      this.#fresh.add(channel);
      this.#channels.set(channel, new Map(this.#channels.get(channel)));
    }
    return /** @type {Map<string, any>} */ (this.#channels.get(channel));
  }
}
