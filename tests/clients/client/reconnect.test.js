// clients/js reconnects without losing or duplicating events, and calls handlers in order.
import assert from 'node:assert/strict';
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
import { inOrder, relevantGaps } from '../lib/listener.js';
import { freePort, until } from '../lib/processes.js';
import { Gateway } from '../lib/servers.js';

/** Lifetime of tickets that expire during a test: long enough for a slow page to use them. */
const TTL = 6;

/** Waits until the tickets of streams that are open now have expired. */
const ticketsExpire = () => {
  const end = Date.now() + (TTL + 1) * 1000;
  return until(() => Date.now() > end, 'the clock does not advance');
};

test('native reconnect succeeds after the ticket expired', async (t) => {
  const { site, proxy, context, numbers } =
    await setUp(t, { 'tickets.leeway': '0s' }, { ttl: TTL });
  const page = await tab(context, site, { url: `${proxy.url}/events`, ...DELAYS });
  await stateIs(page, 'open');
  await received(page, await numbers.publish(3));
  await ticketsExpire();
  proxy.cut();
  await stateSeen(page, 'reconnecting', 1);
  await numbers.publish(3);
  await stateSeen(page, 'open', 2);
  const { states, tickets, reconnectCount } = await expectComplete(page, await numbers.publish(1));
  assert.deepEqual(states, ['open', 'reconnecting', 'open']);
  assert.equal(tickets, 1);
  assert.equal(reconnectCount, 1);
});

test('expired session is replaced with a new ticket', async (t) => {
  const { client, gateway, site, proxy, context, numbers } = await setUp(
    t,
    { 'tickets.leeway': '0s', 'tickets.reconnect_grace': '2s' },
    { ttl: TTL },
  );
  const page = await tab(context, site, { url: `${proxy.url}/events`, ...DELAYS });
  await stateIs(page, 'open');
  await received(page, await numbers.publish(3));
  await ticketsExpire();
  const sessions = (expected) => until(
    async () => (await client.keys('sse:session:*')).length === expected,
    `number of sessions is not ${expected}`,
  );
  await sessions(1);
  proxy.mode = 'holds';
  proxy.cut();
  await proxy.nextRequest('stream');
  await numbers.publish(3);
  // The gateway writes the session once more after the connection has ended.
  await until(
    async () => (await gateway.metric('sse_connections')) === 0,
    'the closed stream is still open',
  );
  await sessions(0);
  proxy.release();
  await stateSeen(page, 'open', 2);
  const { states, tickets, reconnectCount, errors } = await expectComplete(
    page,
    await numbers.publish(1),
  );
  assert.equal(await gateway.metric('sse_tickets_refused_total{code="ticket-expired"}'), 1);
  assert.deepEqual(states, ['open', 'reconnecting', 'open']);
  assert.equal(tickets, 2);
  assert.equal(reconnectCount, 1);
  assert.deepEqual(errors, []);
});

test('gateway crash among events loses nothing', { timeout: 120_000 }, async (t) => {
  const { gateway, site, proxy, context, start, numbers } = await setUp(t);
  const page = await tab(context, site, { url: `${proxy.url}/events`, ...DELAYS });
  await stateIs(page, 'open');
  const flow = numbers.flow(20);
  await received(page, 10);
  await gateway.crash();
  const died = Date.now();
  await stateSeen(page, 'reconnecting', 1);
  await until(() => Date.now() > died + 5000, 'the clock does not advance');
  await start();
  const last = await flow.stop();
  await received(page, last);
  await stateIs(page, 'open');
  const { states, reconnectCount } = await expectComplete(page, await numbers.publish(1));
  assert.equal(states[0], 'open');
  assert.equal(states[1], 'reconnecting');
  assert.equal(states.at(-1), 'open');
  assert.equal(reconnectCount, 1);
});

