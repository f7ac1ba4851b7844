// Publishes durably through Redis, and keeps each user's desk up to date with the published events.
import { Redis } from 'ioredis';
import { apply, emptyDesk } from '../shared/desk.js';
import { TOPIC, USERS, simulate, visitors } from './shop.js';

export class Publisher {
  #redis;
  #desks = new Map(USERS.map(({ id }) => [id, emptyDesk()]));
  #cursor = '';
  #step = 0;

  constructor(url) {
    // A publish that cannot be sent fails and rejects; ioredis reconnects by itself.
    this.#redis = new Redis(url, { maxRetriesPerRequest: 1 });
    this.#redis.on('error', () => { /* every call rejects on its own */ });
  }

  /**
   * Publishes `count` events to one user or to `all`. Resolves to their ids, or to null if the user
   * or the type is unknown.
   */
  async publish(to, type, count = 1) {
    if (to !== 'all' && !this.#desks.has(to)) return null;
    const payloads = Array.from({ length: count }, () => simulate(type, to));
    if (payloads.includes(null)) return null;
    return Promise.all(payloads.map((payload) => this.#send(to, type, payload)));
  }

  /** Publishes one chart point to each user. */
  async tick() {
    this.#step += 1;
    await Promise.all(USERS.map(({ id }, index) =>
      this.#send(id, 'visitors', visitors(index, this.#step))));
  }

  /**
   * Returns a user's desk and the id up to which it is complete: a stream that starts there neither
   * misses nor repeats an event. This relies on a single connection to Redis, whose responses
   * arrive in the order of the ids. With several backends, read both in one transaction.
   */
  desk(user) { return { desk: this.#desks.get(user), cursor: this.#cursor }; }

  close() { this.#redis.disconnect(); }

  async #send(to, type, data) {
    const channel = to === 'all' ? `broadcast:${TOPIC}` : `user:${to}:events`;
    const id = await this.#redis.fcall('sse_publish', 1, channel, type, JSON.stringify(data));
    for (const user of to === 'all' ? this.#desks.keys() : [to]) {
      this.#desks.set(user, apply(this.#desks.get(user), { id, type, data }));
    }
    this.#cursor = id;
    return id;
  }
}
