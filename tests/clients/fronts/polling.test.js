// Where streams do not get through, clients/js polls, and goes back to SSE: nothing lost, nothing doubled, in either direction.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { got, seen, shown, stand, state, tab, WAITS, whole } from '../lib/front.js';
import { until, within } from '../lib/processes.js';

test('a proxy that buffers streams: polling within the bound, and back to SSE once streams get through', { timeout: 120_000 }, async (t) => {
  const { gateway, site, proxy, context, url, numbers } = await stand(t);
  proxy.mode = 'buffers';
  const [streamed, polled] = [proxy.asked('stream'), proxy.asked('poll')];
  const opening = tab(context, site, { url, ...WAITS, heartbeat: 1000, watchdog: 3000, probe: 500 });
  // Between the two lies one heartbeat; the rest is for a machine with much to do.
  await streamed;
  await within(polled, 'no poll within five heartbeats of the stream that is held back', 5000);
  const page = await opening;
  await state(page, 'polling');
  const flow = numbers.flow(10);
  await got(page, 30);
  // Tries of SSE run beside the polls meanwhile, and come to nothing.
  await proxy.asked('stream');
  await got(page, numbers.n + 30);
  assert.equal((await seen(page)).state, 'polling');
  proxy.mode = 'through';
  await state(page, 'open');
  await got(page, numbers.n + 30);
  await whole(page, await flow.stop());
  const { states, errors, reconnectCount } = await seen(page);
  assert.deepEqual(states, ['polling', 'open']);
  assert.deepEqual(errors, []);
  assert.equal(reconnectCount, 0, 'polling was there all the time: nothing was lost');
  assert.ok(await gateway.metric('sse_connections_opened_total{transport="poll"}') > 0);
});

test('no answer within a heartbeat\'s time: polling begins beside the stream, which takes over should it come', { timeout: 120_000 }, async (t) => {
  const { site, proxy, context, url, numbers } = await stand(t);
  proxy.mode = 'holds-streams';
  const page = await tab(context, site, { url, ...WAITS, heartbeat: 1000, watchdog: 600_000 });
  await state(page, 'polling');
  await got(page, await numbers.publish(5));
  proxy.release();
  await state(page, 'open');
  const { states } = await whole(page, await numbers.publish(5));
  assert.deepEqual(states, ['polling', 'open']);
});

test('streams get blocked while one is open: polling goes on where it was, and the stream after it, and again', { timeout: 120_000 }, async (t) => {
  const { site, proxy, context, url, numbers } = await stand(t);
  const page = await tab(context, site, { url, ...WAITS, heartbeat: 1000, watchdog: 3000, probe: 500 });
  await state(page, 'open');
  const flow = numbers.flow(10);
  for (const mode of ['refuses', 'buffers']) {
    await got(page, numbers.n + 10);
    proxy.mode = mode;
    proxy.cut();
    await state(page, 'polling');
    await got(page, numbers.n + 30);
    proxy.mode = 'through';
    await state(page, 'open');
  }
  await got(page, numbers.n + 30);
  const { errors, states } = await whole(page, await flow.stop());
  assert.deepEqual(states, ['open', 'reconnecting', 'polling', 'open', 'reconnecting', 'polling', 'open']);
  assert.deepEqual(errors, []);
});

test('SSE takes over while polls bring events that it brings again: none twice', { timeout: 120_000 }, async (t) => {
  const { site, proxy, context, url, numbers } = await stand(t);
  proxy.mode = 'refuses';
  const page = await tab(context, site, { url, ...WAITS, probe: 500 });
  await state(page, 'polling');
  // A try of SSE is on its way, and stays there while polls go on bringing events.
  proxy.mode = 'holds-streams';
  await proxy.asked('stream');
  await got(page, await numbers.publish(5));
  await got(page, await numbers.publish(5));
  proxy.release();
  await state(page, 'open');
  const { states } = await whole(page, await numbers.publish(5));
  assert.deepEqual(states, ['polling', 'open']);
});

test('polls only: no stream is ever asked for, also after the session is gone and the gateway was away', { timeout: 120_000 }, async (t) => {
  const { client, gateway, site, proxy, context, url, start, numbers } = await stand(t, { 'tickets.leeway': '0s', 'tickets.reconnect_grace': '1s' }, { ttl: 2 });
  const page = await tab(context, site, { url, ...WAITS, watchdog: 3000, polling: 'only' });
  proxy.on('request', (kind) => assert.notEqual(kind, 'stream'));
  await state(page, 'polling');
  const flow = numbers.flow(30);
  await got(page, 5);
  proxy.mode = 'holds';
  await proxy.asked('poll');
  await client.del(await client.keys('sse:session:*'));
  const held = Date.now();
  await until(() => Date.now() > held + 2500, 'the clock stands still'); // the ticket expires
  proxy.release();
  await page.waitForFunction(() => window.seen.tickets >= 2);
  await got(page, numbers.n);
  await gateway.crash();
  await state(page, 'reconnecting');
  await start();
  await shown(page, 'polling', 2);
  const { errors } = await whole(page, await flow.stop());
  assert.ok(errors.length > 0, 'a poll that is not answered is told to onError');
});

test('a ticket that is refused: onError says why, and once it is good the stream opens', { timeout: 120_000 }, async (t) => {
  const { site, context, url, numbers } = await stand(t);
  site.ttl = 600; // longer than the gateway allows
  const page = await tab(context, site, { url, ...WAITS, probe: 200 });
  await page.waitForFunction(() => window.seen.errors.some((error) => error.includes('ticket-too-long-lived')));
  assert.equal((await seen(page)).state, 'connecting');
  site.ttl = 30;
  site.refuse = true;
  await page.waitForFunction(() => window.seen.errors.some((error) => error.includes('no ticket: 500')));
  site.refuse = false;
  await state(page, 'open');
  await whole(page, await numbers.publish(2));
});

test('Redis away: busy is no failure, nobody polls, and the stream opens when Redis is there', { timeout: 120_000 }, async (t) => {
  const { redis, gateway, site, proxy, context, url, numbers } = await stand(t);
  redis.process.kill('SIGSTOP');
  t.after(() => redis.process.kill('SIGCONT'));
  await until(async () => !await gateway.ready(), 'the gateway does not notice');
  const kinds = [];
  proxy.on('request', (kind) => kinds.push(kind));
  // The watchdog's time is less than the wait that the gateway asks for, and far more than it takes to answer.
  const page = await tab(context, site, { url, ...WAITS, failures: 1, heartbeat: 60_000, watchdog: 9000 });
  await page.evaluate(() => { window.stream.on('sse.busy', ({ reason }) => { window.busy = reason; }); });
  await page.waitForFunction(() => window.busy === 'redis-away');
  redis.process.kill('SIGCONT');
  await until(() => gateway.ready(), 'the gateway does not come back');
  await page.waitForFunction(() => window.stream.state === 'open', null, { timeout: 60_000 }); // told to come again in 10 to 30 s
  assert.deepEqual(new Set(kinds), new Set(['stream']));
  assert.equal((await seen(page)).tickets, 1, 'the wait that the gateway has asked for is the browser\'s');
  await whole(page, await numbers.publish(2));
});
