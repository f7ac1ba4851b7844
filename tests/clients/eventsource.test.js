// The npm package `eventsource`: named events, and resuming on another gateway after a crash.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { inOrder, Listener, relevantGaps } from './lib/listener.js';
import { freePort } from './lib/processes.js';
import { Gateway, Redis } from './lib/servers.js';

test('npm eventsource resumes on another gateway without loss', async (t) => {
  const redis = await Redis.start(t);
  const client = redis.client(t);
  const port = await freePort();
  const first = await Gateway.start(t, { redis, port });
  const listener = await Listener.open(t, first.events('42'), ['order-completed', 'notification']);
  const publish = (n, type = 'order-completed') =>
    client.fcall('sse_publish', 1, 'user:42:events', type, JSON.stringify({ n }));

  const ids = [await publish(1), await publish(2, 'notification')];
  assert.deepEqual(
    (await listener.got(2)).map(({ type }) => type),
    ['order-completed', 'notification'],
  );

  await first.crash();
  for (const n of [3, 4, 5]) ids.push(await publish(n));
  await Gateway.start(t, { redis, port });
  await listener.connected(2);
  ids.push(await publish(6));

  const events = await listener.got(6);
  assert.deepEqual(events.map(({ data }) => JSON.parse(data).n), [1, 2, 3, 4, 5, 6]);
  assert.deepEqual(events.map(({ id }) => id), ids);
  assert.ok(inOrder(ids));
  assert.deepEqual(relevantGaps(listener.gaps), []);
});
