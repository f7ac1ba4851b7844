// One connection, against a fake gateway and a fake clock: callbacks that close it, and failures.
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { TicketError } from '../src/index.js';
import { Fake, openStream, settled } from './lib/fake.js';

/** Events that end a connection, each with a listener that then closes the stream. */
const CLOSERS = {
  'no ticket': async ({ closeOnError, advance }) => {
    closeOnError();
    Fake.newest.fail();
    await advance(2000);
  },
  'a final error': async ({ closeOnState }) => {
    closeOnState();
    Fake.newest.fail();
  },
  'taken over': async ({ closeOnError }) => {
    closeOnError();
    Fake.newest.event('sse.closing', { reason: 'taken-over' });
  },
  'the watchdog': async ({ closeOnState, advance }) => {
    closeOnState();
    await advance(46_000, 1000);
  },
  'a poll that fails': async ({ closeOnError, advance }) => {
    closeOnError();
    Fake.newest.fail(false);
    await advance(16_000, 1000);
  },
  'reconnect()': async ({ closeOnState, stream }) => {
    closeOnState();
    stream.reconnect();
  },
};
for (const [what, happens] of Object.entries(CLOSERS)) {
  test(`close() in a listener is final: ${what}`, async (t) => {
    let refused = false;
    const setup = await openStream(t, {
      answer: () => new Error('poll failed'),
      ticket: () => {
        if (refused) throw new Error('logged out');
        return 'x';
      },
    });
    const { stream, advance, seen } = setup;
    Fake.newest.connected('1-0.a');
    assert.equal(stream.state, 'open');
    refused = what === 'no ticket';
    let closed = false;
    const close = () => { closed = true; refused = false; stream.close(); };
    await happens({
      ...setup,
      closeOnError: () => stream.onError(close),
      closeOnState: () =>
        stream.onState((state) => {
          if (state === 'reconnecting') close();
        }),
    });
    assert.ok(closed, 'the listener was called');
    const { states: { length }, tickets } = seen;
    const opened = Fake.all.length;
    const polled = setup.polls.length;
    await advance(120_000, 1000);
    assert.equal(stream.state, 'closed');
    assert.deepEqual(Fake.open, []);
    assert.deepEqual(
      [seen.states.length, seen.tickets, Fake.all.length, setup.polls.length],
      [length, tickets, opened, polled],
    );
    assert.equal(seen.states.at(-1), 'closed');
  });
}

for (const ticket of [undefined, async () => null]) {
  test(`cookie in place of a ticket is sent by streams and polls: ${ticket}`, async (t) => {
    const { advance, polls, seen } = await openStream(t, {
      ticket,
      withCredentials: true,
      failures: 1,
      answer: () => [['1-0.a', 'a']],
    });
    Fake.newest.fail();
    await advance(3000);
    for (const { url, withCredentials } of Fake.all) {
      assert.equal(url.searchParams.get('ticket'), null);
      assert.equal(withCredentials, true);
    }
    assert.ok(polls.length > 1);
    for (const { searchParams, credentials } of polls) {
      assert.equal(searchParams.get('ticket'), null);
      assert.equal(credentials, 'include');
    }
    assert.deepEqual([seen.errors, seen.events[0]], [[], 'a 1-0.a']);
  });
}

test('native reconnects are replaced after three failures', async (t) => {
  const { advance } = await openStream(t, { polling: false });
  Fake.newest.connected('1-0.a');
  // The gateway is down for two minutes. A browser retries a refused connection every 2 s.
  let tries = 0;
  for (let second = 0; second < 120; second += 2) {
    for (const source of Fake.open) { tries += 1; source.fail(false); }
    await advance(2000, 500);
  }
  assert.ok(Fake.all.length > 3, 'no new source was opened');
  assert.ok(tries <= 15, `${tries} tries in two minutes`);
});

