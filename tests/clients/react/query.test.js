// The TanStack Query recipe of clients/js/react/README.md keeps loaded and streamed data
// consistent.
import assert from 'node:assert/strict';
import { EventEmitter, once } from 'node:events';
import { test } from 'node:test';
import { until, withTimeout } from '../lib/processes.js';
import { setUp } from './lib.js';

test('TanStack Query recipe keeps the list consistent', async (t) => {
  // Backend whose responses can be held; they contain the state at the time of the request.
  const backend = Object.assign(new EventEmitter(), {
    orders: [{ id: 1, state: 'new' }],
    held: false,
    asked: 0,
  });
  const orders = async () => {
    const answer = structuredClone(backend.orders);
    backend.asked += 1;
    backend.emit('asked');
    if (backend.held) await once(backend, 'release');
    return answer;
  };
  const { client, tab, show, connectionsAre } = await setUp(t, { orders });
  const change = (id, state) => {
    backend.orders = [...backend.orders.filter((order) => order.id !== id), { id, state }];
    return client.fcall('sse_publish', 1, 'user:42:events', 'order', JSON.stringify({ id, state }));
  };
  const list = async (...rows) => {
    await tab.waitForFunction(
      (rows) =>
        JSON.stringify(
          [...document.querySelectorAll('li')].map(({ textContent }) => textContent),
        ) === JSON.stringify(rows) && document.querySelector('ul').dataset.fetching === 'false',
      rows,
    );
  };

  await show('Orders');
  await connectionsAre(1);
  // At mount, and when the stream has begun: nothing is lost afterwards.
  await until(() => backend.asked >= 2, 'no load after the stream has begun');
  await list('1 new');

  const before = backend.asked;
  await change(2, 'new');
  await list('1 new', '2 new');
  await change(1, 'completed');
  await list('2 new', '1 completed');
  assert.equal(backend.asked, before, 'an event caused a request');

  // A gap whose request is pending when the next event arrives.
  backend.held = true;
  const asked = once(backend, 'asked');
  await client.flushall();
  await withTimeout(asked, 'the gap caused no request');
  backend.held = false;
  await change(3, 'new');
  await tab.waitForFunction(() => document.querySelectorAll('li').length === 3);
  backend.emit('release');
  await list('2 new', '1 completed', '3 new');
  assert.ok(backend.asked >= before + 2, `${backend.asked - before} more requests`);
});
