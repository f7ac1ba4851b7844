// curl -N prints the frames in the documented format.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { kill, printed, start } from './lib/processes.js';
import { Gateway, Redis } from './lib/servers.js';

test('curl prints the response head and the frames', async (t) => {
  const redis = await Redis.start(t);
  const client = redis.client(t);
  const gateway = await Gateway.start(t, { redis });
  const curl = start('curl', ['-sS', '-N', '-i', gateway.events('42')]);
  t.after(() => kill(curl));
  const [, head, firstFrame] = await printed(
    curl,
    ({ out }) => out.match(/^(.*?\r\n)\r\n(.*?\n\n)/s),
    'the first frame',
  );
  const match = firstFrame.match(
    /^retry: \d+\nid: (\S+)\nevent: sse\.connected\ndata: (\{.*\})\n\n$/,
  );
  assert.ok(match, firstFrame);
  const { connectionId, ...rest } = JSON.parse(match[2]);
  assert.match(connectionId, /^[0-9a-f-]{36}$/);
  assert.deepEqual(rest, { user: '42', topics: ['*'], resumed: false });

  const one = await client.fcall(
    'sse_publish',
    1,
    'user:42:events',
    'order-completed',
    '{"orderId":7}',
  );
  const two = await client.fcall(
    'sse_publish',
    1,
    'broadcast:news',
    'message',
    'one\rtwo\nthree\r\nfour',
    'RETRY',
    '4000',
  );
  const first = `id: ${one}\nevent: order-completed\ndata: {"orderId":7}\n\n`;
  await printed(curl, ({ out }) => out.endsWith('data: four\n\n'), 'both events');
  const frames = curl.out.slice(head.length + 2 + firstFrame.length);
  assert.ok(frames.startsWith(first), frames);
  const last = frames.slice(first.length).split('\n');
  assert.deepEqual(
    last.filter((line) => line.startsWith('data')),
    ['data: one', 'data: two', 'data: three', 'data: four'],
  );
  assert.ok(last.includes(`id: ${two}`) && last.includes('retry: 4000'), frames);

  for (const line of [
    'http/1.1 200',
    'content-type: text/event-stream',
    'cache-control: no-cache, no-transform',
    'x-accel-buffering: no',
    'referrer-policy: no-referrer',
  ]) {
    assert.ok(head.toLowerCase().includes(line), `${line} in\n${head}`);
  }
});