test('10,000 polled events end the parallel SSE attempt', async (t) => {
  let flood = true;
  let n = 0;
  const many = () => Array.from({ length: flood ? 6000 : 1 }, () => [`${++n}-0.a`, 'a']);
  const { advance, stream, polls } = await openStream(t, {
    failures: 1,
    probe: 10_000,
    answer: many,
  });
  Fake.newest.fail();
  await advance(1000);
  assert.equal(Fake.all.length, 2, 'the next attempt, which hangs');
  assert.equal(stream.state, 'polling');
  await advance(4000); // more than 10,000 events meanwhile
  assert.deepEqual(Fake.open, []);
  flood = false;
  const before = polls.length;
  await advance(12_000);
  assert.ok(polls.length > before + 5);
  assert.equal(Fake.all.length, 3);
});

test('values of a source that was buffered do not follow polled events', async (t) => {
  const { seen, advance } = await openStream(t, {
    lastEventId: undefined,
    answer: (n) => (n === 1 ? [['2-0.a', 'a']] : undefined),
  });
  await advance(16_000, 1000);
  assert.deepEqual(seen.events.splice(0), ['a 2-0.a']);
  const source = Fake.newest;
  source.connected('1-0.a!');
  source.event('sse.snapshot', { covers: ['broadcast:*'], channels: {} });
  source.event('a');
  source.event('sse.heartbeat', {}, '1-0.a');
  source.event('a', {}, '2-0.a');
  source.event('a', {}, '3-0.a');
  assert.deepEqual(seen.events, ['a 3-0.a']);
});

test('handler added between poll and SSE sees no duplicates', async (t) => {
  const { stream, seen, advance } = await openStream(t, {
    answer: (n) =>
      n === 1
        ? [
            ['1-0.a', 'a'],
            ['2-0.a', 'b'],
            ['3-0.a', 'a'],
          ]
        : undefined,
  });
  await advance(16_000, 1000);
  assert.deepEqual(seen.events.splice(0), ['a 1-0.a', 'a 3-0.a']);
  stream.on('b', (_, { id }) => seen.events.push(`b ${id}`));
  const source = Fake.newest;
  source.connected('0-0.a');
  for (const [type, id] of [
    ['a', '1-0.a'],
    ['b', '2-0.a'],
    ['a', '3-0.a'],
    ['b', '4-0.a'],
    ['a', '5-0.a'],
  ])
    source.event(type, {}, id);
  assert.deepEqual(seen.events, ['b 4-0.a', 'a 5-0.a']);
  assert.equal(stream.lastEventId, '5-0.a');
});

test('relayed event among repeated events causes no duplicates', async (t) => {
  const { seen, advance } = await openStream(t, {
    answer: (n) =>
      n === 1
        ? [
            ['1-0.a', 'a'],
            ['2-0.a', 'a'],
          ]
        : undefined,
  });
  await advance(16_000, 1000);
  const source = Fake.newest;
  source.connected('0-0.a');
  source.event('a', {}, '1-0.a');
  source.event('a'); // repeats 1-0.a
  source.event('a', {}, '2-0.a');
  source.event('a', {}, '3-0.a');
  assert.deepEqual(seen.events, ['a 1-0.a', 'a 2-0.a', 'a 1-0.a', 'a 3-0.a']);
});

test('gap with a new id resets the position', async (t) => {
  const { stream, seen, advance } = await openStream(t, {
    answer: (n) =>
      n === 1
        ? [
            ['1-0.a', 'a'],
            ['2-0.a', 'a'],
          ]
        : undefined,
  });
  await advance(16_000, 1000);
  const source = Fake.newest;
  source.connected('0-0.a');
  source.event('sse.gap', { reason: 'unknown-id' }, '9-0.a');
  assert.equal(stream.lastEventId, '9-0.a');
  source.event('a', {}, '10-0.a');
  assert.deepEqual(seen.events, ['a 1-0.a', 'a 2-0.a', 'a 10-0.a']);
});

test('full poll response is followed immediately', async (t) => {
  const { polls, advance } = await openStream(t, {
    polling: 'only',
    answer: (n) => (n <= 3 ? Array.from({ length: 8000 }, (_, i) => [`${n}-${i}`, 'a']) : []),
  });
  await advance(100, 10);
  assert.equal(polls.length, 4);
  await advance(500, 10);
  assert.equal(polls.length, 4, 'no pause after a response that is not full');
});

