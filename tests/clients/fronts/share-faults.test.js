// One connection for all tabs, when what holds it hangs, crashes, lags behind or may not be: nothing is lost or doubled, nobody waits for ever.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { got, insecure, seen, shown, stand, state, tab, WAITS, whole } from '../lib/front.js';
import { until } from '../lib/processes.js';

const WORKER = { share: 'user-42', ...WAITS, heartbeat: 1000, watchdog: 3000 };
const LEADER = { ...WORKER, SharedWorker: null };
const opened = (gateway) => gateway.metric('sse_connections_opened_total{transport="stream"}');
const connections = (gateway, wanted) => until(async () => await gateway.metric('sse_connections') === wanted, `not ${wanted} connections`);

/** What holds the connection stands still until the returned function is called, as at a breakpoint. */
const HANGS = {
  'the leading tab': [LEADER, async (context, page) => {
    const cdp = await context.newCDPSession(page);
    await cdp.send('Debugger.enable');
    const paused = new Promise((resolve) => { cdp.once('Debugger.paused', resolve); });
    page.evaluate(() => { debugger; }).catch(() => { /* the page is closed at the end */ });
    await paused;
    return () => cdp.send('Debugger.resume');
  }],
  'the shared worker': [WORKER, async (context) => {
    const cdp = await context.browser().newBrowserCDPSession();
    const { targetInfos } = await cdp.send('Target.getTargets');
    const { targetId } = targetInfos.find(({ type }) => type === 'shared_worker');
    const { sessionId } = await cdp.send('Target.attachToTarget', { targetId, flatten: false });
    const heard = new Map();
    cdp.on('Target.receivedMessageFromTarget', ({ message }) => heard.get(JSON.parse(message).method)?.());
    const send = (id, method, params) => cdp.send('Target.sendMessageToTarget', { sessionId, message: JSON.stringify({ id, method, params }) });
    const paused = new Promise((resolve) => { heard.set('Debugger.paused', resolve); });
    await send(1, 'Debugger.enable');
    await send(2, 'Runtime.evaluate', { expression: 'debugger' });
    await paused;
    return () => send(3, 'Debugger.resume');
  }],
};
for (const [what, [options, hang]] of Object.entries(HANGS)) {
  test(`${what} hangs: shown as it is, a tab takes over, and what wakes up gives way`, { timeout: 120_000 }, async (t) => {
    const { gateway, context, site, url, numbers } = await stand(t);
    const pages = [];
    for (let i = 0; i < 3; i++) {
      pages.push(await tab(context, site, { url, ...options }));
      await state(pages[i], 'open');
    }
    const others = pages.slice(1);
    for (const page of pages) await got(page, await numbers.publish(2));
    const resume = await hang(context, pages[0]);
    await numbers.publish(5);
    for (const page of others) {
      await shown(page, 'reconnecting', 1);
      await state(page, 'open');
      await whole(page, numbers.n);
    }
    assert.equal(await opened(gateway), 2, 'one tab takes over, not each');
    const flow = numbers.flow(5);
    await got(others[0], numbers.n + 20);
    await resume();
    await connections(gateway, 1);
    await got(others[0], numbers.n + 20);
    const last = await flow.stop();
    for (const page of pages) await whole(page, last);
  });
}

test('no locks and no worker (an insecure origin): a tab of its own connection loses nothing, offline and back', { timeout: 120_000 }, async (t) => {
  const { context, url, site, numbers } = await insecure(t);
  const page = await tab(context, site, { url, ...LEADER });
  assert.equal(await page.evaluate(() => typeof navigator.locks), 'undefined');
  await state(page, 'open');
  await got(page, await numbers.publish(3));
  await context.setOffline(true);
  await state(page, 'reconnecting');
  await numbers.publish(3);
  await context.setOffline(false);
  await state(page, 'open');
  const { states } = await whole(page, await numbers.publish(2));
  assert.deepEqual(states, ['open', 'reconnecting', 'open']);
  await page.evaluate(() => window.stream.close());
  assert.equal((await seen(page)).state, 'closed');
});

test('locks are denied (site data are blocked): each tab has its own connection', { timeout: 120_000 }, async (t) => {
  const { gateway, context, site, url, numbers } = await stand(t);
  await context.addInitScript(() => {
    LockManager.prototype.request = () => Promise.reject(new DOMException('denied', 'SecurityError'));
    window.SharedWorker = class { constructor() { throw new DOMException('denied', 'SecurityError'); } };
  });
  const pages = [];
  for (let i = 0; i < 2; i++) pages.push(await tab(context, site, { url, ...WORKER }));
  await Promise.all(pages.map((page) => state(page, 'open')));
  const last = await numbers.publish(3);
  for (const page of pages) await whole(page, last);
  assert.equal(await gateway.metric('sse_connections'), 2);
});

