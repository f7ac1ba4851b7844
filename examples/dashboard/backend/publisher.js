// Publishes durably through Redis, and keeps each user's desk as of the last event published.
import { Redis } from 'ioredis';
import { apply, emptyDesk } from '../shared/desk.js';
import { TOPIC, USERS, happen, visitors } from './shop.js';

export class Publisher {
  #redis;
  #desks = new Map(USERS.map(({ id }) => [id, emptyDesk()]));
  #cursor = '';
  #step = 0;

  constructor(url) {
    // A publish that cannot be sent fails, and the caller hears of it; ioredis comes back by itself.
    this.#redis = new Redis(url, { maxRetriesPerRequest: 1 });
    this.#redis.on('error', () => { /* the calls fail by themselves */ });
  }

  /** To one user, or to `all`; as many times. Null if there is no such user or type. */
  async publish(to, type, count = 1) {
    if (to !== 'all' && !this.#desks.has(to)) return null;
    const payloads = Array.from({ length: count }, () => happen(type, to));
    if (payloads.includes(null)) return null;
    return Promise.all(payloads.map((payload) => this.#send(to, type, payload)));
  }

  /** A point for every user's chart. */
  async tick() {
    this.#step += 1;
    await Promise.all(USERS.map(({ id }, place) => this.#send(id, 'visitors', visitors(place, this.#step))));
  }

  /**
   * A user's desk, and the id up to which it is complete: a stream from there on misses nothing and doubles nothing.
   * (One connection to Redis, so its answers come in the order of the ids. With several backends, read both from one transaction.)
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