test('blocked native reconnect starts polling after a heartbeat', async (t) => {
  const { stream, advance, polls } = await openStream(t, { answer: () => [] });
  Fake.newest.connected('1-0.a');
  await advance(20_000, 1000);
  assert.equal(polls.length, 0);
  Fake.newest.fail(false);
  await advance(14_000, 1000);
  assert.equal(polls.length, 0);
  await advance(2000, 1000);
  assert.ok(polls.length > 0);
  assert.equal(stream.state, 'polling');
});

test('busy delay of the gateway does not start polling', async (t) => {
  const { advance, polls } = await openStream(t, { answer: () => [] });
  Fake.newest.event('sse.busy', { reason: 'redis-away' });
  Fake.newest.fail(false);
  await advance(40_000, 1000);
  assert.equal(polls.length, 0);
  assert.equal(Fake.all.length, 1);
});

test('reconnect while polling uses a new ticket', async (t) => {
  const { stream, seen, polls, advance } = await openStream(t, {
    polling: 'only',
    answer: (n) => [[`${n}-0.a`, 'a']],
  });
  await advance(3000);
  assert.deepEqual(
    new Set(polls.map((url) => url.searchParams.get('ticket'))),
    new Set(['ticket-1']),
  );
  stream.reconnect();
  await advance(3000);
  assert.equal(polls.at(-1).searchParams.get('ticket'), 'ticket-2');
  assert.equal(seen.tickets, 2);
  assert.deepEqual(seen.events, polls.map((_, i) => `a ${i + 1}-0.a`));
});

test('reconnect while offline still resumes when online', async (t) => {
  const network = { onLine: true };
  const page = new EventTarget();
  const real = Object.getOwnPropertyDescriptor(globalThis, 'navigator');
  Object.defineProperty(globalThis, 'navigator', { value: network, configurable: true });
  globalThis.addEventListener = page.addEventListener.bind(page);
  t.after(() => {
    if (real) Object.defineProperty(globalThis, 'navigator', real);
    else delete globalThis.navigator;
    delete globalThis.addEventListener;
  });
  const { stream } = await openStream(t, { polling: false });
  Fake.newest.connected('1-0.a');
  const set = (online) => {
    network.onLine = online;
    page.dispatchEvent(new Event(online ? 'online' : 'offline'));
  };
  set(false);
  assert.equal(stream.state, 'reconnecting');
  stream.reconnect();
  await settled();
  Fake.newest.fail();
  const opened = Fake.all.length;
  set(true);
  await settled();
  assert.equal(Fake.all.length, opened + 1, 'no immediate attempt');
});

test('infinite durations do not become zero', async (t) => {
  const { advance } = await openStream(t, {
    failures: 1,
    probe: Infinity,
    heartbeat: Infinity,
    answer: () => [],
  });
  Fake.newest.fail();
  await advance(2000);
  Fake.newest.fail();
  await advance(300_000, 1000);
  assert.equal(Fake.all.length, 2);
  const slow = await openStream(t, {
    watchdog: Infinity,
    ticket: () =>
      new Promise((resolve) => {
        setTimeout(resolve, 600_000, 'x');
      }),
  });
  await slow.advance(599_000, 10_000);
  assert.deepEqual(slow.seen.errors, []);
});

test('closed stream with pending ticket lets Node exit', async () => {
  const client = fileURLToPath(new URL('../src/index.js', import.meta.url));
  const code = `import { connect } from ${JSON.stringify(client)};
    const stream = connect({
      url: 'http://gateway/events',
      ticket: () => new Promise(() => {}),
      EventSource: class {},
      watchdog: 1e9,
    });
    setTimeout(() => stream.close(), 1);`;
  await promisify(execFile)(process.execPath, ['--input-type=module', '--eval', code], {
    timeout: 30_000,
  });
});

test('share that is not a name throws', async (t) => {
  for (const share of [true, 1, {}])
    await assert.rejects(openStream(t, { share }), {
      name: 'TypeError',
      message: /contains the user's id/,
    });
  for (const share of [false, undefined, '', 'user-42']) await openStream(t, { share });
});

