import { setTimeout as pause } from 'node:timers/promises';
import { callFunction, Consumer, type RedisClient } from './clients.js';
import { fromRedis, SseError } from './errors.js';
import { channelKey, checkUser, isName, rejectOthers, shown } from './names.js';
import { checkPayload, type Schema, type Schemas } from './schemas.js';
import { checkSecret, sign, type Ticket, type TicketSettings } from './tickets.js';

const FIRST_PAUSE_MS = 50;
const MAX_PAUSE_MS = 500;

export interface SseGatewaySettings<Events = any> extends Partial<TicketSettings> {
  /** A client of ioredis or node-redis, for publishing. */
  redis?: RedisClient | undefined;
  /** `redis.key_prefix` of the gateway. Default: `sse:`. */
  keyPrefix?: string | undefined;
  /** `redis.channel_prefix` of the gateway. Default: none. */
  channelPrefix?: string | undefined;
  /** How long temporary errors are retried, in ms; 0: never. Default: 3000. */
  retryFor?: number | undefined;
  /** Schemas by event name, which payloads must match. Events without a schema are not checked. */
  schemas?: Schemas<Events> | undefined;
}

/** Options of an event. */
export interface PublishOptions {
  /** Idempotency key: a second event with it is dropped, and has the id of the first one. */
  key?: string | undefined;
  /** The event's `retry:`, in ms. */
  retry?: number | undefined;
  /** Keeps the event as the channel's current value for this key. */
  keep?: string | undefined;
  /** Publishes the event, and removes the value that was kept for this key. */
  forget?: string | undefined;
  /** Delivers the event live only: it is not stored and has no id. */
  ephemeral?: boolean | undefined;
  /** Labels for the `filter` of tickets. */
  tags?: Readonly<Record<string, string>> | undefined;
  /** Reports the event as undelivered if the user does not get it within this time (`30s`). */
  unseen?: string | undefined;
  /** The publisher's trace (W3C trace context); an empty text is no trace. */
  traceparent?: string | undefined;
}

/** An event that its user was not handed in time. */
export interface Undelivered {
  /** The entry's id, for `acknowledge`. */
  entry: string;
  channel: string;
  id: string;
  type: string;
  /** As published: usually JSON. */
  payload: string;
}

/** A payload that is published as it is, without JSON serialization. */
export class Raw {
  constructor(readonly text: string) {}
}

/** Returns a payload that is published as it is, for example JSON that you have as a text. */
export const raw = (text: string) => new Raw(text);

/**
 * Publishes events and issues tickets.
 *
 * `Events` maps the names of your events to their payloads.
 */
export class SseGateway<Events = Record<string, unknown>> {
  readonly #settings: SseGatewaySettings;
  readonly #prefix: string;
  readonly #function: string;

  constructor(settings: SseGatewaySettings<Events>) {
    if (settings.secret !== undefined) checkSecret(settings.secret);
    const keyPrefix = settings.keyPrefix ?? 'sse:';
    this.#settings = { ...settings, keyPrefix };
    this.#prefix = settings.channelPrefix ?? '';
    this.#function = `${functionPrefix(keyPrefix)}_publish`;
  }

