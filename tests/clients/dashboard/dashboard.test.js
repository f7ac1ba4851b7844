// The example dashboard end to end: publishing, rendering, a gateway crash and a flushed Redis.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import http from 'node:http';
import { test } from 'node:test';
import { until, withTimeout } from '../lib/processes.js';
import { counter, live, pane, publish, setUp, unread, value } from './lib.js';

const rows = (tab, user, type) =>
  pane(tab, user).locator(`.feed .entry[data-type=${type}]`).count();

test('publish button reaches its users and counts unread', async (t) => {
  const { tab } = await setUp(t);
  await publish(tab, 'Order', 'Alice');
  await publish(tab, 'Payment', 'Alice');
  await publish(tab, 'Message', 'Bob');
  await publish(tab, 'Order', 'everyone');
  await counter(tab, 'alice', 'order', 2);
  await counter(tab, 'bob', 'order', 1);
  await counter(tab, 'bob', 'message', 1);
  assert.equal(await value(tab, 'alice', 'message'), '0');
  assert.match(await value(tab, 'alice', 'payment'), /^€[1-9]/);
  assert.equal(await value(tab, 'bob', 'payment'), '€0.00');
  assert.equal(await unread(tab, 'alice', 3), '3');
  assert.equal(await unread(tab, 'bob', 2), '2');
  assert.equal(await rows(tab, 'alice', 'order'), 2);

  const bell = pane(tab, 'alice').getByRole('button', { name: /^Notifications/ });
  await bell.click();
  const panel = pane(tab, 'alice').locator('.panel');
  assert.deepEqual(
    await panel
      .locator('.entry')
      .evaluateAll((rows) => rows.map(({ dataset }) => [dataset.type, dataset.unread])),
    [
      ['order', 'true'],
      ['payment', 'true'],
      ['order', 'true'],
    ],
  );
  await bell.click();
  assert.equal(await panel.count(), 0);
  assert.equal(await unread(tab, 'alice', 0), '');
  assert.equal(await unread(tab, 'bob', 2), '2');
  assert.deepEqual(tab.consoleErrors, []);
});

test('invalid events do not break the page', async (t) => {
  const { tab, client } = await setUp(t);
  const invalid = [
    ['order', '{"orderId":7}'],
    ['order', 'null'],
    ['message', '"just text"'],
    ['message', '[]'],
    ['payment', '{"at":1,"order":1,"amount":"9","method":"card"}'],
    ['visitors', '{"at":"noon","count":1}'],
    ['message', '{"at":1e300,"from":"x","text":"y"}'],
  ];
  for (const [type, payload] of invalid)
    await client.fcall('sse_publish', 1, 'user:alice:events', type, payload);
  // Its data tries to override the type and the id.
  await client.fcall(
    'sse_publish',
    1,
    'user:alice:events',
    'message',
    '{"at":1,"from":"x","text":"y","type":"order","id":"z"}',
  );
  await counter(tab, 'alice', 'message', 1);
  assert.equal(await value(tab, 'alice', 'order'), '0');
  assert.equal(await rows(tab, 'alice', 'message'), 1);
  assert.deepEqual(tab.consoleErrors, []);
});

test('invalid request target does not break the backend', async (t) => {
  const { tab, url } = await setUp(t);
  const request = http.get({ port: new URL(url).port, host: '127.0.0.1', path: '//' });
  const [response] = await withTimeout(once(request, 'response'), 'no response');
  assert.equal(response.statusCode, 404);
  await publish(tab, 'Order', 'Alice');
  await counter(tab, 'alice', 'order', 1);
  assert.deepEqual(tab.consoleErrors, []);
});

test('burst is counted while lists stay bounded', async (t) => {
  const { tab } = await setUp(t);
  await publish(tab, '100 at once', 'everyone');
  await publish(tab, '100 at once', 'everyone');
  for (const user of ['alice', 'bob']) {
    await counter(tab, user, 'message', 200);
    assert.equal(await unread(tab, user, 200), '99+');
    assert.equal(await rows(tab, user, 'message'), 50);
  }
});

test('chart grows to sixty points, then scrolls', async (t) => {
  // A slow page has 18 s to load before there are sixty.
  const { tab } = await setUp(t, { tick: 300 });
  const points = () =>
    pane(tab, 'alice')
      .locator('[data-points]')
      .evaluate(({ dataset }) => Number(dataset.points));
  const reach = (least) =>
    tab.waitForFunction(
      (least) =>
        Number(document.querySelector('.pane[data-user=alice] [data-points]').dataset.points) >=
        least,
      least,
    );
  const before = await points();
  assert.ok(before < 60, `${before} points already`);
  await reach(before + 3);
  await reach(60);
  const curve = () => pane(tab, 'alice').locator('.recharts-area-curve').getAttribute('d');
  const drawn = await curve();
  const ticks = () => pane(tab, 'alice').locator('.recharts-xAxis-tick-labels').textContent();
  const old = await ticks();
  await tab.waitForFunction(
    (old) =>
      document.querySelector('.pane[data-user=alice] .recharts-xAxis-tick-labels').textContent !==
      old,
    old,
  );
  assert.notEqual(await curve(), drawn);
  assert.equal(await points(), 60);
});