test('retained values are marked, and ids with ! are passed on unchanged', async (t) => {
  const { stream, seen, advance } = await openStream(t, { lastEventId: undefined });
  const snapshots = [];
  stream.onSnapshot((snapshot) => snapshots.push(snapshot));
  stream.on('a', (data, { retained }) => seen.events.push(retained));
  const snapshot = { covers: ['broadcast:*'], channels: { 'broadcast:x': ['k'] } };
  Fake.newest.connected('1-0.a!');
  Fake.newest.event('sse.snapshot', snapshot);
  Fake.newest.event('a');
  assert.equal(stream.lastEventId, '1-0.a!');
  Fake.newest.fail();
  await advance(2000);
  assert.equal(Fake.newest.url.searchParams.get('lastEventId'), '1-0.a!');
  Fake.newest.connected('1-0.a!');
  Fake.newest.event('sse.snapshot', snapshot);
  Fake.newest.event('a');
  Fake.newest.event('sse.heartbeat', {}, '1-0.a');
  assert.equal(stream.lastEventId, '1-0.a');
  Fake.newest.event('a'); // ephemeral
  Fake.newest.event('a', {}, '2-0.a');
  assert.deepEqual(snapshots, [snapshot, snapshot]);
  assert.deepEqual(seen.events, [
    'a 1-0.a!', true, 'a 1-0.a!', true, 'a 1-0.a', false, 'a 2-0.a', false,
  ]);
});

test('a poll delivers gap, snapshot and values in this order', async (t) => {
  const value = (data) => ({ id: '5-0.a', type: 'a', data, retained: true });
  const { stream, seen, advance } = await openStream(t, {
    polling: 'only',
    answer: (n) => [[], {
      events: [value('1'), value('2'), { id: '6-0.a', type: 'a', data: '3' }],
      lastEventId: '6-0.a',
      gap: { reason: 'reset', channels: [], from: '0-0.a' },
      snapshot: { covers: [], channels: { 'broadcast:x': ['k', 'l'] } },
    }][n - 1],
  });
  seen.events.length = 0;
  stream.onGap(({ reason }) => seen.events.push(reason));
  stream.onSnapshot(({ channels }) => seen.events.push(channels['broadcast:x']));
  stream.on('a', (data, { retained }) => seen.events.push([data, retained, stream.lastEventId]));
  await advance(2000);
  assert.deepEqual(seen.events, [
    'reset', ['k', 'l'],
    // Only the end of the values is a position from which all of them are known.
    'a ', [1, true, '0-0.a'], 'a ', [2, true, '0-0.a'],
    'a 6-0.a', [3, false, '0-0.a'],
  ]);
  assert.equal(stream.lastEventId, '6-0.a');
});

for (const polling of [true, 'only']) {
  test(`401 of the ticket endpoint ends all requests until reconnect(): ${polling}`, async (t) => {
    let status = 401;
    let requests = 0;
    const { stream, seen, polls, advance } = await openStream(t, {
      polling,
      answer: () => [['1-0.a', 'a']],
      ticket: () => {
        requests += 1;
        if (status !== 200) throw new TicketError(status);
        return 'x';
      },
    });
    await advance(600_000, 1000);
    assert.deepEqual([stream.state, requests, Fake.all, polls], ['signed-out', 1, [], []]);
    assert.match(seen.errors.join(), /^the ticket endpoint responded with 401$/);

    // Any other status is temporary.
    status = 503;
    stream.reconnect();
    await advance(10_000, 1000);
    assert.ok(requests > 3, `${requests} requests`);
    assert.equal(stream.state, 'connecting');
    status = 200;
    while (!Fake.open.length && !polls.length) await advance(1000);
    if (polling === true) Fake.newest.connected('1-0.a');
    assert.equal(stream.state, polling === true ? 'open' : 'polling');

    // Signed out while connected.
    status = 401;
    requests = 0;
    stream.reconnect();
    await advance(600_000, 1000);
    assert.deepEqual([stream.state, requests, Fake.open], ['signed-out', 1, []]);
    assert.equal(stream.reconnectCount, 0);
  });
}

test('401 of the gateway requests a new ticket', async (t) => {
  const refusal = () =>
    Response.json({ error: 'ticket-expired', message: '' }, { status: 401 });
  const { stream, seen, advance } = await openStream(t, {
    polling: 'only',
    fetch: async () => refusal(),
  });
  await advance(60_000, 1000);
  assert.ok(seen.tickets > 3, `${seen.tickets} tickets`);
  assert.equal(stream.state, 'connecting');
});