test('rolling restart behind a balancer loses nothing', { timeout: 120_000 }, async (t) => {
  const { redis, client, gateway: one, site, proxy, context, start, numbers } = await setUp(t);
  const port = await freePort();
  const other = () =>
    Gateway.start(t, { redis, port, settings: { 'cors.allowed_origins': site.url } });
  const two = await other();
  proxy.targets.push(port);
  const news = new Numbers(client, 'broadcast:news', 'notification');
  const pages = [];
  for (let i = 0; i < 3; i++) {
    pages.push(await tab(context, site, { url: `${proxy.url}/events`, ...DELAYS }));
    await stateIs(pages[i], 'open');
  }
  const flows = [numbers.flow(20), news.flow(30)];
  await Promise.all(pages.map((page) => received(page, 10)));
  assert.deepEqual(await one.stop(), { code: 0, signal: null });
  await Promise.all(pages.map((page) => stateIs(page, 'open')));
  await start();
  assert.deepEqual(await two.stop(), { code: 0, signal: null });
  await Promise.all(pages.map((page) => stateIs(page, 'open')));
  await other();
  const [last, lastNews] = await Promise.all(flows.map((flow) => flow.stop()));
  let reconnects = 0;
  for (const page of pages) {
    const both = ([n, m]) =>
      ['order-completed', 'notification'].every((type, i) =>
        window.seen.events.some((event) => event.type === type && event.n === [n, m][i]),
      );
    await page.waitForFunction(both, [last, lastNews]);
    const { events, gaps, errors, nested, late, reconnectCount } = await seen(page);
    assert.deepEqual(
      events.filter(({ type }) => type === 'order-completed').map(({ n }) => n),
      upTo(last),
    );
    assert.deepEqual(
      events.filter(({ type }) => type === 'notification').map(({ n }) => n),
      upTo(lastNews),
    );
    assert.ok(inOrder(events.map(({ id }) => id)), 'events of two channels are out of order');
    assert.deepEqual([relevantGaps(gaps), errors, nested, late], [[], [], false, 0]);
    reconnects += reconnectCount;
  }
  assert.ok(reconnects >= 3, 'some clients did not reconnect');
});

test('frozen Redis delays events without losing them', { timeout: 120_000 }, async (t) => {
  const { redis, gateway, site, proxy, context, numbers } = await setUp(t);
  const options = { url: `${proxy.url}/events`, ...DELAYS };
  const page = await tab(context, site, options);
  await stateIs(page, 'open');
  await received(page, await numbers.publish(3));
  redis.process.kill('SIGSTOP');
  t.after(() => redis.process.kill('SIGCONT'));
  await until(async () => !await gateway.ready(), 'the gateway stays ready');
  const asked = proxy.nextRequest('stream');
  const newcomer = await tab(context, site, options);
  await asked;
  assert.equal((await seen(page)).state, 'open', 'the open stream closed');
  assert.equal((await seen(newcomer)).state, 'connecting');
  redis.process.kill('SIGCONT');
  await until(() => gateway.ready(), 'the gateway does not become ready');
  await newcomer.evaluate(() => window.stream.reconnect());
  await stateIs(newcomer, 'open');
  const last = await numbers.publish(3);
  const { states } = await expectComplete(page, last);
  assert.deepEqual(states, ['open']);
  await received(newcomer, last);
  assert.deepEqual((await seen(newcomer)).events.map(({ n }) => n), [4, 5, 6]);
});

test('tabs with the same ticket stop competing', async (t) => {
  const { gateway, site, context, url, numbers } = await setUp(t);
  site.same = await (await fetch(`${site.url}/ticket`)).text();
  const first = await tab(context, site, { url, ...DELAYS, retryMax: 3_600_000 });
  await stateIs(first, 'open');
  const second = await tab(context, site, { url, ...DELAYS, retryMax: 3_600_000 });
  await stateIs(second, 'open');
  await first.waitForFunction(
    () => window.seen.errors.some((error) => error.includes('the same ticket')),
    null,
    { polling: 25 },
  );
  const { states } = await seen(first);
  assert.deepEqual(states, ['open', 'reconnecting']);
  await expectComplete(second, await numbers.publish(3));
  await until(
    async () => (await gateway.metric('sse_connections')) === 1,
    'the stream of the other tab is still open',
  );
  site.same = '';
  await first.evaluate(() => window.stream.reconnect());
  await stateIs(first, 'open');
  await expectComplete(first, numbers.n);
});
