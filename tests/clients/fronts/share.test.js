// One connection for all tabs: by a shared worker, or by a tab that holds it for the others.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { test } from 'node:test';
import { got, Numbers, seen, shown, stand, state, tab, upTo, WAITS, whole } from '../lib/front.js';
import { until, within } from '../lib/processes.js';

const opened = (gateway) => gateway.metric('sse_connections_opened_total{transport="stream"}');
const connections = (gateway, wanted) => until(async () => await gateway.metric('sse_connections') === wanted, `not ${wanted} connections`);
const WORKER = { share: 'user-42', ...WAITS };
const LEADER = { share: 'user-42', SharedWorker: null, ...WAITS };
const HOSTS = [['shared worker', WORKER], ['leading tab', LEADER]];

async function tabs(t, count, options, settings, how) {
  const all = await stand(t, settings, how);
  const pages = [];
  for (let i = 0; i < count; i++) pages.push(await tab(all.context, all.site, { url: all.url, ...options }));
  await Promise.all(pages.map((page) => state(page, 'open')));
  return { ...all, pages };
}

for (const [host, options] of HOSTS) {
  test(`${host}: five tabs, one connection, one ticket; every tab gets everything`, { timeout: 120_000 }, async (t) => {
    const { gateway, site, numbers, pages } = await tabs(t, 5, options);
    const last = await numbers.publish(50);
    for (const page of pages) {
      const { states, errors } = await whole(page, last);
      assert.deepEqual([states, errors], [['open'], []]);
    }
    assert.equal(await gateway.metric('sse_connections'), 1);
    assert.equal(await opened(gateway), 1);
    assert.equal(site.tickets, 1);
  });

  test(`${host}: the first tab is closed in the midst of events, and the next, and the next: nothing is lost`, { timeout: 120_000 }, async (t) => {
    const { gateway, numbers, pages } = await tabs(t, 4, options);
    const flow = numbers.flow(5);
    for (let left = 4; left > 1; left--) {
      await got(pages.at(-1), numbers.n + 20);
      await pages.shift().close();
      await got(pages.at(-1), numbers.n + 20);
    }
    await whole(pages[0], await flow.stop());
    assert.equal(await opened(gateway), options === LEADER ? 4 : 1);
    await connections(gateway, 1);
  });

  test(`${host}: a tab that comes later gets what comes from then on, and its names are received for it`, { timeout: 120_000 }, async (t) => {
    const { client, gateway, context, site, url, numbers, pages: [first] } = await tabs(t, 1, options);
    await got(first, await numbers.publish(5));
    const second = await tab(context, site);
    await second.evaluate((options) => window.start(options, ['notification']), { url, ...options });
    await state(second, 'open');
    const news = new Numbers(client, 'broadcast:news', 'notification');
    const late = new Numbers(client, 'broadcast:news', 'late');
    await got(second, await news.publish(5));
    await first.evaluate(() => { window.lates = []; window.stream.on('late', ({ n }) => window.lates.push(n)); });
    // Whoever goes on must know the names of all.
    await second.evaluate(() => { window.lates = []; window.stream.on('late', ({ n }) => window.lates.push(n)); });
    await until(async () => { await late.publish(1); return second.evaluate(() => window.lates.length > 0); }, 'the new name is not received');
    await first.close();
    const flow = news.flow(5);
    await got(second, news.n + 20);
    await late.publish(1);
    await second.waitForFunction((last) => window.lates.includes(last), late.n);
    const last = await flow.stop();
    await got(second, last);
    assert.deepEqual((await seen(second)).events.map(({ n }) => n), upTo(last));
    await connections(gateway, 1);
  });

  test(`${host}: close() in every tab ends the connection, and a new stream opens a new one`, { timeout: 120_000 }, async (t) => {
    const { gateway, url, numbers, pages } = await tabs(t, 2, options);
    await got(pages[0], await numbers.publish(1));
    await pages[0].evaluate(() => window.stream.close());
    await got(pages[1], await numbers.publish(1));
    assert.equal((await seen(pages[0])).state, 'closed');
    await pages[1].evaluate(() => window.stream.close());
    await connections(gateway, 0);
    await numbers.publish(1);
    await pages[0].evaluate((options) => window.start(options), { url, ...options });
    await state(pages[0], 'open');
    await whole(pages[0], await numbers.publish(2), 4);
    await connections(gateway, 1);
  });

  test(`${host}: a tab that was frozen polls what it missed and is in the group again`, { timeout: 120_000 }, async (t) => {
    const { gateway, context, numbers, pages: [page, other] } = await tabs(t, 2, options, {}, { plain: true });
    await other.bringToFront();
    await page.waitForFunction(() => document.hidden, null, { polling: 25 });
    await got(page, await numbers.publish(3));
    const cdp = await context.newCDPSession(page);
    await cdp.send('Page.setWebLifecycleState', { state: 'frozen' });
    // It was the leading tab: the other one goes on for it.
    await got(other, await numbers.publish(300));
    const flow = numbers.flow(5);
    await cdp.send('Page.setWebLifecycleState', { state: 'active' });
    await got(page, numbers.n + 20);
    const last = await flow.stop();
    await whole(page, last);
    await whole(other, last);
    await connections(gateway, 1);
  });

  test(`${host}: gateway away and back, offline and back: every tab has everything`, { timeout: 120_000 }, async (t) => {
    const { gateway, context, start, numbers, pages } = await tabs(t, 3, options);
    await got(pages[2], await numbers.publish(3));
    await gateway.crash();
    await Promise.all(pages.map((page) => shown(page, 'reconnecting', 1)));
    await numbers.publish(3);
    const again = await start();
    await Promise.all(pages.map((page) => shown(page, 'open', 2)));
    for (const page of pages) await whole(page, numbers.n);
    await context.setOffline(true);
    await numbers.publish(3);
    await context.setOffline(false);
    await numbers.publish(3);
    for (const page of pages) await whole(page, numbers.n);
    await connections(again, 1);
  });
}

