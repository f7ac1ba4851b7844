// The owner of a shared connection: tickets from the members.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { TicketError } from '../src/index.js';
import { openHub, packed, unpacked } from '../src/share/hub.js';
import { Fake, settled } from './lib/fake.js';

const SETTINGS = {
  url: 'http://gateway/events', polling: false, heartbeat: 15_000, watchdog: 45_000, retry: 1000,
  retryMax: 30_000, failures: 3, probe: 60_000, EventSource: Fake,
};

/** Opens a hub with members: { hub, next(kind), send(member, kind, value), advance(ms) }. */
function open(t, members) {
  t.mock.timers.enable({ apis: ['setTimeout', 'setInterval', 'Date'] });
  Fake.all = [];
  const name = `hub ${Math.random()}`;
  const channel = new BroadcastChannel(name);
  const messages = [];
  channel.onmessage = ({ data }) => messages.push(data);
  t.after(() => channel.close());
  const hub = openHub({ name, last: 0, settings: SETTINGS, types: ['a'] }, () => {});
  t.after(hub.close);
  members.forEach(hub.add);
  const barrier = async () => {
    // Messages of one channel keep their order, in both directions.
    const other = new BroadcastChannel(name);
    t.after(() => other.close());
    other.postMessage({ kind: 'barrier' });
    while (!messages.some(({ kind }) => kind === 'barrier')) await settled();
    messages.splice(messages.findIndex(({ kind }) => kind === 'barrier'), 1);
    await settled();
  };
  return {
    hub,
    /** Advances the clock and returns the messages of the hub of a kind. */
    async advance(ms, kind) {
      for (let passed = 0; passed < ms; passed += 500) {
        t.mock.timers.tick(500);
        await settled();
      }
      await barrier();
      return messages.splice(0).filter((message) => message.kind === kind);
    },
    async send(from, kind, value) {
      channel.postMessage({ kind, value, from });
      await barrier();
      await settled();
    },
  };
}

test('ticket is awaited for as long as the watchdog', async (t) => {
  const { advance, send } = open(t, ['tab 1']);
  assert.equal((await advance(0, 'ask')).length, 1);
  assert.deepEqual(await advance(40_000, 'error'), []);
  await send('tab 1', 'ticket', { ticket: 'late' });
  assert.equal(Fake.newest?.url.searchParams.get('ticket'), 'late');
});

test('other members are asked every 5 s, also those who join meanwhile', async (t) => {
  const { advance, send } = open(t, ['tab 1', 'tab 2']);
  const asked = async (ms) => (await advance(ms, 'ask')).map(({ to }) => to);
  assert.deepEqual(await asked(0), ['tab 2']);
  assert.deepEqual(await asked(5000), ['tab 1']);
  assert.deepEqual(await asked(5000), []);
  await send('tab 3', 'join', { types: [] });
  assert.deepEqual(await asked(5000), ['tab 3']);
  const [error] = await advance(40_000, 'error');
  assert.match(error.value.message, /timed out|no tab returned a ticket/);
});

test('signed-out hub asks a new member', async (t) => {
  const { advance, send } = open(t, ['tab 1']);
  await send('tab 1', 'ticket', { error: { name: 'Error', message: 'refused', status: 401 } });
  const states = async (ms) => (await advance(ms, 'state')).map(({ value }) => value);
  assert.deepEqual(await states(0), ['signed-out']);
  await send('tab 1', 'join', { types: [] });
  assert.deepEqual(await advance(120_000, 'ask'), [], 'a known member is not asked again');
  await send('tab 2', 'join', { types: [] });
  const messages = await advance(0, 'ask');
  assert.deepEqual(messages.map(({ to }) => to), ['tab 2']);
});

test('errors reach all members with their name, status and code', async (t) => {
  const { advance, send } = open(t, ['tab 1']);
  await send('tab 1', 'ticket', { error: packed(new TicketError(503)) });
  const [{ value }] = await advance(0, 'error');
  const error = unpacked(structuredClone(value));
  assert.ok(error instanceof TicketError);
  assert.deepEqual([String(error), error.status], [String(new TicketError(503)), 503]);

  const refusal = Object.assign(new Error('refused'), { status: 403, code: 'not-allowed' });
  const copy = unpacked(structuredClone(packed(Object.assign(refusal, { response: () => {} }))));
  const { name, message, status, code } = copy;
  assert.deepEqual([name, message, status, code], ['Error', 'refused', 403, 'not-allowed']);
  assert.equal(unpacked(packed('a text')).message, 'a text');
});
