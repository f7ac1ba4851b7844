// clients/js comes back by itself: nothing lost, nothing doubled, handlers called in order.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { got, Numbers, seen, shown, stand, state, tab, upTo, WAITS, whole } from '../lib/front.js';
import { inOrder, told } from '../lib/listener.js';
import { freePort, until } from '../lib/processes.js';
import { Gateway } from '../lib/stand.js';

test('ticket of 2 s, stream cut after 5 s: the native reconnect is let in', async (t) => {
  const { site, proxy, context, numbers } = await stand(t, { 'tickets.leeway': '0s' }, { ttl: 2 });
  const page = await tab(context, site, { url: `${proxy.url}/events`, ...WAITS });
  await state(page, 'open');
  const opened = Date.now();
  await got(page, await numbers.publish(3));
  await until(() => Date.now() > opened + 5000, 'the clock stands still');
  proxy.cut();
  await shown(page, 'reconnecting', 1);
  await numbers.publish(3);
  await shown(page, 'open', 2);
  const { states, tickets, reconnectCount } = await whole(page, await numbers.publish(1));
  assert.deepEqual(states, ['open', 'reconnecting', 'open']);
  assert.equal(tickets, 1);
  assert.equal(reconnectCount, 1);
});

test('the session is gone as well: a new ticket, and the stream goes on where it was', async (t) => {
  const { client, gateway, site, proxy, context, numbers } = await stand(t, { 'tickets.leeway': '0s' }, { ttl: 2 });
  const page = await tab(context, site, { url: `${proxy.url}/events`, ...WAITS });
  await state(page, 'open');
  const opened = Date.now();
  await got(page, await numbers.publish(3));
  await until(() => Date.now() > opened + 3000, 'the clock stands still');
  proxy.mode = 'holds';
  proxy.cut();
  await proxy.asked('stream');
  await numbers.publish(3);
  const sessions = await client.keys('sse:session:*');
  assert.equal(sessions.length, 1);
  // Its holder has gone by now, or goes soon and writes it once more.
  await until(async () => await gateway.metric('sse_connections') === 0, 'the cut stream is still there');
  await client.del(sessions);
  proxy.release();
  await shown(page, 'open', 2);
  const { states, tickets, reconnectCount, errors } = await whole(page, await numbers.publish(1));
  assert.equal(await gateway.metric('sse_tickets_refused_total{code="ticket-expired"}'), 1);
  assert.deepEqual(states, ['open', 'reconnecting', 'open']);
  assert.equal(tickets, 2);
  assert.equal(reconnectCount, 1);
  assert.deepEqual(errors, []);
});

test('the gateway is killed in the midst of events and comes back after 5 s', { timeout: 120_000 }, async (t) => {
  const { gateway, site, proxy, context, start, numbers } = await stand(t);
  const page = await tab(context, site, { url: `${proxy.url}/events`, ...WAITS });
  await state(page, 'open');
  const flow = numbers.flow(20);
  await got(page, 10);
  await gateway.crash();
  const died = Date.now();
  await shown(page, 'reconnecting', 1);
  await until(() => Date.now() > died + 5000, 'the clock stands still');
  await start();
  const last = await flow.stop();
  await got(page, last);
  await state(page, 'open');
  const { states, reconnectCount } = await whole(page, await numbers.publish(1));
  assert.equal(states[0], 'open');
  assert.equal(states[1], 'reconnecting');
  assert.equal(states.at(-1), 'open');
  assert.equal(reconnectCount, 1);
});

test('two gateways behind a balancer are restarted one after the other', { timeout: 120_000 }, async (t) => {
  const { redis, client, gateway: one, site, proxy, context, start, numbers } = await stand(t);
  const port = await freePort();
  const other = () => Gateway.start(t, { redis, port, settings: { 'cors.allowed_origins': site.url } });
  const two = await other();
  proxy.targets.push(port);
  const news = new Numbers(client, 'broadcast:news', 'notification');
  const pages = [];
  for (let i = 0; i < 3; i++) {
    pages.push(await tab(context, site, { url: `${proxy.url}/events`, ...WAITS }));
    await state(pages[i], 'open');
  }
  const flows = [numbers.flow(20), news.flow(30)];
  await Promise.all(pages.map((page) => got(page, 10)));
  assert.deepEqual(await one.stop(), { code: 0, signal: null });
  await Promise.all(pages.map((page) => state(page, 'open')));
  await start();
  assert.deepEqual(await two.stop(), { code: 0, signal: null });
  await Promise.all(pages.map((page) => state(page, 'open')));
  await other();
  const [last, lastNews] = await Promise.all(flows.map((flow) => flow.stop()));
  let reconnects = 0;
  for (const page of pages) {
    const both = ([n, m]) => ['order-completed', 'notification'].every((type, i) => window.seen.events.some((event) => event.type === type && event.n === [n, m][i]));
    await page.waitForFunction(both, [last, lastNews]);
    const { events, gaps, errors, nested, late, reconnectCount } = await seen(page);
    assert.deepEqual(events.filter(({ type }) => type === 'order-completed').map(({ n }) => n), upTo(last));
    assert.deepEqual(events.filter(({ type }) => type === 'notification').map(({ n }) => n), upTo(lastNews));
    assert.ok(inOrder(events.map(({ id }) => id)), 'an event of one channel has overtaken one of the other');
    assert.deepEqual([told(gaps), errors, nested, late], [[], [], false, 0]);
    reconnects += reconnectCount;
  }
  assert.ok(reconnects >= 3, 'nobody had to come back');
});

test('Redis is frozen: the state says what is, and all events are there in the end', { timeout: 120_000 }, async (t) => {
  const { redis, gateway, site, proxy, context, numbers } = await stand(t);
  const options = { url: `${proxy.url}/events`, ...WAITS };
  const page = await tab(context, site, options);
  await state(page, 'open');
  await got(page, await numbers.publish(3));
  redis.process.kill('SIGSTOP');
  t.after(() => redis.process.kill('SIGCONT'));
  await until(async () => !await gateway.ready(), 'the gateway does not notice');
  const newcomer = await tab(context, site, options);
  await proxy.asked('stream');
  assert.equal((await seen(page)).state, 'open', 'a stream that is open stays open');
  assert.equal((await seen(newcomer)).state, 'connecting');
  redis.process.kill('SIGCONT');
  await until(() => gateway.ready(), 'the gateway does not come back');
  await newcomer.evaluate(() => window.stream.reconnect());
  await state(newcomer, 'open');
  const last = await numbers.publish(3);
  const { states } = await whole(page, last);
  assert.deepEqual(states, ['open']);
  await got(newcomer, last);
  assert.deepEqual((await seen(newcomer)).events.map(({ n }) => n), [4, 5, 6]);
});

test('two tabs that were given the same ticket do not take the stream from each other for ever', async (t) => {
  const { gateway, site, context, url, numbers } = await stand(t);
  site.same = await (await fetch(`${site.url}/ticket`)).text();
  const first = await tab(context, site, { url, ...WAITS, retryMax: 3_600_000 });
  await state(first, 'open');
  const second = await tab(context, site, { url, ...WAITS, retryMax: 3_600_000 });
  await state(second, 'open');
  await first.waitForFunction(() => window.seen.errors.some((error) => error.includes('the same ticket')), null, { polling: 25 });
  const { states } = await seen(first);
  assert.deepEqual(states, ['open', 'reconnecting']);
  await whole(second, await numbers.publish(3));
  assert.equal(await gateway.metric('sse_connections'), 1);
  site.same = '';
  await first.evaluate(() => window.stream.reconnect());
  await state(first, 'open');
  await whole(first, numbers.n);
});
