// Any Redis client can publish: redis-cli, ioredis and redis-py, plain and durable, byte for byte.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { Listener } from './lib/listener.js';
import { run } from './lib/processes.js';
import { Gateway, PYTHON, Redis } from './lib/servers.js';

// Everything that parsing and serialising JSON could change: spacing, numbers, escapes, a duplicate
// key, key order.
const PAYLOADS = [
  String.raw`{ "b" : 1.0,"a":[1e3 , 12345678901234567890,-0.0], ` +
    String.raw`"s":"\u00e9 é \/ \ud83d\ude00 😀", "a" : null }`,
  '"text with \\"quotes\\" and \'quotes\'"',
  '[]',
  'null',
  '0.10',
];
const PUBLISH = fileURLToPath(new URL('python/publish.py', import.meta.url));
const CHANNEL = 'user:42:events';
const envelope = (type, payload) => `{"type":"${type}","payload":${payload}}`;

const PUBLISHERS = {
  'redis-cli': (redis) => ({
    plain: (channel, message) =>
      run('redis-cli', ['-p', String(redis.port), 'PUBLISH', channel, message]),
    durable: async (channel, type, payload) =>
      (
        await run('redis-cli', [
          '-p',
          String(redis.port),
          'FCALL',
          'sse_publish',
          '1',
          channel,
          type,
          payload,
        ])
      ).trim(),
  }),
  ioredis: (redis, t) => {
    const client = redis.client(t);
    return {
      plain: (channel, message) => client.publish(channel, message),
      durable: (channel, type, payload) => client.fcall('sse_publish', 1, channel, type, payload),
    };
  },
  'redis-py': (redis) => {
    const python = (...args) => run(PYTHON, [PUBLISH, redis.url, ...args]);
    return {
      plain: (channel, message) => python('plain', channel, message),
      durable: async (channel, type, payload) =>
        (await python('durable', channel, type, payload)).trim(),
    };
  },
};

for (const [name, publisher] of Object.entries(PUBLISHERS)) {
  test(`${name} publishes payloads byte for byte`, async (t) => {
    const redis = await Redis.start(t);
    const gateway = await Gateway.start(t, { redis });
    await gateway.records();
    const { plain, durable } = publisher(redis, t);
    const listener = await Listener.open(t, gateway.events('42'), ['message', 'order-completed']);
    const expected = [];

    for (const payload of PAYLOADS) {
      await plain(CHANNEL, envelope('order-completed', payload));
      expected.push({ type: 'order-completed', data: payload });
      // Wait for each: the recorder, not the publisher, assigns the order of plain messages.
      await listener.got(expected.length);
    }
    await plain('broadcast:news', 'plain text, not JSON: ünïcödé');
    expected.push({ type: 'message', data: 'plain text, not JSON: ünïcödé' });
    await listener.got(expected.length);

    for (const payload of [...PAYLOADS, 'two\nlines']) {
      const id = await durable(CHANNEL, 'order-completed', payload);
      expected.push({ type: 'order-completed', data: payload, id });
    }
    const events = await listener.got(expected.length);
    assert.deepEqual(
      events.map(({ type, data }) => ({ type, data })),
      expected.map(({ type, data }) => ({ type, data })),
    );
    assert.deepEqual(
      events.slice(PAYLOADS.length + 1).map(({ id }) => id),
      expected.slice(PAYLOADS.length + 1).map(({ id }) => id),
    );
    assert.ok(events.every(({ id }) => id), 'a recorded event has no id');
    assert.deepEqual(listener.gaps, []);
  });
}
