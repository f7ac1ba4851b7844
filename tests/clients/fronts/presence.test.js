// The page goes and comes: offline, frozen, kept in the back-forward cache. It holds no stream meanwhile, and misses nothing.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { got, seen, stand, state, tab, WAITS, whole } from '../lib/front.js';
import { until } from '../lib/processes.js';

const none = (gateway) => until(async () => await gateway.metric('sse_connections') === 0, 'the stream is still open');

test('offline and online again', async (t) => {
  const { gateway, site, context, url, numbers } = await stand(t);
  const page = await tab(context, site, { url, ...WAITS });
  await got(page, await state(page, 'open').then(() => numbers.publish(3)));
  await context.setOffline(true);
  await state(page, 'reconnecting');
  await none(gateway);
  await numbers.publish(3);
  const { tickets } = await seen(page);
  await context.setOffline(false);
  await state(page, 'open');
  const now = await whole(page, await numbers.publish(1));
  assert.deepEqual(now.states, ['open', 'reconnecting', 'open']);
  assert.equal(now.tickets, tickets + 1, 'it tried while there was no network');
  assert.deepEqual(now.errors, []);
});

test('offline from the beginning: nothing is tried until there is a network', async (t) => {
  const { site, context, url, numbers } = await stand(t);
  const page = await tab(context, site);
  await context.setOffline(true);
  await page.waitForFunction(() => !navigator.onLine);
  await page.evaluate((options) => window.start(options), { url, ...WAITS });
  await context.setOffline(false);
  await state(page, 'open');
  const { tickets, errors } = await whole(page, await numbers.publish(1));
  assert.deepEqual([tickets, errors], [1, []]);
});

test('hidden behind another tab: the stream goes on; frozen there: it ends, and goes on when the page is back', async (t) => {
  const { gateway, site, context, url, numbers } = await stand(t, {}, { plain: true });
  const page = await tab(context, site, { url, ...WAITS });
  await state(page, 'open');
  const other = await tab(context, site);
  await other.bringToFront();
  await page.waitForFunction(() => document.hidden, null, { polling: 50 });
  await numbers.publish(3);
  await page.waitForFunction(() => window.seen.events.length === 3, null, { polling: 50 });

  const cdp = await context.newCDPSession(page);
  await cdp.send('Page.setWebLifecycleState', { state: 'frozen' });
  await none(gateway);
  await numbers.publish(3);
  await cdp.send('Page.setWebLifecycleState', { state: 'active' });
  await page.bringToFront();
  await state(page, 'open');
  const { states } = await whole(page, await numbers.publish(1));
  assert.deepEqual(states, ['open', 'reconnecting', 'open']);
});

test('navigated away and brought back from the back-forward cache', async (t) => {
  const { gateway, site, context, url, numbers } = await stand(t, {}, { plain: true });
  const page = await tab(context, site, { url, ...WAITS });
  await got(page, await state(page, 'open').then(() => numbers.publish(3)));
  await page.evaluate(() => window.addEventListener('pageshow', ({ persisted }) => { window.persisted = persisted; }));
  await page.goto(`${site.url}/elsewhere`);
  await none(gateway);
  await numbers.publish(3);
  await page.goBack({ waitUntil: 'commit' });
  await page.waitForFunction(() => window.persisted === true);
  await state(page, 'open');
  const { states } = await whole(page, await numbers.publish(1));
  assert.deepEqual(states, ['open', 'reconnecting', 'open']);
});

test('a browser that does not speak of freezing, only of hiding and showing its pages (Firefox, Safari)', async (t) => {
  const { gateway, site, context, url, numbers } = await stand(t);
  const page = await tab(context, site, { url, ...WAITS });
  await state(page, 'open');
  const say = (name, persisted) => page.evaluate(([name, persisted]) => dispatchEvent(new PageTransitionEvent(name, { persisted })), [name, persisted]);
  await say('pagehide', true);
  await none(gateway);
  await numbers.publish(3);
  await say('pageshow', true);
  await state(page, 'open');
  const { states } = await whole(page, await numbers.publish(1));
  assert.deepEqual(states, ['open', 'reconnecting', 'open']);
});

test('looked at again while it waits for its next try: it tries at once', async (t) => {
  const { site, context, url, numbers } = await stand(t, {}, { plain: true });
  site.refuse = true;
  const page = await tab(context, site, { url, retry: 3_600_000, retryMax: 3_600_000 });
  await page.waitForFunction(() => window.seen.errors.length === 1);
  const other = await tab(context, site);
  await other.bringToFront();
  await page.waitForFunction(() => document.hidden, null, { polling: 50 });
  site.refuse = false;
  await page.bringToFront();
  await state(page, 'open');
  await whole(page, await numbers.publish(1));
});
