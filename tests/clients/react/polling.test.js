// usePolling: shared requests, failures, and hidden pages.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { until } from '../lib/processes.js';
import { setUp } from './lib.js';

const texts = (tab, expected) => tab.waitForFunction(
  (expected) => [...document.querySelectorAll('button')].every((b) => b.textContent === expected),
  expected,
);

test('usePolling shares requests and keeps data on failures', async (t) => {
  let requests = 0;
  const { tab, show, state } = await setUp(t, { orders: async () => ++requests });
  // Infinity cannot be passed to the page.
  await show('Polling', { count: 3, pollKey: 'orders', interval: 1e9 });
  await texts(tab, '1 ');
  assert.equal(requests, 1, 'in strict mode, and with three components');
  await tab.click('button');
  await texts(tab, '2 ');
  state.failing = true;
  await tab.click('button');
  await texts(tab, '2 status 500');
  state.failing = false;
  await tab.click('button');
  await texts(tab, '4 ');
  // A component with a shorter interval.
  await show('Polling', { count: 3, pollKey: 'orders', interval: 20 });
  await until(async () => requests > 6, 'it does not poll');
  await show(null);
  await show('Polling', { count: 2, enabled: false });
  await texts(tab, ' ');
});

test('usePolling pauses while the page is hidden', async (t) => {
  let requests = 0;
  const { tab, show } = await setUp(t, { plain: true, orders: async () => ++requests });
  await show('Polling', { interval: 20 });
  await until(async () => requests > 3, 'it does not poll');
  const other = await tab.context().newPage();
  await other.bringToFront();
  const isIdle = () =>
    document.hidden && document.querySelector('button').dataset.fetching === 'false';
  const idle = () => tab.waitForFunction(isIdle, undefined, { polling: 25 });
  // Hidden pages run timers once a second.
  const timer = () =>
    tab.evaluate(() => new Promise((resolve) => { setTimeout(resolve, 100); }));
  await idle();
  // React shows a request a moment after it has begun.
  await timer();
  await idle();
  const before = requests;
  // One that is due, and one after its request.
  for (const _ of [1, 2]) await timer();
  assert.equal(requests, before);
  await other.close();
  await tab.bringToFront();
  await until(async () => requests > before, 'it does not resume');
  assert.deepEqual(tab.consoleErrors, []);
});
