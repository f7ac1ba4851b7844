// One connection for all tabs, owned by a shared worker or by a tab.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { test } from 'node:test';
import {
  received,
  Numbers,
  seen,
  stateSeen,
  setUp,
  stateIs,
  tab,
  upTo,
  DELAYS,
  expectComplete,
} from '../lib/application.js';
import { until, withTimeout } from '../lib/processes.js';

const opened = (gateway) => gateway.metric('sse_connections_opened_total{transport="stream"}');
const connections = (gateway, expected) =>
  until(
    async () => (await gateway.metric('sse_connections')) === expected,
    `number of connections is not ${expected}`,
  );
const WORKER = { share: 'user-42', ...DELAYS };
const LEADER = { share: 'user-42', SharedWorker: null, ...DELAYS };
const HOSTS = [['shared worker', WORKER], ['leading tab', LEADER]];

async function tabs(t, count, options, settings, setUpOptions) {
  const setup = await setUp(t, settings, setUpOptions);
  const pages = [];
  for (let i = 0; i < count; i++)
    pages.push(await tab(setup.context, setup.site, { url: setup.url, ...options }));
  await Promise.all(pages.map((page) => stateIs(page, 'open')));
  return { ...setup, pages };
}

for (const [host, options] of HOSTS) {
  test(`${host}: five tabs share one connection`, { timeout: 120_000 }, async (t) => {
    const { gateway, site, numbers, pages } = await tabs(t, 5, options);
    const last = await numbers.publish(50);
    for (const page of pages) {
      const { states, errors } = await expectComplete(page, last);
      assert.deepEqual([states, errors], [['open'], []]);
    }
    await connections(gateway, 1);
    assert.equal(await opened(gateway), 1);
    assert.equal(site.tickets, 1);
  });

  test(`${host}: closing tabs among events loses nothing`, { timeout: 120_000 }, async (t) => {
    const { context, gateway, numbers, pages, site, url } = await tabs(t, 1, options);
    // The tabs lead in the order in which they joined.
    while (pages.length < 4) {
      const page = await tab(context, site, { url, ...options });
      await stateIs(page, 'open');
      pages.push(page);
    }
    const flow = numbers.flow(5);
    for (let left = 4; left > 1; left--) {
      await received(pages.at(-1), numbers.n + 20);
      await pages.shift().close();
      await received(pages.at(-1), numbers.n + 20);
    }
    await expectComplete(pages[0], await flow.stop());
    assert.equal(await opened(gateway), options === LEADER ? 4 : 1);
    await connections(gateway, 1);
  });

  test(`${host}: later tab adds its event names`, { timeout: 120_000 }, async (t) => {
    const {
      client,
      gateway,
      context,
      site,
      url,
      numbers,
      pages: [first],
    } = await tabs(t, 1, options);
    await received(first, await numbers.publish(5));
    const second = await tab(context, site);
    await second.evaluate((options) => window.start(options, ['notification']), {
      url,
      ...options,
    });
    await stateIs(second, 'open');
    const news = new Numbers(client, 'broadcast:news', 'notification');
    const late = new Numbers(client, 'broadcast:news', 'late');
    await received(second, await news.publish(5));
    await first.evaluate(() => {
      window.lates = [];
      window.stream.on('late', ({ n }) => window.lates.push(n));
    });
    // A successor must receive the names of all tabs.
    await second.evaluate(() => {
      window.lates = [];
      window.stream.on('late', ({ n }) => window.lates.push(n));
    });
    await until(async () => {
      await late.publish(1);
      return second.evaluate(() => window.lates.length > 0);
    }, 'events with the new name are not received');
    await first.close();
    const flow = news.flow(5);
    await received(second, news.n + 20);
    await late.publish(1);
    await second.waitForFunction((last) => window.lates.includes(last), late.n);
    const last = await flow.stop();
    await received(second, last);
    assert.deepEqual((await seen(second)).events.map(({ n }) => n), upTo(last));
    await connections(gateway, 1);
  });

  test(`${host}: close() in every tab ends the connection`, { timeout: 120_000 }, async (t) => {
    const { gateway, url, numbers, pages } = await tabs(t, 2, options);
    await received(pages[0], await numbers.publish(1));
    await pages[0].evaluate(() => window.stream.close());
    await received(pages[1], await numbers.publish(1));
    assert.equal((await seen(pages[0])).state, 'closed');
    await pages[1].evaluate(() => window.stream.close());
    await connections(gateway, 0);
    await numbers.publish(1);
    await pages[0].evaluate((options) => window.start(options), { url, ...options });
    await stateIs(pages[0], 'open');
    await expectComplete(pages[0], await numbers.publish(2), 4);
    await connections(gateway, 1);
  });

  test(`${host}: frozen tab catches up and rejoins`, { timeout: 120_000 }, async (t) => {
    const {
      gateway,
      context,
      numbers,
      pages: [page, other],
    } = await tabs(t, 2, options, {}, { plain: true });
    await other.bringToFront();
    await page.waitForFunction(() => document.hidden, null, { polling: 25 });
    await received(page, await numbers.publish(3));
    const cdp = await context.newCDPSession(page);
    await cdp.send('Page.setWebLifecycleState', { state: 'frozen' });
    // If it was the leading tab, the other one takes over.
    await received(other, await numbers.publish(300));
    const flow = numbers.flow(5);
    await cdp.send('Page.setWebLifecycleState', { state: 'active' });
    await received(page, numbers.n + 20);
    const last = await flow.stop();
    await expectComplete(page, last);
    await expectComplete(other, last);
    await connections(gateway, 1);
  });

  test(`${host}: outage and offline phase lose nothing`, { timeout: 120_000 }, async (t) => {
    const { gateway, context, start, numbers, pages } = await tabs(t, 3, options);
    await received(pages[2], await numbers.publish(3));
    await gateway.crash();
    await Promise.all(pages.map((page) => stateSeen(page, 'reconnecting', 1)));
    await numbers.publish(3);
    const restarted = await start();
    await Promise.all(pages.map((page) => stateSeen(page, 'open', 2)));
    for (const page of pages) await expectComplete(page, numbers.n);
    await context.setOffline(true);
    await numbers.publish(3);
    await context.setOffline(false);
    await numbers.publish(3);
    for (const page of pages) await expectComplete(page, numbers.n);
    await connections(restarted, 1);
  });
}

