// useHybrid: REST for the state and commands, events for changes.
import assert from 'node:assert/strict';
import { EventEmitter, once } from 'node:events';
import { test } from 'node:test';
import { withTimeout } from '../lib/processes.js';
import { setUp } from './lib.js';

test('useHybrid shows the expected result, then the event', async (t) => {
  const backend = Object.assign(new EventEmitter(), {
    orders: [{ id: 1, state: 'new' }],
    loads: 0,
  });
  const publish = (order) =>
    client.fcall('sse_publish', 1, 'user:42:events', 'order', JSON.stringify(order));
  const { client, tab, show, state, status } = await setUp(t, {
    orders: async () => {
      backend.loads += 1;
      return backend.orders;
    },
    command: async (order) => {
      const released = once(backend, 'release');
      backend.emit('asked');
      await released;
      if (state.failing) return;
      const stored = { ...order, state: 'stored' };
      backend.orders = [...backend.orders.filter(({ id }) => id !== order.id), stored];
      await publish(stored);
    },
  });
  const shows = (...expected) => tab.waitForFunction(
    (expected) => expected === [...document.querySelectorAll('li, output')]
      .map(({ textContent }) => textContent.trim()).join(),
    expected.join(),
  );

  const order = async () => {
    const asked = once(backend, 'asked');
    await tab.click('button');
    await withTimeout(asked, 'the command was not sent');
  };

  await show('Commands');
  await status('open');
  await shows('false', '1 new');
  // At mount (once, although in strict mode), and when the stream has begun.
  assert.ok(backend.loads <= 2, `${backend.loads} loads`);
  await order();
  await shows('true', '1 new', '2 expected');
  await publish({ id: 1, state: 'completed' });
  await shows('true', '1 completed', '2 expected');
  backend.emit('release');
  await shows('false', '1 completed', '2 stored');

  // What failed is withdrawn.
  state.failing = true;
  await order();
  await shows('true', '1 completed', '2 expected');
  backend.emit('release');
  await shows('false status 500', '1 completed', '2 stored');

  // A change without an event, and a gap.
  state.failing = false;
  const before = backend.loads;
  backend.orders = [{ id: 3, state: 'new' }];
  await client.flushall();
  await shows('false status 500', '3 new');
  assert.ok(backend.loads > before);
  assert.equal(await tab.textContent('.connection-status'), 'Connection: Live');
});
