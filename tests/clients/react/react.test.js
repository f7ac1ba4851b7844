// The hooks in strict mode, in React and a browser: what reconnects, what does not, and cleanup.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setUp } from './lib.js';

for (const [name, react] of [['React 19', '.'], ['React 18', 'with-18']]) {
  test(`strict mode opens one connection: ${name}`, async (t) => {
    const { tab, show, status, publish, events, opened, connections, connectionsAre, tickets } =
      await setUp(t, { react });
    await show('Probe');
    await status('open');
    await publish(1);
    assert.deepEqual(await events(1), [['order', 1]]);
    assert.equal(await connections(), 1);
    assert.equal(await opened(), 1);
    assert.equal(tickets(), 1);
    assert.equal(await tab.textContent('.connection-status'), 'Connection: Live');
    assert.equal(await tab.getAttribute('.connection-status', 'role'), 'status');

    await show(null);
    await connectionsAre(0);
    await publish(2);
    await show('Probe', { tag: 'new' });
    await status('open');
    await publish(3);
    assert.deepEqual(await events(2), [['order', 1], ['new', 'order', 3]]);
    assert.equal(await opened(), 2);
    assert.deepEqual(tab.consoleErrors, []);
  });
}

test('changed handlers keep the connection', async (t) => {
  const { show, status, publish, events, opened, tickets } = await setUp(t);
  await show('Probe', { tag: 'first' });
  await status('open');
  await publish(1);
  await events(1);
  await show('Probe', { tag: 'second', names: ['order', 'payment'] });
  await publish(2);
  await publish(3, 'payment');
  await events(3);
  await show('Probe', { tag: 'third', names: ['payment'] });
  await publish(4);
  await publish(5, 'payment');
  assert.deepEqual(await events(4), [
    ['first', 'order', 1],
    ['second', 'order', 2],
    ['second', 'payment', 3],
    ['third', 'payment', 5],
  ]);
  assert.equal(await opened(), 1);
  assert.equal(tickets(), 1);
});

test('changed topics or url open a new connection', async (t) => {
  const { gateway, tab, show, status, publish, events, opened, connectionsAre } = await setUp(t);
  await show('Probe', { topics: ['a', 'b'] });
  await status('open');
  await show('Probe', { topics: ['b', 'a'] });
  await publish(1, 'order', 'broadcast:a');
  await events(1);
  assert.equal(await opened(), 1);

  await show('Probe', { topics: ['c'] });
  await publish(2, 'order', 'broadcast:a');
  await publish(3, 'order', 'broadcast:c');
  assert.deepEqual(await events(2), [['order', 1], ['order', 3]]);
  assert.equal(await opened(), 2);
  await connectionsAre(1);

  const other = gateway.url.replace('127.0.0.1', 'localhost');
  await show('Probe', { url: `${other}/events`, topics: ['c'] });
  await tab.waitForFunction(() => window.seen.states.length >= 4);
  await status('open');
  await publish(4);
  await events(3);
  assert.equal(await opened(), 3);
  await connectionsAre(1);
  assert.deepEqual(await tab.evaluate(() => window.seen.gaps), []);
});

test('disabled hook resumes when enabled again', async (t) => {
  const { tab, show, status, publish, events, opened, connectionsAre, tickets } = await setUp(t);
  await show('Probe', { enabled: false });
  await status('closed');
  assert.equal(tickets(), 0);
  await show('Probe');
  await status('open');
  await publish(1);
  await events(1);
  await show('Probe', { enabled: false });
  await status('closed');
  await connectionsAre(0);
  await publish(2);
  await show('Probe');
  await status('open');
  await publish(3);
  assert.deepEqual(await events(3), [['order', 1], ['order', 2], ['order', 3]]);

  // The same with close() and reconnect().
  await tab.evaluate(() => window.result.close());
  await status('closed');
  await connectionsAre(0);
  await publish(4);
  await tab.evaluate(() => window.result.reconnect());
  await publish(5);
  assert.deepEqual((await events(5)).slice(3), [['order', 4], ['order', 5]]);
  assert.equal(await opened(), 3);
  assert.equal(tickets(), 3);
});

test('reconnect() in an effect opens one connection', async (t) => {
  const { show, status, publish, events, connectionsAre } = await setUp(t);
  await show('Probe', { atMount: 'reconnect' });
  await status('open');
  await connectionsAre(1);
  await publish(1);
  assert.deepEqual(await events(1), [['order', 1]]);
  await show(null);
  await connectionsAre(0);
});

test('close() in an effect prevents the connection', async (t) => {
  const { tab, show, status, publish, events, tickets, connectionsAre } = await setUp(t);
  await show('Probe', { atMount: 'close' });
  await status('closed');
  await tab.evaluate(() => fetch('/api/orders')); // a ticket would have been requested before
  assert.equal(tickets(), 0);
  await tab.evaluate(() => window.result.reconnect());
  await status('open');
  await publish(1);
  assert.deepEqual(await events(1), [['order', 1]]);
  await connectionsAre(1);
});

