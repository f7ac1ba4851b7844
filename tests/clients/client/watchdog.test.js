// A network that accepts everything and returns nothing: no error, only silence.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  received,
  seen,
  stateSeen,
  setUp,
  stateIs,
  tab,
  DELAYS,
  expectComplete,
} from '../lib/application.js';

for (const polling of [true, false]) {
  test(
    `watchdog replaces a silent stream (polling: ${polling})`,
    { timeout: 120_000 },
    async (t) => {
      const { site, proxy, context, url, numbers } = await setUp(t);
      const page = await tab(context, site, {
        url,
        ...DELAYS,
        heartbeat: 1000,
        watchdog: 5000,
        probe: 500,
        polling,
      });
      await stateIs(page, 'open');
      const flow = numbers.flow(20);
      await received(page, 10);
      proxy.mode = 'swallows';
      await stateSeen(page, 'reconnecting', 1);
      // Further attempts are swallowed as well.
      await proxy.nextRequest('stream');
      proxy.mode = 'through';
      await stateIs(page, 'open');
      const { states, reconnectCount } = await expectComplete(page, await flow.stop());
      // A stream that takes longer than a heartbeat to open is preceded by polls.
      assert.equal(states[states.indexOf('open') + 1], 'reconnecting');
      assert.equal(reconnectCount, 1);
    },
  );
}

test('idle stream with heartbeats stays open', async (t) => {
  const { gateway, site, context, url, numbers } = await setUp(t, { 'server.heartbeat': '300ms' });
  const page = await tab(context, site, { url, ...DELAYS, heartbeat: 6000, watchdog: 6000 });
  await page.evaluate(() => {
    window.beats = 0;
    window.stream.on('sse.heartbeat', () => {
      window.beats++;
    });
    // The id after the event, before the next heartbeat.
    window.stream.on('order-completed', () => queueMicrotask(() => {
      window.idAfter = window.stream.lastEventId;
    }));
  });
  await page.waitForFunction(() => window.beats >= 45); // longer than two watchdog intervals
  await expectComplete(page, await numbers.publish(1));
  const { states, events } = await seen(page);
  assert.deepEqual(states, ['open']);
  const lastEventId = await page.evaluate(() => window.idAfter);
  assert.equal(lastEventId, events[0].id);
  // Heartbeats advance it.
  await page.waitForFunction((id) => window.stream.lastEventId !== id, lastEventId);
  assert.equal(await gateway.metric('sse_connections_opened_total{transport="stream"}'), 1);
});