  /** Signs a ticket for a user that you have authenticated. It is for one connection. */
  ticket(ticket: Ticket): string {
    const { secret } = this.#settings;
    if (secret === undefined) throw new SseError('bad-secret', 'the setting secret is missing');
    return sign(ticket, { ...this.#settings, secret });
  }

  /**
   * Publishes an event on `user:<id>:events` or `broadcast:<topic>`. Resolves to its id, which is
   * empty for an ephemeral event. Rejects with an `SseError`.
   */
  async publish<Type extends keyof Events & string>(
    channel: string,
    type: Type,
    payload: Events[Type] | Raw,
    options: PublishOptions = {},
  ): Promise<string> {
    const key = channelKey(channel, this.#prefix);
    const { schemas } = this.#settings;
    if (!(payload instanceof Raw))
      await checkPayload(schemas as Record<string, Schema> | undefined, type, payload);
    const args = [type, serialize(payload), ...optionArgs(options)];
    return this.#retry(options.key !== undefined, () =>
      callFunction(this.#redis, this.#function, key, args));
  }

  /** Publishes an event for all streams of a user. */
  async publishToUser<Type extends keyof Events & string>(
    user: string, type: Type, payload: Events[Type] | Raw, options: PublishOptions = {},
  ): Promise<string> {
    checkUser(user);
    return this.publish(`user:${user}:events`, type, payload, options);
  }

  /** Publishes an event for all streams whose ticket has the topic. */
  async publishToBroadcast<Type extends keyof Events & string>(
    topic: string, type: Type, payload: Events[Type] | Raw, options: PublishOptions = {},
  ): Promise<string> {
    if (!isName(topic)) throw new SseError('bad-channel', `invalid topic ${shown(topic)}`);
    return this.publish(`broadcast:${topic}`, type, payload, options);
  }

  /**
   * Reads up to `count` undelivered events as `consumer` of a group: first those that another
   * consumer read `idle` ms ago and did not acknowledge, then new ones. Does not wait for events.
   */
  async undelivered(
    group: string, consumer: string, { count = 100, idle = 60_000 } = {},
  ): Promise<Undelivered[]> {
    const found = await this.#retry(true, async () => {
      const reader = this.#consumer(group, consumer);
      await reader.createGroup();
      const claimed = await reader.claim(idle, count);
      return claimed.length > 0 ? claimed : reader.read(count);
    });
    return found.map(([entry, { channel = '', id = '', type = '', payload = '' }]) =>
      ({ entry, channel, id, type, payload }));
  }

  /** Acknowledges undelivered events: no consumer of the group gets them again. */
  async acknowledge(group: string, ...events: Pick<Undelivered, 'entry'>[]): Promise<void> {
    if (events.length === 0) return;
    const entries = events.map(({ entry }) => entry);
    await this.#retry(true, () => this.#consumer(group, '').acknowledge(entries));
  }

  #consumer(group: string, name: string) {
    const stream = `${this.#settings.keyPrefix}undelivered:{${this.#prefix}broadcast}`;
    return new Consumer(this.#redis, stream, group, name);
  }

  get #redis(): RedisClient {
    const { redis } = this.#settings;
    if (!redis) throw new SseError('no-redis', 'the setting redis is missing');
    return redis;
  }

  /**
   * Retries errors that end by themselves. `isRepeatable`: also those that leave it unknown whether
   * the call was executed.
   */
  async #retry<Result>(isRepeatable: boolean, call: () => Promise<Result>): Promise<Result> {
    const end = Date.now() + (this.#settings.retryFor ?? 3000);
    for (let delay = FIRST_PAUSE_MS; ; delay = Math.min(2 * delay, MAX_PAUSE_MS)) {
      try {
        return await call();
      } catch (cause) {
        const error = fromRedis(cause, isRepeatable);
        // Clients that failed together must not retry together.
        const wait = delay * (0.5 + Math.random() / 2);
        if (!error.retriable || Date.now() + wait > end) throw error;
        await pause(wait);
      }
    }
  }
}

/** The gateway names its functions after its key prefix: `shop-1:` becomes `shop_1`. */
function functionPrefix(keyPrefix: string): string {
  const name = keyPrefix.replace(/^[^a-zA-Z0-9]+|[^a-zA-Z0-9]+$/g, '');
  return name.replace(/[^a-zA-Z0-9]/g, '_') || 'sse';
}

function serialize(payload: unknown): string {
  if (payload instanceof Raw) return payload.text;
  let text: string | undefined;
  try {
    text = JSON.stringify(payload);
  } catch (cause) {
    // For example a BigInt, a cycle, or what `toJSON` throws.
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new SseError('bad-payload', `the payload is not JSON: ${reason}`, false, { cause });
  }
  if (text === undefined)
    throw new SseError('bad-payload', `the payload is not JSON (got ${typeof payload})`);
  return text;
}

function optionArgs(options: PublishOptions): string[] {
  const { key, retry, keep, forget, ephemeral, tags, unseen, traceparent, ...others } = options;
  rejectOthers(others);
  const args: string[] = [];
  const add = (name: string, value: string | number | undefined) => {
    if (value !== undefined) args.push(name, String(value));
  };
  add('KEY', key);
  add('RETRY', retry);
  add('KEEP', keep);
  add('FORGET', forget);
  add('UNSEEN', unseen);
  add('TRACE', traceparent || undefined);
  if (ephemeral) args.push('EPHEMERAL');
  const labels = Object.entries(tags ?? {});
  if (labels.length > 0) args.push('TAGS', ...labels.map(([name, value]) => `${name}=${value}`));
  return args;
}
