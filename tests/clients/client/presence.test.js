// Page lifecycle: offline, frozen, back-forward cache. The page has no stream meanwhile, and misses
// nothing.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { received, seen, setUp, stateIs, tab, DELAYS, expectComplete } from '../lib/application.js';
import { until } from '../lib/processes.js';

const noStream = (gateway) =>
  until(async () => (await gateway.metric('sse_connections')) === 0, 'the stream is still open');

test('stream resumes when the page is online again', async (t) => {
  const { gateway, site, context, url, numbers } = await setUp(t);
  const page = await tab(context, site, { url, ...DELAYS });
  await received(page, await stateIs(page, 'open').then(() => numbers.publish(3)));
  await context.setOffline(true);
  await stateIs(page, 'reconnecting');
  await noStream(gateway);
  await numbers.publish(3);
  const { tickets } = await seen(page);
  await context.setOffline(false);
  await stateIs(page, 'open');
  const now = await expectComplete(page, await numbers.publish(1));
  assert.deepEqual(now.states, ['open', 'reconnecting', 'open']);
  assert.equal(now.tickets, tickets + 1, 'requested tickets while offline');
  assert.deepEqual(now.errors, []);
});

test('page that starts offline waits for the network', async (t) => {
  const { site, context, url, numbers } = await setUp(t);
  const page = await tab(context, site);
  await context.setOffline(true);
  await page.waitForFunction(() => !navigator.onLine);
  await page.evaluate((options) => window.start(options), { url, ...DELAYS });
  await context.setOffline(false);
  await stateIs(page, 'open');
  const { tickets, errors } = await expectComplete(page, await numbers.publish(1));
  assert.deepEqual([tickets, errors], [1, []]);
});

test('hidden page keeps its stream, frozen page resumes', async (t) => {
  const { gateway, site, context, url, numbers } = await setUp(t, {}, { plain: true });
  const page = await tab(context, site, { url, ...DELAYS });
  await stateIs(page, 'open');
  const other = await tab(context, site);
  await other.bringToFront();
  await page.waitForFunction(() => document.hidden, null, { polling: 50 });
  await numbers.publish(3);
  await page.waitForFunction(() => window.seen.events.length === 3, null, { polling: 50 });

  const cdp = await context.newCDPSession(page);
  await cdp.send('Page.setWebLifecycleState', { state: 'frozen' });
  await noStream(gateway);
  await numbers.publish(3);
  await cdp.send('Page.setWebLifecycleState', { state: 'active' });
  await page.bringToFront();
  await stateIs(page, 'open');
  const { states } = await expectComplete(page, await numbers.publish(1));
  assert.deepEqual(states, ['open', 'reconnecting', 'open']);
});

test('page from the back-forward cache resumes', async (t) => {
  const { gateway, site, context, url, numbers } = await setUp(t, {}, { plain: true });
  const page = await tab(context, site, { url, ...DELAYS });
  await received(page, await stateIs(page, 'open').then(() => numbers.publish(3)));
  await page.evaluate(() =>
    window.addEventListener('pageshow', ({ persisted }) => {
      window.persisted = persisted;
    }),
  );
  await page.goto(`${site.url}/elsewhere`);
  await noStream(gateway);
  await numbers.publish(3);
  await page.goBack({ waitUntil: 'commit' });
  await page.waitForFunction(() => window.persisted === true);
  await stateIs(page, 'open');
  const { states } = await expectComplete(page, await numbers.publish(1));
  assert.deepEqual(states, ['open', 'reconnecting', 'open']);
});

test('pagehide and pageshow close and resume the stream', async (t) => {
  const { gateway, site, context, url, numbers } = await setUp(t);
  const page = await tab(context, site, { url, ...DELAYS });
  await stateIs(page, 'open');
  // Firefox and Safari have no freeze events.
  const fire = (name, persisted) =>
    page.evaluate(
      ([name, persisted]) => dispatchEvent(new PageTransitionEvent(name, { persisted })),
      [name, persisted],
    );
  await fire('pagehide', true);
  await noStream(gateway);
  await numbers.publish(3);
  await fire('pageshow', true);
  await stateIs(page, 'open');
  const { states } = await expectComplete(page, await numbers.publish(1));
  assert.deepEqual(states, ['open', 'reconnecting', 'open']);
});

test('page that becomes visible retries immediately', async (t) => {
  const { site, context, url, numbers } = await setUp(t, {}, { plain: true });
  site.refuse = true;
  const page = await tab(context, site, { url, retry: 3_600_000, retryMax: 3_600_000 });
  await page.waitForFunction(() => window.seen.errors.length === 1);
  const other = await tab(context, site);
  await other.bringToFront();
  await page.waitForFunction(() => document.hidden, null, { polling: 50 });
  site.refuse = false;
  await page.bringToFront();
  await stateIs(page, 'open');
  await expectComplete(page, await numbers.publish(1));
});
