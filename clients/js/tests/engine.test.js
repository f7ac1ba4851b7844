// One connection, against a gateway and a clock that the test plays: what its listeners may do, and what it does when things fail.
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { begin, Fake, settled } from './lib/fake.js';

/** Everything that ends a connection, told by a listener who then closes the stream. */
const CLOSERS = {
  'no ticket': async ({ closeOnError, wind }) => { closeOnError(); Fake.newest.fail(); await wind(2000); },
  'a final error': async ({ closeOnState }) => { closeOnState(); Fake.newest.fail(); },
  'taken over': async ({ closeOnError }) => { closeOnError(); Fake.newest.event('sse.closing', { reason: 'taken-over' }); },
  'the watchdog': async ({ closeOnState, wind }) => { closeOnState(); await wind(46_000, 1000); },
  'a poll that fails': async ({ closeOnError, wind }) => { closeOnError(); Fake.newest.fail(false); await wind(16_000, 1000); },
  'reconnect()': async ({ closeOnState, stream }) => { closeOnState(); stream.reconnect(); },
};
for (const [what, happens] of Object.entries(CLOSERS)) {
  test(`close() in a listener is the end: ${what}`, async (t) => {
    let refused = false;
    const all = await begin(t, { answer: () => new Error('no'), ticket: () => { if (refused) throw new Error('logged out'); return 'x'; } });
    const { stream, wind, seen } = all;
    Fake.newest.connected('1-0');
    assert.equal(stream.state, 'open');
    refused = what === 'no ticket';
    let closed = false;
    const close = () => { closed = true; refused = false; stream.close(); };
    await happens({ ...all, closeOnError: () => stream.onError(close), closeOnState: () => stream.onState((state) => { if (state === 'reconnecting') close(); }) });
    assert.ok(closed, 'the listener was called');
    const { states: { length }, tickets } = seen;
    const made = Fake.all.length;
    const polled = all.polls.length;
    await wind(120_000, 1000);
    assert.equal(stream.state, 'closed');
    assert.deepEqual(Fake.open, []);
    assert.deepEqual([seen.states.length, seen.tickets, Fake.all.length, all.polls.length], [length, tickets, made, polled]);
    assert.equal(seen.states.at(-1), 'closed');
  });
}

test('without polls too the waits grow: the browser\'s own tries, which do not, end after three', async (t) => {
  const { wind } = await begin(t, { polling: false });
  Fake.newest.connected('1-0');
  // The gateway is away for two minutes: a browser whose connection is refused tries again each 2 s.
  let tries = 0;
  for (let second = 0; second < 120; second += 2) {
    for (const source of Fake.open) { tries += 1; source.fail(false); }
    await wind(2000, 500);
  }
  assert.ok(Fake.all.length > 3, 'it opens new ones');
  assert.ok(tries <= 15, `${tries} tries in two minutes`);
});

test('more than 10,000 events polled beside a try of SSE end that try, not all tries', async (t) => {
  let flood = true;
  let n = 0;
  const many = () => Array.from({ length: flood ? 6000 : 1 }, () => [`${++n}-0`, 'a']);
  const { wind, stream, polls } = await begin(t, { failures: 1, probe: 10_000, answer: many });
  Fake.newest.fail();
  await wind(1000);
  assert.equal(Fake.all.length, 2, 'the next try, which hangs');
  assert.equal(stream.state, 'polling');
  await wind(4000); // more than 10,000 events beside it
  assert.deepEqual(Fake.open, []);
  flood = false;
  const before = polls.length;
  await wind(12_000);
  assert.ok(polls.length > before + 5);
  assert.equal(Fake.all.length, 3);
});

test('a name that is first listened to between a poll and SSE, which brings the same events again: none comes twice', async (t) => {
  const { stream, seen, wind } = await begin(t, { answer: (n) => (n === 1 ? [['1-0', 'a'], ['2-0', 'b'], ['3-0', 'a']] : undefined) });
  await wind(16_000, 1000);
  assert.deepEqual(seen.events.splice(0), ['a 1-0', 'a 3-0']);
  stream.on('b', (_, { id }) => seen.events.push(`b ${id}`));
  const source = Fake.newest;
  source.connected('0-0');
  for (const [type, id] of [['a', '1-0'], ['b', '2-0'], ['a', '3-0'], ['b', '4-0'], ['a', '5-0']]) source.event(type, {}, id);
  assert.deepEqual(seen.events, ['b 4-0', 'a 5-0']);
  assert.equal(stream.lastEventId, '5-0');
});

test('an event without an id (a relayed one) in the midst of what SSE brings again makes nothing come twice', async (t) => {
  const { seen, wind } = await begin(t, { answer: (n) => (n === 1 ? [['1-0', 'a'], ['2-0', 'a']] : undefined) });
  await wind(16_000, 1000);
  const source = Fake.newest;
  source.connected('0-0');
  source.event('a', {}, '1-0');
  source.event('a'); // repeats 1-0
  source.event('a', {}, '2-0');
  source.event('a', {}, '3-0');
  assert.deepEqual(seen.events, ['a 1-0', 'a 2-0', 'a 1-0', 'a 3-0']);
});

