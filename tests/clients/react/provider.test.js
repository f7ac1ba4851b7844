// SseProvider: one stream for all components, retained values, signing out.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setUp } from './lib.js';
import { schemas } from './schemas.js';

const price = (client, symbol, price) =>
  client.fcall('sse_publish', 1, 'broadcast:prices', 'price', JSON.stringify({ symbol, price }),
    'KEEP', symbol);

for (const [name, react] of [['React 19', '.'], ['React 18', 'with-18']]) {
  test(`components share the provider's stream and values: ${name}`, async (t) => {
    const { client, tab, show, status, publish, events, opened, connectionsAre, tickets } =
      await setUp(t, {
        react,
        claims: { presence: true },
        settings: { 'presence.enabled': 'true' },
      });
    const output = (text) => tab.waitForFunction(
      (text) => document.querySelector('output')?.textContent === text, text);
    await price(client, 'btc', 1);
    await price(client, 'eth', 2);

    const topics = ['*', 'presence'];
    await show('Desk', { topics, tags: ['a', 'b'] });
    await status('open');
    await publish(1);
    assert.deepEqual(await events(2), [['a', 'order', 1], ['b', 'order', 1]]);
    await tab.waitForFunction(() => document.querySelector('i').textContent === '42');

    // Mounted later: the values are there at once. Events of other channels are ignored.
    await show('Desk', { topics, tags: ['b'], symbol: 'btc', names: ['order', 'other'] });
    await output('1; btc 1, eth 2; 0');
    const renders = await tab.evaluate(() => window.seen.renders);
    await price(client, 'btc', 3);
    await output('3; btc 3, eth 2; 0');
    await client.fcall('sse_publish', 1, 'broadcast:prices', 'delisted', '{"symbol":"eth"}',
      'FORGET', 'eth');
    await output('3; btc 3; 0');
    await publish(2, 'other');
    await publish(3);
    assert.deepEqual((await events(4)).slice(2), [['b', 'other', 2], ['b', 'order', 3]]);
    assert.equal(await tab.evaluate(() => window.seen.renders), renders);
    await tab.waitForFunction(() => window.result.lastEventId);

    assert.deepEqual([await opened(), tickets()], [1, 1]);
    await show(null);
    await connectionsAre(0);
    assert.deepEqual(tab.consoleErrors, []);
  });
}

test('values that were forgotten during a gap are discarded', async (t) => {
  const { client, gateway, restart, tab, show, status } =
    await setUp(t, { settings: { 'history.max_len': '5' } });
  const output = (text) => tab.waitForFunction(
    (text) => document.querySelector('output')?.textContent === text, text);
  await price(client, 'btc', 1);
  await price(client, 'eth', 2);
  await show('Desk', { symbol: 'btc', tags: ['a'] });
  await status('open');
  await output('1; btc 1, eth 2; 0');
  await gateway.crash();
  await status('reconnecting');
  const forget = client.pipeline();
  forget.fcall('sse_publish', 1, 'broadcast:prices', 'delisted', '{"symbol":"btc"}',
    'FORGET', 'btc');
  for (let n = 0; n < 500; n++)
    forget.fcall('sse_publish', 1, 'broadcast:prices', 'tick', '{}');
  await forget.exec();
  await restart();
  await output('undefined; eth 2; 0');
  assert.deepEqual(await tab.evaluate(() => window.seen.gaps), ['trimmed']);
});

test('signed-out provider stops, and continues after a login', async (t) => {
  const { tab, show, state, status, publish, events, tickets } = await setUp(t);
  state.signedOut = true;
  await show('Desk', { tags: ['a'] });
  await status('signed-out');
  assert.equal(await tab.textContent('.connection-status'), 'Connection: Signed out');
  await show('Desk', { tags: ['a'], enabled: false });
  await status('closed');
  await show('Desk', { tags: ['a'] });
  await status('signed-out');
  assert.equal(tickets(), 2);
  assert.match((await tab.evaluate(() => window.seen.errors)).join(), /401/);
  state.signedOut = false;
  await tab.click('button');
  await status('open');
  await publish(1);
  assert.deepEqual(await events(1), [['a', 'order', 1]]);
  assert.equal(tickets(), 3);
});

test('schemas check events and convert their data', async (t) => {
  const { tab, show, status, publish, events } = await setUp(t);
  await show('Desk', { tags: ['a'], checked: true, names: ['order', 'other'] });
  await status('open');
  await publish(schemas.order.parse({ n: 1 }).n);
  await publish('no number');
  await publish(2, 'other');
  assert.deepEqual(await events(2), [['a', 'order', 100], ['a', 'other', 2]]);
  assert.match(
    (await tab.evaluate(() => window.seen.errors)).join(),
    /^Error: event order does not match its schema: n: .*expected number/,
  );
});
