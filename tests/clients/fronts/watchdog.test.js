// A network that takes everything and lets nothing back: no error comes, only silence.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { got, seen, shown, stand, state, tab, WAITS, whole } from '../lib/front.js';

for (const polling of [true, false]) {
  test(`an open stream falls silent: the watchdog ends it, and it resumes (polling: ${polling})`, { timeout: 120_000 }, async (t) => {
    const { site, proxy, context, url, numbers } = await stand(t);
    const page = await tab(context, site, { url, ...WAITS, heartbeat: 1000, watchdog: 3000, probe: 500, polling });
    await state(page, 'open');
    const flow = numbers.flow(20);
    await got(page, 10);
    proxy.mode = 'swallows';
    await shown(page, 'reconnecting', 1);
    // The next ones are swallowed as well.
    await proxy.asked('stream');
    proxy.mode = 'through';
    await state(page, 'open');
    const { states, reconnectCount } = await whole(page, await flow.stop());
    assert.equal(states[1], 'reconnecting');
    assert.equal(reconnectCount, 1);
  });
}

test('a stream that is quiet but alive is left alone', async (t) => {
  const { gateway, site, context, url, numbers } = await stand(t, { 'server.heartbeat': '300ms' });
  const page = await tab(context, site, { url, ...WAITS, heartbeat: 1000, watchdog: 2000 });
  await page.evaluate(() => { window.beats = 0; window.stream.on('sse.heartbeat', () => { window.beats++; }); });
  await page.waitForFunction(() => window.beats >= 15); // two watchdogs' time and more
  await whole(page, await numbers.publish(1));
  const { states, lastEventId, events } = await seen(page);
  assert.deepEqual(states, ['open']);
  assert.equal(lastEventId, events[0].id);
  await page.waitForFunction((id) => window.stream.lastEventId !== id, lastEventId); // heartbeats keep it fresh
  assert.equal(await gateway.metric('sse_connections_opened_total{transport="stream"}'), 1);
});