test('gateway crash is shown and missed events arrive', async (t) => {
  const { tab, gateway, restart } = await setUp(t);
  await publish(tab, 'Order', 'Alice');
  await counter(tab, 'alice', 'order', 1);

  await gateway.crash();
  await tab.waitForFunction(
    () => document.querySelectorAll('.connection-status[data-state=reconnecting]').length === 2,
  );
  await publish(tab, 'Order', 'Alice');
  await publish(tab, 'Order', 'everyone');
  assert.equal(await value(tab, 'alice', 'order'), '1');

  await restart();
  await live(tab);
  await counter(tab, 'alice', 'order', 3);
  await counter(tab, 'bob', 'order', 1);
  await publish(tab, 'Order', 'Alice');
  await counter(tab, 'alice', 'order', 4);
  assert.equal(await unread(tab, 'alice', 4), '4');
  const connectionTitles = await pane(tab, 'alice')
    .locator('.feed .entry[data-type=connection] .title')
    .allTextContents();
  // If the gateway starts slowly, a poll may succeed just before the stream.
  const isPolling = (title) => title.startsWith('Streaming is blocked');
  assert.deepEqual(connectionTitles.filter((title) => !isPolling(title)), [
    'Reconnected and caught up',
    'Connection lost, reconnecting',
  ]);
});

test('loaded and streamed state match after reload and gap', async (t) => {
  const { tab, client } = await setUp(t);
  await publish(tab, '100 at once', 'everyone');
  await publish(tab, 'Message', 'Alice');
  await counter(tab, 'alice', 'message', 101);

  // Between loading the state and starting the streams.
  let release;
  const held = new Promise((resolve) => { release = resolve; });
  await tab.route('**/api/ticket', async (route) => { await held; await route.continue(); });
  await tab.reload();
  await counter(tab, 'alice', 'message', 101);
  await counter(tab, 'bob', 'message', 100);
  await publish(tab, '100 at once', 'everyone');
  release();
  await live(tab);
  await counter(tab, 'alice', 'message', 201);
  await counter(tab, 'bob', 'message', 200);

  const loaded = ['alice', 'bob'].map((user) =>
    tab.waitForResponse((response) => response.url().includes(`/api/desk?user=${user}`)),
  );
  await client.flushall();
  await Promise.all(loaded);
  await publish(tab, 'Message', 'Alice');
  await counter(tab, 'alice', 'message', 202);
  await counter(tab, 'bob', 'message', 200);
});

test('repeated gaps reload at a limited rate', async (t) => {
  const { tab, client } = await setUp(t);
  // The times of the browser: those of this process are late if it is busy.
  const loads = () => tab.evaluate(() =>
    performance.getEntriesByType('resource')
      .filter(({ name }) => name.includes('/api/desk?user=alice'))
      .map(({ startTime }) => startTime));
  await tab.evaluate(() => performance.clearResourceTimings());
  await client.flushall();
  await until(async () => (await loads()).length >= 5, 'a gap did not cause a reload');
  const [first, , , , fifth] = await loads();
  const between = fifth - first;
  assert.ok(between >= 4 * 200, `4 more loads in ${between} ms`);
});

test('browser notifications require permission requested by a click', async (t) => {
  const { tab } = await setUp(t, {
    before: (tab) => tab.addInitScript(() => {
      window.shown = [];
      window.asked = 0;
      window.Notification = class {
        static permission = 'default';
        static async requestPermission() {
          window.asked += 1;
          this.permission = 'granted';
          return 'granted';
        }
        constructor(title, { body }) { window.shown.push([title, body]); }
      };
    }),
  });
  await publish(tab, 'Message', 'Alice');
  await counter(tab, 'alice', 'message', 1);
  assert.deepEqual(await tab.evaluate(() => [window.asked, window.shown.length]), [0, 0]);
  await tab.getByRole('button', { name: 'Turn on browser notifications' }).click();
  await tab.getByRole('button', { name: 'Browser notifications on' }).waitFor();
  await publish(tab, 'Order', 'Bob');
  await tab.waitForFunction(() => window.shown.length > 0);
  const [asked, shown] = await tab.evaluate(() => [window.asked, window.shown]);
  assert.equal(asked, 1);
  assert.equal(shown.length, 1);
  assert.equal(shown[0][0], 'Bob');
  assert.match(shown[0][1], /^Order #\d+: .+ · €\d/);
});
