// The recipe for TanStack Query in clients/js/react/README.md: what was loaded and what is streamed make one true list.
import assert from 'node:assert/strict';
import { EventEmitter, once } from 'node:events';
import { test } from 'node:test';
import { within } from '../lib/processes.js';
import { stand } from './lib.js';

test('TanStack Query: events go into the cache, an answer that is older than an event does not undo it, a gap loads again', async (t) => {
  // The backend: its answers can be held back, and then tell what was true when they were asked for.
  const backend = Object.assign(new EventEmitter(), { orders: [{ id: 1, state: 'new' }], held: false, asked: 0 });
  const orders = async () => {
    const answer = structuredClone(backend.orders);
    backend.asked += 1;
    backend.emit('asked');
    if (backend.held) await once(backend, 'release');
    return answer;
  };
  const { client, tab, show, connectionsAre } = await stand(t, { orders });
  const change = (id, state) => {
    backend.orders = [...backend.orders.filter((order) => order.id !== id), { id, state }];
    return client.fcall('sse_publish', 1, 'user:42:events', 'order', JSON.stringify({ id, state }));
  };
  const list = async (...rows) => {
    await tab.waitForFunction((rows) => JSON.stringify([...document.querySelectorAll('li')].map(({ textContent }) => textContent)) === JSON.stringify(rows)
      && document.querySelector('ul').dataset.fetching === 'false', rows);
  };

  await show('Orders');
  await connectionsAre(1);
  await list('1 new');

  const before = backend.asked;
  await change(2, 'new');
  await list('1 new', '2 new');
  await change(1, 'completed');
  await list('2 new', '1 completed');
  assert.equal(backend.asked, before, 'an event needs no request');

  // A gap; the answer to it is on its way when the next event comes.
  backend.held = true;
  const asked = once(backend, 'asked');
  await client.flushall();
  await within(asked, 'the gap makes no request');
  backend.held = false;
  await change(3, 'new');
  await tab.waitForFunction(() => document.querySelectorAll('li').length === 3);
  backend.emit('release');
  await list('2 new', '1 completed', '3 new');
  assert.ok(backend.asked >= before + 2, `asked ${backend.asked - before} times more`);
});