test('tab takes over when the worker ends', { timeout: 120_000 }, async (t) => {
  const { gateway, context, numbers, pages } = await tabs(t, 3, WORKER);
  const cdp = await context.browser().newBrowserCDPSession();
  const flow = numbers.flow(5);
  await received(pages[2], numbers.n + 20);
  const { targetInfos } = await cdp.send('Target.getTargets');
  const worker = targetInfos.find(({ type }) => type === 'shared_worker');
  await cdp.send('Target.closeTarget', { targetId: worker.targetId });
  await until(async () => await opened(gateway) === 2, 'no tab took over');
  await received(pages[2], numbers.n + 20);
  const last = await flow.stop();
  for (const page of pages) await expectComplete(page, last);
  await connections(gateway, 1);
});

test('tab owns the connection if the worker is missing', { timeout: 120_000 }, async (t) => {
  const { gateway, context, site, url, numbers } = await setUp(t);
  site.missing = '/client/src/share/worker.js';
  const pages = [];
  for (let i = 0; i < 3; i++) pages.push(await tab(context, site, { url, ...WORKER }));
  await Promise.all(pages.map((page) => stateIs(page, 'open')));
  const last = await numbers.publish(5);
  for (const page of pages) await expectComplete(page, last);
  assert.equal(await opened(gateway), 1);
});

test('groups with different names are independent', { timeout: 120_000 }, async (t) => {
  const { gateway, context, site, url, numbers } = await setUp(t);
  const pages = [];
  for (const share of ['user-1', 'user-2', 'user-1'])
    pages.push(await tab(context, site, { url, ...DELAYS, share }));
  await Promise.all(pages.map((page) => stateIs(page, 'open')));
  const last = await numbers.publish(5);
  for (const page of pages) await expectComplete(page, last);
  await connections(gateway, 2);
});

test('successor behind the others causes no duplicates', { timeout: 120_000 }, async (t) => {
  const { gateway, context, site, proxy, url, numbers, pages: [first] } = await tabs(t, 1, LEADER);
  await received(first, await numbers.publish(1));
  const { lastEventId } = await seen(first);
  await received(first, await numbers.publish(20));
  // It resumes after the first event and stays there, because its polls are held.
  proxy.mode = 'holds-polls';
  const behind = await tab(context, site);
  const asked = proxy.nextRequest('poll');
  await behind.evaluate((options) => window.start(options), { url, lastEventId, ...LEADER });
  await asked;
  const third = await tab(context, site, { url, ...LEADER });
  await stateIs(third, 'open');
  await received(third, await numbers.publish(20));
  await first.close();
  await until(async () => await opened(gateway) === 2, 'no tab took over');
  await received(third, await numbers.publish(20));
  assert.deepEqual(
    (await seen(behind)).events,
    [],
    'later events were delivered before earlier ones',
  );
  proxy.release();
  const last = await numbers.publish(20);
  await expectComplete(behind, last, 2);
  await expectComplete(third, last, 22);
  await connections(gateway, 1);
});

