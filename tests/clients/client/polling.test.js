// If streams are blocked, clients/js polls and later returns to SSE: no event is lost or
// duplicated.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  received,
  seen,
  stateSeen,
  setUp,
  stateIs,
  tab,
  DELAYS,
  expectComplete,
} from '../lib/application.js';
import { until, withTimeout } from '../lib/processes.js';

/** The claims of the ticket in a request's URL. */
function ticketOf(url) {
  const [, claims] = new URL(url, 'http://proxy').searchParams.get('ticket').split('.');
  return JSON.parse(Buffer.from(claims, 'base64url'));
}

test('buffered stream switches to polling and back', { timeout: 120_000 }, async (t) => {
  const { gateway, site, proxy, context, url, numbers } = await setUp(t);
  proxy.mode = 'buffers';
  const [streamed, polled] = [proxy.nextRequest('stream'), proxy.nextRequest('poll')];
  const opening = tab(context, site, {
    url,
    ...DELAYS,
    heartbeat: 1000,
    watchdog: 9000,
    probe: 500,
  });
  // One heartbeat lies between the two; the rest is tolerance for a loaded machine. The watchdog
  // alone would start polls after it has ended three streams.
  await streamed;
  await withTimeout(polled, 'no poll before the watchdog ends the buffered stream', 9000);
  const page = await opening;
  await stateIs(page, 'polling');
  const flow = numbers.flow(10);
  await received(page, 30);
  // SSE attempts run in parallel and fail.
  await proxy.nextRequest('stream');
  await received(page, numbers.n + 30);
  assert.equal((await seen(page)).state, 'polling');
  proxy.mode = 'through';
  await stateIs(page, 'open');
  await received(page, numbers.n + 30);
  await expectComplete(page, await flow.stop());
  const { states, errors, reconnectCount } = await seen(page);
  assert.deepEqual(states, ['polling', 'open']);
  assert.deepEqual(errors, []);
  assert.equal(reconnectCount, 0, 'the connection was never lost');
  assert.ok(await gateway.metric('sse_connections_opened_total{transport="poll"}') > 0);
});

test('stream without response starts polling in parallel', { timeout: 120_000 }, async (t) => {
  const { site, proxy, context, url, numbers } = await setUp(t);
  proxy.mode = 'holds-streams';
  const page = await tab(context, site, { url, ...DELAYS, heartbeat: 1000, watchdog: 600_000 });
  await stateIs(page, 'polling');
  await received(page, await numbers.publish(5));
  proxy.release();
  await stateIs(page, 'open');
  const { states } = await expectComplete(page, await numbers.publish(5));
  assert.deepEqual(states, ['polling', 'open']);
});

test('stream blocked while open switches to polling and back', { timeout: 120_000 }, async (t) => {
  const { site, proxy, context, url, numbers } = await setUp(t);
  const page = await tab(context, site, {
    url,
    ...DELAYS,
    heartbeat: 1000,
    watchdog: 9000,
    probe: 500,
  });
  await stateIs(page, 'open');
  const flow = numbers.flow(10);
  for (const mode of ['refuses', 'buffers']) {
    await received(page, numbers.n + 10);
    proxy.mode = mode;
    proxy.cut();
    await stateIs(page, 'polling');
    await received(page, numbers.n + 30);
    proxy.mode = 'through';
    await stateIs(page, 'open');
  }
  await received(page, numbers.n + 30);
  const { errors, states } = await expectComplete(page, await flow.stop());
  // A stream that takes longer than a heartbeat to open is preceded by polls.
  assert.deepEqual(states.slice(states.indexOf('open')), [
    'open',
    'reconnecting',
    'polling',
    'open',
    'reconnecting',
    'polling',
    'open',
  ]);
  assert.deepEqual(errors, []);
});

