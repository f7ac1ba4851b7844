// Python's httpx-sse: receives events, and resumes with Last-Event-ID on another instance.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { relevantGaps } from './lib/listener.js';
import { kill, printed, start } from './lib/processes.js';
import { Gateway, PYTHON, Redis } from './lib/servers.js';

const RECEIVE = fileURLToPath(new URL('python/receive.py', import.meta.url));
const lines = (child) => child.out.split('\n').slice(0, -1).map((line) => JSON.parse(line));

test('httpx-sse resumes on another instance', async (t) => {
  const redis = await Redis.start(t);
  const client = redis.client(t);
  const [first, second] = [await Gateway.start(t, { redis }), await Gateway.start(t, { redis })];
  const publish = (n) =>
    client.fcall('sse_publish', 1, 'user:42:events', 'order-completed', JSON.stringify({ n }));
  const events = (child) => lines(child).filter(({ type }) => type === 'order-completed');
  const got = (count) =>
    printed(receiver, (child) => events(child).length >= count && events(child), `${count} events`);

  const here = first.events('42');
  const receiver = start(PYTHON, [RECEIVE, here, here.replace(first.url, second.url)]);
  t.after(() => kill(receiver));
  await printed(receiver, ({ out }) => out.includes('"sse.connected"'), 'sse.connected');
  const ids = [await publish(1), await publish(2)];
  await got(2);
  await first.crash();
  for (const n of [3, 4, 5]) ids.push(await publish(n));
  const all = await got(5);

  assert.deepEqual(all.map(({ data }) => JSON.parse(data).n), [1, 2, 3, 4, 5]);
  assert.deepEqual(all.map(({ id }) => id), ids);
  assert.deepEqual(
    relevantGaps(
      lines(receiver)
        .filter(({ type }) => type === 'sse.gap')
        .map(({ data }) => JSON.parse(data)),
    ),
    [],
  );
});