test('the shared worker ends: a tab takes over, nothing is lost', { timeout: 120_000 }, async (t) => {
  const { gateway, context, numbers, pages } = await tabs(t, 3, WORKER);
  const cdp = await context.browser().newBrowserCDPSession();
  const flow = numbers.flow(5);
  await got(pages[2], numbers.n + 20);
  const { targetInfos } = await cdp.send('Target.getTargets');
  const worker = targetInfos.find(({ type }) => type === 'shared_worker');
  await cdp.send('Target.closeTarget', { targetId: worker.targetId });
  await until(async () => await opened(gateway) === 2, 'nobody takes over');
  await got(pages[2], numbers.n + 20);
  const last = await flow.stop();
  for (const page of pages) await whole(page, last);
  await connections(gateway, 1);
});

test('the shared worker cannot be loaded: a tab holds the connection', { timeout: 120_000 }, async (t) => {
  const { gateway, context, site, url, numbers } = await stand(t);
  site.missing = '/client/src/share/worker.js';
  const pages = [];
  for (let i = 0; i < 3; i++) pages.push(await tab(context, site, { url, ...WORKER }));
  await Promise.all(pages.map((page) => state(page, 'open')));
  const last = await numbers.publish(5);
  for (const page of pages) await whole(page, last);
  assert.equal(await opened(gateway), 1);
});

test('groups of different names have nothing to do with each other', { timeout: 120_000 }, async (t) => {
  const { gateway, context, site, url, numbers } = await stand(t);
  const pages = [];
  for (const share of ['user-1', 'user-2', 'user-1']) pages.push(await tab(context, site, { url, ...WAITS, share }));
  await Promise.all(pages.map((page) => state(page, 'open')));
  const last = await numbers.publish(5);
  for (const page of pages) await whole(page, last);
  assert.equal(await gateway.metric('sse_connections'), 2);
});

test('the tab that takes over is behind the others: none of them gets anything twice', { timeout: 120_000 }, async (t) => {
  const { gateway, context, site, proxy, url, numbers, pages: [first] } = await tabs(t, 1, LEADER);
  await got(first, await numbers.publish(1));
  const { lastEventId } = await seen(first);
  await got(first, await numbers.publish(20));
  // It wants to go on after the first event, and does not get that far: what it asks for is held back.
  proxy.mode = 'holds-polls';
  const behind = await tab(context, site);
  const asked = proxy.asked('poll');
  await behind.evaluate((options) => window.start(options), { url, lastEventId, ...LEADER });
  await asked;
  const third = await tab(context, site, { url, ...LEADER });
  await state(third, 'open');
  await got(third, await numbers.publish(20));
  await first.close();
  await until(async () => await opened(gateway) === 2, 'nobody takes over');
  await got(third, await numbers.publish(20));
  assert.deepEqual((await seen(behind)).events, [], 'what came meanwhile has to wait for what was before');
  proxy.release();
  const last = await numbers.publish(20);
  await whole(behind, last, 2);
  await whole(third, last, 22);
  await connections(gateway, 1);
});

test('what comes while a tab catches up comes after that, and is not lost', { timeout: 120_000 }, async (t) => {
  const { context, site, proxy, url, numbers, pages: [first] } = await tabs(t, 1, LEADER);
  await got(first, await numbers.publish(1));
  const { lastEventId } = await seen(first);
  await got(first, await numbers.publish(20));
  proxy.mode = 'delays-polls';
  const answer = within(once(proxy, 'delayed'), 'no poll');
  const page = await tab(context, site, { url, lastEventId, ...LEADER });
  await answer; // it has been made, and is on its way
  await got(first, await numbers.publish(5));
  proxy.release();
  await whole(page, numbers.n, 2);
});

test('events without an id (bare publishes, relayed) reach every tab as well', { timeout: 120_000 }, async (t) => {
  const { client, pages } = await tabs(t, 2, LEADER, { 'publishers.bare': 'relay' });
  const numbers = upTo(5);
  for (const n of numbers) await client.publish('user:42:events', JSON.stringify({ type: 'order-completed', payload: { n } }));
  for (const page of pages) {
    await got(page, 5);
    assert.deepEqual((await seen(page)).events.map(({ n }) => n), numbers);
  }
});