test('events repeated by SSE are not duplicated', { timeout: 120_000 }, async (t) => {
  const { site, proxy, context, url, numbers } = await setUp(t);
  proxy.mode = 'refuses';
  const page = await tab(context, site, { url, ...DELAYS, probe: 500 });
  await stateIs(page, 'polling');
  // An SSE attempt is pending while polls return events.
  proxy.mode = 'holds-streams';
  await proxy.nextRequest('stream');
  await received(page, await numbers.publish(5));
  await received(page, await numbers.publish(5));
  proxy.release();
  await stateIs(page, 'open');
  const { states } = await expectComplete(page, await numbers.publish(5));
  assert.deepEqual(states, ['polling', 'open']);
});

test('polling only never opens a stream', { timeout: 120_000 }, async (t) => {
  const { client, gateway, site, proxy, context, url, start, numbers } = await setUp(
    t,
    { 'tickets.leeway': '0s', 'tickets.reconnect_grace': '1s' },
    { ttl: 2 },
  );
  const page = await tab(context, site, { url, ...DELAYS, watchdog: 3000, polling: 'only' });
  proxy.on('request', (kind) => assert.notEqual(kind, 'stream'));
  await stateIs(page, 'polling');
  const flow = numbers.flow(30);
  await received(page, 5);
  proxy.mode = 'holds';
  const { exp } = ticketOf(await proxy.nextRequest('poll'));
  // The ticket is valid until the second `exp` has passed, and its session a little longer.
  await until(() => Date.now() >= (exp + 1) * 1000, 'the clock does not advance');
  const sessions = () => client.keys('sse:session:*');
  await until(async () => (await sessions()).length === 0, 'the session does not expire');
  proxy.release();
  await page.waitForFunction(() => window.seen.tickets >= 2);
  await received(page, numbers.n);
  await gateway.crash();
  await stateIs(page, 'reconnecting');
  await start();
  await stateSeen(page, 'polling', 2);
  const { errors } = await expectComplete(page, await flow.stop());
  assert.ok(errors.length > 0, 'a failed poll is not reported to onError');
});

test('refused ticket is reported and the stream recovers', { timeout: 120_000 }, async (t) => {
  const { site, context, url, numbers } = await setUp(t);
  site.ttl = 600; // longer than the maximum
  const page = await tab(context, site, { url, ...DELAYS, probe: 200 });
  await page.waitForFunction(() =>
    window.seen.errors.some((error) => error.includes('ticket-too-long-lived')),
  );
  assert.equal((await seen(page)).state, 'connecting');
  site.ttl = 30;
  site.refuse = true;
  await page.waitForFunction(() =>
    window.seen.errors.some((error) => error.includes('no ticket: 500')),
  );
  site.refuse = false;
  await stateIs(page, 'open');
  await expectComplete(page, await numbers.publish(2));
});

test('busy gateway does not start polling', { timeout: 120_000 }, async (t) => {
  const { redis, gateway, site, proxy, context, url, numbers } = await setUp(t);
  redis.process.kill('SIGSTOP');
  t.after(() => redis.process.kill('SIGCONT'));
  await until(async () => !(await gateway.ready()), 'the gateway stays ready');
  const kinds = [];
  proxy.on('request', (kind) => kinds.push(kind));
  // The watchdog is shorter than the delay requested by the gateway, and longer than any response
  // time.
  const page = await tab(context, site);
  await page.evaluate((options) => {
    window.start(options);
    window.stream.on('sse.busy', ({ reason }) => {
      window.busy = reason;
    });
  }, {
    url,
    ...DELAYS,
    failures: 1,
    heartbeat: 60_000,
    watchdog: 9000,
  });
  await page.waitForFunction(() => window.busy === 'redis-away');
  redis.process.kill('SIGCONT');
  await until(() => gateway.ready(), 'the gateway does not become ready');
  // The gateway requests a delay of 10 to 30 s.
  await page.waitForFunction(() => window.stream.state === 'open', null, { timeout: 60_000 });
  assert.deepEqual(new Set(kinds), new Set(['stream']));
  assert.equal(
    (await seen(page)).tickets,
    1,
    'the browser applies the delay requested by the gateway',
  );
  await expectComplete(page, await numbers.publish(2));
});