test('events during a catch-up are delivered after it', { timeout: 120_000 }, async (t) => {
  const { context, site, proxy, url, numbers, pages: [first] } = await tabs(t, 1, LEADER);
  await received(first, await numbers.publish(1));
  const { lastEventId } = await seen(first);
  await received(first, await numbers.publish(20));
  proxy.mode = 'delays-polls';
  const answer = withTimeout(once(proxy, 'delayed'), 'no poll');
  const page = await tab(context, site, { url, lastEventId, ...LEADER });
  await answer; // the response exists but is delayed
  await received(first, await numbers.publish(5));
  proxy.release();
  await expectComplete(page, numbers.n, 2);
});

for (const [host, options] of HOSTS) {
  test(`${host}: later tab gets the retained values`, { timeout: 120_000 }, async (t) => {
    const { client, context, gateway, site, url } = await setUp(t);
    const keep = (key, n) => client.fcall(
      'sse_publish', 1, 'broadcast:news', 'order-completed', JSON.stringify({ n }), 'KEEP', key,
    );
    await keep('a', 1);
    await keep('b', 2);
    await keep('a', 3);
    const [first, later] = [
      await tab(context, site, { url, ...options }), await tab(context, site),
    ];
    await received(first, 3);
    await later.evaluate((options) => window.start(options), { url, ...options });
    await received(later, 3);
    await keep('c', 4);
    for (const page of [first, later]) {
      await received(page, 4);
      assert.deepEqual((await seen(page)).events.map(({ n }) => n), [2, 3, 4]);
    }
    assert.equal(await opened(gateway), 1);
  });
}

test('no older value follows a newer event', { timeout: 120_000 }, async (t) => {
  const { client, context, proxy, site, url } = await setUp(t);
  const keep = (n) => client.fcall(
    'sse_publish', 1, 'broadcast:news', 'order-completed', JSON.stringify({ n }), 'KEEP', 'a',
  );
  await keep(1);
  const first = await tab(context, site, { url, ...LEADER });
  await received(first, 1);
  proxy.mode = 'delays-polls';
  const answer = withTimeout(once(proxy, 'delayed'), 'no poll');
  const later = await tab(context, site, { url, ...LEADER });
  await answer; // the values exist but are delayed
  await keep(2);
  await keep(3);
  await received(first, 3);
  // It has no position yet, so it could not resume, and would not get what it reads now as events.
  const { state, lastEventId } = await seen(later);
  assert.deepEqual([state, lastEventId], ['connecting', undefined]);
  proxy.release();
  await stateIs(later, 'open');
  assert.ok((await seen(later)).lastEventId);
  await received(later, 3);
  await keep(4);
  await received(later, 4);
  assert.deepEqual((await seen(later)).events.map(({ n }) => n), [1, 2, 3, 4]);
});

test('tab that joins during an outage begins after it', { timeout: 120_000 }, async (t) => {
  const { client, context, proxy, site, url } = await setUp(t);
  await client.fcall(
    'sse_publish', 1, 'broadcast:news', 'order-completed', '{"n":1}', 'KEEP', 'a',
  );
  const first = await tab(context, site, { url, ...LEADER });
  await received(first, 1);
  proxy.mode = 'holds';
  proxy.cut();
  await stateIs(first, 'reconnecting');
  const asked = proxy.nextRequest('poll');
  const later = await tab(context, site, { url, ...LEADER });
  await asked;
  assert.equal((await seen(later)).state, 'connecting');
  proxy.release();
  await stateIs(later, 'open');
  await received(later, 1);
  const { states, reconnectCount } = await seen(later);
  assert.deepEqual([states, reconnectCount], [['open'], 0]);
});

test('relayed events without id reach every tab', { timeout: 120_000 }, async (t) => {
  const { client, pages } = await tabs(t, 2, LEADER, { 'publishers.plain': 'relay' });
  const numbers = upTo(5);
  for (const n of numbers)
    await client.publish(
      'user:42:events',
      JSON.stringify({ type: 'order-completed', payload: { n } }),
    );
  for (const page of pages) {
    await received(page, 5);
    assert.deepEqual((await seen(page)).events.map(({ n }) => n), numbers);
  }
});
