// clients/js in Node: with npm eventsource, with nothing but fetch, and on the server side of a page, where it does nothing.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import path from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { EventSource } from 'eventsource';
import { connect } from '../../../clients/js/src/index.js';
import { Numbers, upTo, WAITS } from '../lib/front.js';
import { freePort, start, within } from '../lib/processes.js';
import { Proxy } from '../lib/proxy.js';
import { Gateway, Redis, ticket } from '../lib/stand.js';

const client = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '../../../clients/js/src/index.js');

/** A stream, and a way to await what it says. */
function listen(t, options) {
  const stream = connect({ ticket: () => ticket('42'), ...WAITS, ...options });
  t.after(() => stream.close());
  const heard = new EventTarget();
  const [events, errors] = [[], []];
  const say = () => heard.dispatchEvent(new Event('heard'));
  stream.on('order-completed', ({ n }) => { events.push(n); say(); });
  stream.onState(say);
  stream.onError((error) => { errors.push(error); say(); });
  const until = (enough) => within((async () => { while (!enough()) await once(heard, 'heard'); })(), () => `in vain: ${stream.state} ${events} ${errors}`);
  return { stream, events, errors, until };
}

for (const [name, options] of [['npm eventsource', { EventSource }], ['polls with fetch', { polling: 'only' }]]) {
  test(`Node, ${name}: the gateway is killed and comes back`, { timeout: 120_000 }, async (t) => {
    const redis = await Redis.start(t);
    const numbers = new Numbers(redis.client(t));
    const port = await freePort();
    const gateway = await Gateway.start(t, { redis, port });
    const { stream, events, until } = listen(t, { url: `${gateway.url}/events`, ...options });
    const works = options.EventSource ? 'open' : 'polling';
    await until(() => stream.state === works);
    // Without an id the first poll says where it stands; what follows is what counts.
    await until(() => stream.lastEventId);
    const first = await numbers.publish(3);
    await until(() => events.length === first);
    await gateway.crash();
    await until(() => stream.state === 'reconnecting');
    await numbers.publish(3);
    await Gateway.start(t, { redis, port });
    await until(() => events.length === 6 && stream.state === works);
    const last = await numbers.publish(1);
    await until(() => events.length >= last);
    assert.deepEqual(events, upTo(last));
    assert.equal(stream.reconnectCount, 1);
  });
}

test('Node, npm eventsource: a proxy that blocks streams, then lets them through', { timeout: 120_000 }, async (t) => {
  const redis = await Redis.start(t);
  const numbers = new Numbers(redis.client(t));
  const gateway = await Gateway.start(t, { redis });
  const proxy = await Proxy.start(t, gateway.port);
  proxy.mode = 'refuses';
  const { stream, events, until } = listen(t, { url: `${proxy.url}/events`, EventSource, probe: 200 });
  await until(() => stream.state === 'polling');
  const flow = numbers.flow(5);
  await until(() => events.length > 10);
  proxy.mode = 'through';
  await until(() => stream.state === 'open');
  const last = await flow.stop();
  await until(() => events.length >= last);
  assert.deepEqual(events, upTo(last));
});

test('what a handler throws is reported and stops neither the others nor the stream', async (t) => {
  const redis = await Redis.start(t);
  const numbers = new Numbers(redis.client(t));
  const gateway = await Gateway.start(t, { redis });
  const report = t.mock.method(console, 'error', () => {});
  const { stream, events, until } = listen(t, { url: `${gateway.url}/events`, EventSource });
  stream.on('order-completed', () => { throw new Error('a fault in a handler'); });
  const after = [];
  stream.on('order-completed', ({ n }) => after.push(n));
  await until(() => stream.state === 'open');
  await numbers.publish(2);
  await until(() => events.length === 2);
  await new Promise(setImmediate);
  assert.deepEqual(after, [1, 2]);
  assert.equal(report.mock.callCount(), 2);
});

test('close() in a handler: it is the last call', async (t) => {
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

test('on the server side of a page: it says so, does nothing, and keeps no process alive', async () => {
  const code = `import { connect } from ${JSON.stringify(client)};
    const options = { url: '/events', ticket: () => { console.log('a ticket was asked for'); return 'x'; } };
    for (const share of [false, 'user-42']) console.log(connect({ ...options, share }).state);`;
  const child = start(process.execPath, ['--input-type=module', '--eval', code]);
  assert.deepEqual(await within(child.exited, 'it keeps the process alive'), { code: 0, signal: null }, child.err);
  assert.deepEqual(child.out, 'connecting\nconnecting\n');
  assert.match(child.err, /EventSource is not available/);
});