test('onOpen and onMessage are called, also after a crash', async (t) => {
  const { gateway, restart, tab, show, status, publish, events } = await setUp(t);
  const seen = () => tab.evaluate(() => [window.seen.opens, window.seen.messages]);
  await show('Probe', { types: ['payment'] });
  await status('open');
  await publish(1);
  await events(1);
  assert.deepEqual(await seen(), [1, []]);
  await show('Probe', { types: ['payment'], showsMessages: true });
  await gateway.crash();
  await status('reconnecting');
  for (const [n, type] of [[2, 'payment'], [3, 'message'], [4, 'order'], [5, 'unknown']])
    await publish(n, type);
  await restart();
  await publish(6);
  await events(3);
  assert.deepEqual(
    await seen(), [2, [['payment', 2], ['message', 3], ['order', 4], ['order', 6]]],
  );
});

test('missing url is reported and can follow', async (t) => {
  const { gateway, tab, show, status, connectionsAre } = await setUp(t);
  await show('Probe', { url: null });
  await status('closed');
  assert.match((await tab.evaluate(() => window.seen.errors)).join(), /TypeError.*url/);
  await show('Probe', { url: `${gateway.url}/events` });
  await status('open');
  await connectionsAre(1);
  assert.deepEqual(tab.consoleErrors, []);
});

test('lastEventId advances on an idle stream', async (t) => {
  const { tab, show, status } = await setUp(t, { settings: { 'server.heartbeat': '300ms' } });
  await show('Probe', { showsId: true });
  await status('open');
  const id = await tab.textContent('output');
  await tab.waitForFunction(
    (id) => !['', id].includes(document.querySelector('output').textContent),
    id,
  );
  const first = await tab.textContent('output');
  await tab.waitForFunction(
    (first) => document.querySelector('output').textContent !== first,
    first,
  );
});

test('useResilientRealtime follows and reports its mode', async (t) => {
  const { tab, show, status, publish, events, connectionsAre } = await setUp(t);
  const mode = () => tab.evaluate(() => window.result.mode);
  await show('Probe', { hook: 'useResilientRealtime', mode: 'polling' });
  await status('polling');
  assert.equal(await mode(), 'polling');
  await publish(1);
  await events(1);
  await show('Probe', { hook: 'useResilientRealtime', mode: 'sse' });
  await status('open');
  await tab.waitForFunction(() => window.result.mode === 'sse');
  await connectionsAre(1);
  await publish(2);
  await events(2);
  await show('Probe', { hook: 'useResilientRealtime' });
  await tab.waitForFunction(
    () => window.seen.states.at(-1) === 'open' && window.seen.states.length >= 6,
  );
  await publish(3);
  assert.deepEqual(await events(3), [['order', 1], ['order', 2], ['order', 3]]);
  await connectionsAre(1);
});

test('gateway crash is shown and counted', async (t) => {
  const { gateway, restart, tab, show, status, publish, events } = await setUp(t);
  await show('Probe');
  await status('open');
  await gateway.crash();
  await status('reconnecting');
  assert.match(await tab.textContent('.connection-status'), /Reconnecting/);
  assert.equal(await tab.evaluate(() => window.result.reconnectCount), 0);
  await publish(1);
  await restart();
  await status('open');
  assert.deepEqual(await events(1), [['order', 1]]);
  // Effects, which record this, may run after the text has changed.
  await tab.waitForFunction(
    () => window.result.reconnectCount === 1 && window.seen.states.at(-1) === 'open',
  );
  // If the gateway starts slowly, a poll may succeed just before the stream.
  const states = await tab.evaluate(() => window.seen.states);
  assert.deepEqual(states.filter((state) => state !== 'polling'), [
    'connecting',
    'connecting',
    'open',
    'reconnecting',
    'open',
  ]);
});

test('events only re-render components that read lastEventId', async (t) => {
  const { client, tab, show, status, events } = await setUp(t);
  await show('Probe');
  await status('open');
  const before = await tab.evaluate(() => window.seen.renders);
  const flood = async (first) => {
    const pipeline = client.pipeline();
    for (let n = first; n < first + 500; n += 1)
      pipeline.fcall('sse_publish', 1, 'user:42:events', 'order', JSON.stringify({ n }));
    return (await pipeline.exec()).at(-1)[1];
  };
  await flood(0);
  await events(500);
  assert.equal(await tab.evaluate(() => window.seen.renders), before);

  await show('Probe', { showsId: true });
  const last = await flood(500);
  await tab.waitForFunction((last) => document.querySelector('output')?.textContent === last, last);
  assert.equal((await events(1000)).length, 1000);
  const renders = await tab.evaluate(() => window.seen.renders) - before;
  assert.ok(renders < 250, `${renders} renders for 500 events`);
});
