// Shared connections when the owner hangs, crashes, lags behind or is blocked: no event is lost or
// duplicated.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  received,
  insecure,
  seen,
  stateSeen,
  setUp,
  stateIs,
  tab,
  DELAYS,
  expectComplete,
} from '../lib/application.js';
import { until } from '../lib/processes.js';

// Longer than a slow machine may pause: a new owner has one heartbeat to announce itself.
const WORKER = { share: 'user-42', ...DELAYS, heartbeat: 3000, watchdog: 9000 };
const LEADER = { ...WORKER, SharedWorker: null };
const opened = (gateway) => gateway.metric('sse_connections_opened_total{transport="stream"}');
const connections = (gateway, expected) =>
  until(
    async () => (await gateway.metric('sse_connections')) === expected,
    `number of connections is not ${expected}`,
  );

/**
 * Suspends the owner of the connection, as at a breakpoint, until the returned function is called.
 */
const HANGS = {
  'leading tab': [LEADER, async (context, page) => {
    const cdp = await context.newCDPSession(page);
    await cdp.send('Debugger.enable');
    const paused = new Promise((resolve) => { cdp.once('Debugger.paused', resolve); });
    page
      .evaluate(() => {
        debugger;
      })
      .catch(() => {
        /* the page is closed at the end of the test */
      });
    await paused;
    return () => cdp.send('Debugger.resume');
  }],
  'shared worker': [WORKER, async (context) => {
    const cdp = await context.browser().newBrowserCDPSession();
    const { targetInfos } = await cdp.send('Target.getTargets');
    const { targetId } = targetInfos.find(({ type }) => type === 'shared_worker');
    const { sessionId } = await cdp.send('Target.attachToTarget', { targetId, flatten: false });
    const handlers = new Map();
    cdp.on('Target.receivedMessageFromTarget', ({ message }) =>
      handlers.get(JSON.parse(message).method)?.(),
    );
    const send = (id, method, params) =>
      cdp.send('Target.sendMessageToTarget', {
        sessionId,
        message: JSON.stringify({ id, method, params }),
      });
    const paused = new Promise((resolve) => { handlers.set('Debugger.paused', resolve); });
    await send(1, 'Debugger.enable');
    await send(2, 'Runtime.evaluate', { expression: 'debugger' });
    await paused;
    return () => send(3, 'Debugger.resume');
  }],
};
for (const [what, [options, hang]] of Object.entries(HANGS)) {
  test(`hanging ${what} is replaced and later closes`, { timeout: 120_000 }, async (t) => {
    const { gateway, context, site, url, numbers } = await setUp(t);
    const pages = [];
    for (let i = 0; i < 3; i++) {
      pages.push(await tab(context, site, { url, ...options }));
      await stateIs(pages[i], 'open');
    }
    const others = pages.slice(1);
    for (const page of pages) await received(page, await numbers.publish(2));
    const before = await opened(gateway);
    const resume = await hang(context, pages[0]);
    await numbers.publish(5);
    for (const page of others) {
      await stateSeen(page, 'reconnecting', 1);
      await stateIs(page, 'open');
      await expectComplete(page, numbers.n);
    }
    assert.equal(await opened(gateway), before + 1, 'more than one tab took over');
    const flow = numbers.flow(5);
    await received(others[0], numbers.n + 20);
    await resume();
    await connections(gateway, 1);
    await received(others[0], numbers.n + 20);
    const last = await flow.stop();
    for (const page of pages) await expectComplete(page, last);
  });
}

test('tab without locks and worker has own connection', { timeout: 120_000 }, async (t) => {
  const { context, url, site, numbers } = await insecure(t);
  const options = { ...LEADER, heartbeat: 60_000, watchdog: 180_000 };
  const page = await tab(context, site, { url, ...options });
  assert.equal(await page.evaluate(() => typeof navigator.locks), 'undefined');
  await stateIs(page, 'open');
  await received(page, await numbers.publish(3));
  await context.setOffline(true);
  await stateIs(page, 'reconnecting');
  await numbers.publish(3);
  await context.setOffline(false);
  await stateIs(page, 'open');
  const { states } = await expectComplete(page, await numbers.publish(2));
  assert.deepEqual(states, ['open', 'reconnecting', 'open']);
  await page.evaluate(() => window.stream.close());
  assert.equal((await seen(page)).state, 'closed');
});

test('tabs with blocked site data have own connections', { timeout: 120_000 }, async (t) => {
  const { gateway, context, site, url, numbers } = await setUp(t);
  await context.addInitScript(() => {
    LockManager.prototype.request = () =>
      Promise.reject(new DOMException('denied', 'SecurityError'));
    window.SharedWorker = class {
      constructor() {
        throw new DOMException('denied', 'SecurityError');
      }
    };
  });
  const pages = [];
  for (let i = 0; i < 2; i++) pages.push(await tab(context, site, { url, ...WORKER }));
  await Promise.all(pages.map((page) => stateIs(page, 'open')));
  const last = await numbers.publish(3);
  for (const page of pages) await expectComplete(page, last);
  await connections(gateway, 2);
});