test('a tab with an id joins before the group\'s connection stands: what comes in between is not lost', { timeout: 120_000 }, async (t) => {
  const { client, context, site, proxy, url, numbers } = await stand(t);
  const options = { ...LEADER, heartbeat: 60_000, watchdog: 180_000 };
  const id = await client.fcall('sse_publish', 1, 'user:42:events', 'order-completed', '{"n":0}');
  proxy.mode = 'holds-streams';
  const asked = proxy.asked('stream');
  const first = await tab(context, site, { url, ...options });
  await asked;
  const second = await tab(context, site, { url, lastEventId: id, ...options });
  await got(second, await numbers.publish(2)); // by its polls
  let polls = 0;
  proxy.on('request', (kind) => { polls += kind === 'poll' ? 1 : 0; });
  await until(() => polls >= 3, 'it polls no more');
  await numbers.publish(3);
  proxy.release();
  await state(second, 'open');
  await whole(second, await numbers.publish(2));
  await got(first, numbers.n);
});

test('a tab whose id is ahead of the group\'s connection gets nothing from before that', { timeout: 120_000 }, async (t) => {
  const { client, context, site, proxy, url, numbers } = await stand(t);
  const options = { ...LEADER, heartbeat: 60_000, watchdog: 180_000 };
  const first = await tab(context, site, { url, ...options });
  await state(first, 'open');
  await got(first, await numbers.publish(2));
  proxy.mode = 'holds-streams';
  const asked = proxy.asked('stream');
  proxy.cut();
  await asked;
  await numbers.publish(4);
  const id = await client.fcall('sse_publish', 1, 'user:42:events', 'order-completed', JSON.stringify({ n: ++numbers.n }));
  const second = await tab(context, site, { url, lastEventId: id, ...options });
  await state(second, 'reconnecting');
  proxy.release();
  await got(first, await numbers.publish(2));
  await whole(second, numbers.n, 8);
  await whole(first, numbers.n);
});

test('a tab catches up with a group in which events never cease', { timeout: 120_000 }, async (t) => {
  const { context, site, proxy, url, numbers } = await stand(t);
  const first = await tab(context, site, { url, ...LEADER });
  await state(first, 'open');
  await got(first, await numbers.publish(1));
  const { lastEventId } = await seen(first);
  await got(first, await numbers.publish(3));
  // Each poll finds events, since one is published before each is answered.
  proxy.mode = 'delays-polls';
  let polls = 0;
  proxy.on('delayed', async () => {
    polls += 1;
    await numbers.publish(1);
    proxy.release('delays-polls');
  });
  const page = await tab(context, site, { url, lastEventId, ...LEADER });
  proxy.on('request', (kind) => { if (kind === 'poll') numbers.publish(1); });
  await got(page, 4);
  const before = polls;
  for (let i = 0; i < 20; i++) await got(page, await numbers.publish(1));
  assert.ok(polls <= before + 2, `${polls} polls, where one or two are enough`);
  await whole(page, numbers.n, 2);
});

test('tabs that have crashed cost time once, not for each ticket', { timeout: 120_000 }, async (t) => {
  const { gateway, context, site, url, numbers } = await stand(t);
  const options = { ...WORKER, heartbeat: 7000, watchdog: 21_000 };
  const pages = [];
  for (let i = 0; i < 2; i++) {
    pages.push(await tab(context, site, { url, ...options }));
    await state(pages[i], 'open');
  }
  const [page, crashed] = pages;
  const gone = new Promise((resolve) => { crashed.once('crash', resolve); });
  (await context.newCDPSession(crashed)).send('Page.crash').catch(() => { /* as it should */ });
  await gone;
  // Whom the hub asks for a ticket, as the group hears it.
  await page.evaluate((url) => {
    window.asked = [];
    new BroadcastChannel(`sse-gateway 2 user-42 ${url} undefined`).onmessage = ({ data: { kind, to } }) => { if (kind === 'ask') window.asked.push(to); };
  }, url);
  for (let count = 2; count <= 4; count++) {
    await page.evaluate(() => window.stream.reconnect());
    await until(async () => await opened(gateway) === count, 'no new connection');
    await state(page, 'open');
  }
  // The crashed one, which is newer, is asked first and in vain; from then on it is asked last.
  const [first, ...then] = await page.evaluate(() => window.asked);
  assert.equal(then.length, 3);
  assert.ok(!then.includes(first));
  await whole(page, await numbers.publish(2));
});
