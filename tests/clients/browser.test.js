// A native EventSource in Chromium, on a page of another origin: it reconnects without losing
// events.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { browser, count, listen, origin, page, seen } from './lib/browser.js';
import { inOrder, relevantGaps } from './lib/listener.js';
import { freePort, until, withTimeout } from './lib/processes.js';
import { Gateway, Redis } from './lib/servers.js';

const gaps = (system) =>
  relevantGaps(system.filter(({ type }) => type === 'sse.gap').map(({ data }) => JSON.parse(data)));
const numbers = (events) => events.map(({ data }) => JSON.parse(data).n);
const publish = (client, n, channel = 'user:42:events', type = 'order-completed') =>
  client.fcall('sse_publish', 1, channel, type, JSON.stringify({ n }));

test('browser resumes after crash despite expired ticket', async (t) => {
  const redis = await Redis.start(t);
  const client = redis.client(t);
  const site = await origin(t);
  const port = await freePort();
  const settings = {
    'cors.allowed_origins': site,
    'tickets.leeway': '0s',
    'server.heartbeat': '1s',
  };
  const first = await Gateway.start(t, { redis, settings, port });
  const tab = await page(t, await browser(t), site);
  // Long enough for a slow page to use it.
  const ttl = 6;
  await listen(tab, first.events('42', { ttl }), ['order-completed', 'notification']);
  await count(tab, 'sse.connected', 1);
  const expired = Date.now() + (ttl + 1) * 1000;

  await publish(client, 1);
  await publish(client, 2, 'broadcast:news', 'notification');
  await publish(client, 3, 'user:43:events');
  await count(tab, 'notification', 1);

  await first.crash();
  for (const n of [4, 5, 6]) await publish(client, n);
  await until(() => Date.now() > expired, 'the clock does not advance');
  const second = await Gateway.start(t, { redis, settings, port });
  await publish(client, 7);
  await count(tab, 'order-completed', 5);
  await publish(client, 8);
  await count(tab, 'order-completed', 6);

  const { events, system, state } = await seen(tab);
  assert.deepEqual(numbers(events), [1, 2, 4, 5, 6, 7, 8]);
  assert.deepEqual(
    events.map(({ type }) => type).filter((type) => type !== 'order-completed'),
    ['notification'],
  );
  assert.ok(inOrder(events.map(({ id }) => id)));
  assert.deepEqual(gaps(system), []);
  assert.equal(state, 1);
  assert.equal(
    JSON.parse(system.filter(({ type }) => type === 'sse.connected').at(-1).data).resumed,
    true,
  );
  assert.equal(await second.ready(), true);
});

test('browser without any event resumes', async (t) => {
  const redis = await Redis.start(t);
  const client = redis.client(t);
  const site = await origin(t);
  const port = await freePort();
  const settings = { 'cors.allowed_origins': site };
  const first = await Gateway.start(t, { redis, settings, port });
  const tab = await page(t, await browser(t), site);
  await listen(tab, first.events('42'), ['order-completed']);
  await count(tab, 'sse.connected', 1);
  await first.crash();
  for (const n of [1, 2, 3]) await publish(client, n);
  await Gateway.start(t, { redis, settings, port });
  await count(tab, 'order-completed', 3);
  const { events, system } = await seen(tab);
  assert.deepEqual(numbers(events), [1, 2, 3]);
  assert.deepEqual(gaps(system), []);
});

test('browser reconnects after SIGTERM', async (t) => {
  const redis = await Redis.start(t);
  const client = redis.client(t);
  const site = await origin(t);
  const port = await freePort();
  const settings = { 'cors.allowed_origins': site };
  const first = await Gateway.start(t, { redis, settings, port });
  const tab = await page(t, await browser(t), site);
  await listen(tab, first.events('42'), ['order-completed']);
  await count(tab, 'sse.connected', 1);
  await publish(client, 1);
  await count(tab, 'order-completed', 1);

  const stopped = first.stop();
  await count(tab, 'sse.closing', 1);
  assert.deepEqual(await withTimeout(stopped, 'the gateway did not exit'), {
    code: 0,
    signal: null,
  });
  for (const n of [2, 3]) await publish(client, n);
  await Gateway.start(t, { redis, settings, port });
  await count(tab, 'order-completed', 3);

  const { events, system } = await seen(tab);
  assert.deepEqual(numbers(events), [1, 2, 3]);
  assert.deepEqual(gaps(system), []);
  const closing = system.filter(({ type }) => type === 'sse.closing');
  assert.deepEqual(closing.map(({ data }) => JSON.parse(data).reason), ['draining']);
});

test('browser connects after Redis becomes available', { timeout: 120_000 }, async (t) => {
  const port = await freePort();
  const site = await origin(t);
  const gateway = await Gateway.start(t, {
    redis: `redis://127.0.0.1:${port}`,
    settings: { 'cors.allowed_origins': site },
    ready: false,
  });
  const tab = await page(t, await browser(t), site);
  await listen(tab, gateway.events('42', { ttl: 60 }), ['order-completed']);
  await count(tab, 'sse.busy', 1);
  await tab.waitForFunction(() => window.seen.errors.length > 0);

  const redis = await Redis.start(t, port);
  const client = redis.client(t);
  await until(() => gateway.ready(), 'the gateway does not become ready');
  // The gateway requests a delay of 10 to 30 s.
  await tab.waitForFunction(
    () => window.seen.system.some(({ type }) => type === 'sse.connected'),
    null,
    { timeout: 60_000 },
  );
  await publish(client, 1);
  await count(tab, 'order-completed', 1);

  const { system, errors, state } = await seen(tab);
  assert.deepEqual(
    [
      ...new Set(
        system.filter(({ type }) => type === 'sse.busy').map(({ data }) => JSON.parse(data).reason),
      ),
    ],
    ['redis-away'],
  );
  assert.ok(errors.every((state) => state === 0), `the EventSource gave up: ${errors}`);
  assert.equal(state, 1);
});

test('page of a disallowed origin is refused', async (t) => {
  const redis = await Redis.start(t);
  const [site, disallowed] = [await origin(t), await origin(t)];
  const gateway = await Gateway.start(t, { redis, settings: { 'cors.allowed_origins': site } });
  const tab = await page(t, await browser(t), disallowed);
  await listen(tab, gateway.events('42'), ['order-completed']);
  await tab.waitForFunction(() => window.source.readyState === EventSource.CLOSED);
  assert.deepEqual((await seen(tab)).system, []);
});