test('tab joining before the hub connects loses nothing', { timeout: 120_000 }, async (t) => {
  const { client, context, site, proxy, url, numbers } = await setUp(t);
  const options = { ...LEADER, heartbeat: 60_000, watchdog: 180_000 };
  const id = await client.fcall('sse_publish', 1, 'user:42:events', 'order-completed', '{"n":0}');
  proxy.mode = 'holds-streams';
  const asked = proxy.nextRequest('stream');
  const first = await tab(context, site, { url, ...options });
  await asked;
  const second = await tab(context, site, { url, lastEventId: id, ...options });
  await received(second, await numbers.publish(2)); // by polling
  let polls = 0;
  proxy.on('request', (kind) => { polls += kind === 'poll' ? 1 : 0; });
  await until(() => polls >= 3, 'polling stopped');
  await numbers.publish(3);
  proxy.release();
  await stateIs(second, 'open');
  await expectComplete(second, await numbers.publish(2));
  await received(first, numbers.n);
});

test('tab ahead of the hub gets no older events', { timeout: 120_000 }, async (t) => {
  const { client, context, site, proxy, url, numbers } = await setUp(t);
  const options = { ...LEADER, heartbeat: 60_000, watchdog: 180_000 };
  const first = await tab(context, site, { url, ...options });
  await stateIs(first, 'open');
  await received(first, await numbers.publish(2));
  proxy.mode = 'holds-streams';
  const asked = proxy.nextRequest('stream');
  proxy.cut();
  await asked;
  await numbers.publish(4);
  const id = await client.fcall(
    'sse_publish',
    1,
    'user:42:events',
    'order-completed',
    JSON.stringify({ n: ++numbers.n }),
  );
  const second = await tab(context, site, { url, lastEventId: id, ...options });
  // It queues for the lock once it follows the hub.
  await second.waitForFunction(async () => (await navigator.locks.query()).pending.length === 1);
  assert.equal((await seen(second)).state, 'connecting');
  proxy.release();
  await received(first, await numbers.publish(2));
  await expectComplete(second, numbers.n, 8);
  await expectComplete(first, numbers.n);
});

test('tab catches up despite continuous events', { timeout: 120_000 }, async (t) => {
  const { context, site, proxy, url, numbers } = await setUp(t);
  const first = await tab(context, site, { url, ...LEADER });
  await stateIs(first, 'open');
  await received(first, await numbers.publish(1));
  const { lastEventId } = await seen(first);
  await received(first, await numbers.publish(3));
  // Every poll returns events, because one is published before each response.
  proxy.mode = 'delays-polls';
  let polls = 0;
  proxy.on('delayed', async () => {
    polls += 1;
    await numbers.publish(1);
    proxy.release('delays-polls');
  });
  const page = await tab(context, site, { url, lastEventId, ...LEADER });
  proxy.on('request', (kind) => { if (kind === 'poll') numbers.publish(1); });
  await received(page, 4);
  const before = polls;
  for (let i = 0; i < 20; i++) await received(page, await numbers.publish(1));
  assert.ok(polls <= before + 2, `${polls - before} more polls after the catch-up`);
  await expectComplete(page, numbers.n, 2);
  // No more publishes while everything ends.
  proxy.removeAllListeners();
});

test('crashed tab delays only one ticket request', { timeout: 120_000 }, async (t) => {
  const { gateway, context, site, url, numbers } = await setUp(t);
  const options = { ...WORKER, heartbeat: 7000, watchdog: 21_000 };
  const pages = [];
  for (let i = 0; i < 2; i++) {
    pages.push(await tab(context, site, { url, ...options }));
    await stateIs(pages[i], 'open');
  }
  const [page, crashed] = pages;
  const crash = new Promise((resolve) => { crashed.once('crash', resolve); });
  (await context.newCDPSession(crashed)).send('Page.crash').catch(() => { /* expected */ });
  await crash;
  // Records which tabs the hub asks for tickets.
  await page.evaluate((url) => {
    window.asked = [];
    new BroadcastChannel(`sse-gateway 3 user-42 ${url} undefined`).onmessage = ({
      data: { kind, to },
    }) => {
      if (kind === 'ask') window.asked.push(to);
    };
  }, url);
  for (let count = 2; count <= 4; count++) {
    await page.evaluate(() => window.stream.reconnect());
    await until(async () => await opened(gateway) === count, 'no new connection');
    await stateIs(page, 'open');
  }
  // The crashed tab is newer, so it is asked first; afterwards it is asked last.
  const [first, ...then] = await page.evaluate(() => window.asked);
  assert.equal(then.length, 3);
  assert.ok(!then.includes(first));
  await expectComplete(page, await numbers.publish(2));
});
