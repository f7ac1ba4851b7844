// clients/js in Node: with npm eventsource, with fetch only, and during server-side rendering,
// where it does nothing.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import path from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { EventSource } from 'eventsource';
import { connect } from '../../../clients/js/src/index.js';
import { Numbers, upTo, DELAYS } from '../lib/application.js';
import { freePort, start, withTimeout } from '../lib/processes.js';
import { Proxy } from '../lib/proxy.js';
import { Gateway, Redis, ticket } from '../lib/servers.js';

const client = path.resolve(
  path.dirname(fileURLToPath(import.meta.url)),
  '../../../clients/js/src/index.js',
);

/** Opens a stream. `until(condition)` waits for a condition after each callback. */
function listen(t, options) {
  const stream = connect({ ticket: () => ticket('42'), ...DELAYS, ...options });
  t.after(() => stream.close());
  const changes = new EventTarget();
  const [events, errors] = [[], []];
  const notify = () => changes.dispatchEvent(new Event('change'));
  stream.on('order-completed', ({ n }) => { events.push(n); notify(); });
  stream.onState(notify);
  stream.onError((error) => { errors.push(error); notify(); });
  const until = (condition) => withTimeout(
    (async () => { while (!condition()) await once(changes, 'change'); })(),
    () => `condition not met; state: ${stream.state}, events: ${events}, errors: ${errors}`,
  );
  return { stream, events, errors, until };
}

for (const [name, options] of [
  ['npm eventsource', { EventSource }],
  ['polls with fetch', { polling: 'only' }],
]) {
  test(`Node client resumes after crash: ${name}`, { timeout: 120_000 }, async (t) => {
    const redis = await Redis.start(t);
    const numbers = new Numbers(redis.client(t));
    const port = await freePort();
    const gateway = await Gateway.start(t, { redis, port });
    const { stream, events, until } = listen(t, { url: `${gateway.url}/events`, ...options });
    const expected = options.EventSource ? 'open' : 'polling';
    await until(() => stream.state === expected);
    // The first poll has no id and only returns the position; later events count.
    await until(() => stream.lastEventId);
    const first = await numbers.publish(3);
    await until(() => events.length === first);
    await gateway.crash();
    await until(() => stream.state === 'reconnecting');
    await numbers.publish(3);
    await Gateway.start(t, { redis, port });
    await until(() => events.length === 6 && stream.state === expected);
    const last = await numbers.publish(1);
    await until(() => events.length >= last);
    assert.deepEqual(events, upTo(last));
    assert.equal(stream.reconnectCount, 1);
  });
}

test('Node client polls until the proxy allows streams', { timeout: 120_000 }, async (t) => {
  const redis = await Redis.start(t);
  const numbers = new Numbers(redis.client(t));
  const gateway = await Gateway.start(t, { redis });
  const proxy = await Proxy.start(t, gateway.port);
  proxy.mode = 'refuses';
  const { stream, events, until } = listen(t, {
    url: `${proxy.url}/events`,
    EventSource,
    probe: 200,
  });
  await until(() => stream.state === 'polling');
  const flow = numbers.flow(5);
  await until(() => events.length > 10);
  proxy.mode = 'through';
  await until(() => stream.state === 'open');
  const last = await flow.stop();
  await until(() => events.length >= last);
  assert.deepEqual(events, upTo(last));
});

test('handler exception is reported and affects nothing else', async (t) => {
  const redis = await Redis.start(t);
  const numbers = new Numbers(redis.client(t));
  const gateway = await Gateway.start(t, { redis });
  const report = t.mock.method(console, 'error', () => {});
  const { stream, events, until } = listen(t, { url: `${gateway.url}/events`, EventSource });
  stream.on('order-completed', () => { throw new Error('handler failed'); });
  const after = [];
  stream.on('order-completed', ({ n }) => after.push(n));
  await until(() => stream.state === 'open');
  await numbers.publish(2);
  await until(() => events.length === 2);
  await new Promise(setImmediate);
  assert.deepEqual(after, [1, 2]);
  assert.equal(report.mock.callCount(), 2);
});

test('close() in a handler stops further calls', async (t) => {
  const redis = await Redis.start(t);
  const numbers = new Numbers(redis.client(t));
  const gateway = await Gateway.start(t, { redis });
  for (const options of [{ EventSource }, { polling: 'only' }]) {
    const { stream, events, until } = listen(t, { url: `${gateway.url}/events`, ...options });
    await until(() => stream.lastEventId);
    stream.on('order-completed', () => stream.close());
    await numbers.publish(3);
    await until(() => stream.state === 'closed');
    assert.equal(events.length, 1);
    stream.close();
    stream.reconnect();
    assert.equal(stream.state, 'closed');
  }
});

test('server-side rendering connects nothing and lets Node exit', async () => {
  const code = `import { connect } from ${JSON.stringify(client)};
    const ticket = () => { console.log('a ticket was requested'); return 'x'; };
    const options = { url: '/events', ticket };
    for (const share of [false, 'user-42']) console.log(connect({ ...options, share }).state);`;
  const child = start(process.execPath, ['--input-type=module', '--eval', code]);
  assert.deepEqual(
    await withTimeout(child.exited, 'the process did not exit'),
    { code: 0, signal: null },
    child.err,
  );
  assert.deepEqual(child.out, 'connecting\nconnecting\n');
  assert.match(child.err, /EventSource is not available/);
});