test('a gap from which the stream begins anew: what was polled before will not come again, and the id is the new one', async (t) => {
  const { stream, seen, wind } = await begin(t, { answer: (n) => (n === 1 ? [['1-0', 'a'], ['2-0', 'a']] : undefined) });
  await wind(16_000, 1000);
  const source = Fake.newest;
  source.connected('0-0');
  source.event('sse.gap', { reason: 'reset' }, '9-0');
  assert.equal(stream.lastEventId, '9-0');
  source.event('a', {}, '10-0');
  assert.deepEqual(seen.events, ['a 1-0', 'a 2-0', 'a 10-0']);
});

test('a poll whose answer is full is followed by the next one at once', async (t) => {
  const { polls, wind } = await begin(t, { polling: 'only', answer: (n) => (n <= 3 ? Array.from({ length: 8000 }, (_, i) => [`${n}-${i}`, 'a']) : []) });
  await wind(100, 10);
  assert.equal(polls.length, 4);
  await wind(500, 10);
  assert.equal(polls.length, 4, 'and after one that is not, it waits');
});

test('the browser\'s own reconnect is held back: polls begin after a heartbeat, as at the start', async (t) => {
  const { stream, wind, polls } = await begin(t, { answer: () => [] });
  Fake.newest.connected('1-0');
  await wind(20_000, 1000);
  assert.equal(polls.length, 0);
  Fake.newest.fail(false);
  await wind(14_000, 1000);
  assert.equal(polls.length, 0);
  await wind(2000, 1000);
  assert.ok(polls.length > 0);
  assert.equal(stream.state, 'polling');
});

test('after sse.busy the browser waits for as long as it was told: nobody polls meanwhile', async (t) => {
  const { wind, polls } = await begin(t, { answer: () => [] });
  Fake.newest.event('sse.busy', { reason: 'redis-away' });
  Fake.newest.fail(false);
  await wind(40_000, 1000);
  assert.equal(polls.length, 0);
  assert.equal(Fake.all.length, 1);
});

test('reconnect() while polling: the polls too get a new ticket, and nothing is lost or doubled', async (t) => {
  const { stream, seen, polls, wind } = await begin(t, { polling: 'only', answer: (n) => [[`${n}-0`, 'a']] });
  await wind(3000);
  assert.deepEqual(new Set(polls.map((url) => url.searchParams.get('ticket'))), new Set(['ticket-1']));
  stream.reconnect();
  await wind(3000);
  assert.equal(polls.at(-1).searchParams.get('ticket'), 'ticket-2');
  assert.equal(seen.tickets, 2);
  assert.deepEqual(seen.events, polls.map((_, i) => `a ${i + 1}-0`));
});

test('reconnect() while offline does not make it deaf to `online`', async (t) => {
  const network = { onLine: true };
  const page = new EventTarget();
  const real = Object.getOwnPropertyDescriptor(globalThis, 'navigator');
  Object.defineProperty(globalThis, 'navigator', { value: network, configurable: true });
  globalThis.addEventListener = page.addEventListener.bind(page);
  t.after(() => {
    if (real) Object.defineProperty(globalThis, 'navigator', real); else delete globalThis.navigator;
    delete globalThis.addEventListener;
  });
  const { stream } = await begin(t, { polling: false });
  Fake.newest.connected('1-0');
  const set = (online) => { network.onLine = online; page.dispatchEvent(new Event(online ? 'online' : 'offline')); };
  set(false);
  assert.equal(stream.state, 'reconnecting');
  stream.reconnect();
  await settled();
  Fake.newest.fail();
  const made = Fake.all.length;
  set(true);
  await settled();
  assert.equal(Fake.all.length, made + 1, 'at once, without a wait');
});

test('waits for ever are no waits of 0 ms', async (t) => {
  const { wind } = await begin(t, { failures: 1, probe: Infinity, heartbeat: Infinity, answer: () => [] });
  Fake.newest.fail();
  await wind(2000);
  Fake.newest.fail();
  await wind(300_000, 1000);
  assert.equal(Fake.all.length, 2);
  const slow = await begin(t, { watchdog: Infinity, ticket: () => new Promise((resolve) => { setTimeout(resolve, 600_000, 'x'); }) });
  await slow.wind(599_000, 10_000);
  assert.deepEqual(slow.seen.errors, []);
});

test('in Node a stream that was closed while its ticket was on its way keeps no process alive', async () => {
  const code = `import { connect } from ${JSON.stringify(fileURLToPath(new URL('../src/index.js', import.meta.url)))};
    const stream = connect({ url: 'http://gateway/events', ticket: () => new Promise(() => {}), EventSource: class {}, watchdog: 1e9 });
    setTimeout(() => stream.close(), 1);`;
  await promisify(execFile)(process.execPath, ['--input-type=module', '--eval', code], { timeout: 30_000 });
});

test('`share` must be a name: `true` would give one user\'s events to the next', async (t) => {
  for (const share of [true, 1, {}]) await assert.rejects(begin(t, { share }), { name: 'TypeError', message: /name that holds the user/ });
  for (const share of [false, undefined, '', 'user-42']) await begin(t, { share });
});
