// The state of useHybrid, with a fake stream, a fake backend and a fake clock.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Hybrid } from '../react/hybrid.js';
import { settled } from './lib/fake.js';

/** Items with their version, so that an event that is applied twice gives the same state. */
const upsert = (items, item) => [...items.filter(({ id }) => id !== item.id), item];

/** { hybrid, live, loads, commands, emit(type, data), advance(ms), items() }. */
async function open(t, { status = 'open', ...options } = {}) {
  t.mock.timers.enable({ apis: ['setTimeout', 'Date'] });
  const handlers = new Map();
  const watchers = new Set();
  const live = {
    status,
    state: () => ({ status: live.status }),
    watch(watcher) { watchers.add(watcher); return () => watchers.delete(watcher); },
    on(type, handler) { handlers.set(type, handler); return () => handlers.delete(type); },
  };
  const loads = [];
  const commands = [];
  const request = (list, more) => new Promise((resolve, reject) => {
    list.push({
      ...more,
      answer: (value) => { resolve(value); return settled(); },
      fail: (error) => { reject(error); return settled(); },
    });
  });
  const hybrid = new Hybrid({
    current: {
      load: ({ signal }) => request(loads, { signal }),
      events: { item: upsert },
      command: (input, { id }) => request(commands, { input, id }),
      optimistic: (items, input, { id }) => upsert(items, { ...input, mark: id }),
      ...options,
    },
  });
  const detach = hybrid.attach(live);
  t.after(detach);
  await settled();
  return {
    hybrid,
    loads,
    commands,
    detach,
    live,
    connect() { live.status = 'open'; for (const watcher of watchers) watcher(); },
    emit: (type, data) => handlers.get(type)(data, { type, data }),
    async advance(ms) { t.mock.timers.tick(ms); await settled(); },
    items: () => hybrid.state().data?.map(({ id, v, mark }) => [id, v, mark ? 'expected' : 'real']),
  };
}

test('state is loaded at mount, when the stream begins, and after a gap', async (t) => {
  const { loads, live, hybrid, connect, emit, advance, items } = await open(t, {
    status: 'connecting',
  });
  assert.deepEqual([loads.length, hybrid.state().isLoading], [1, true]);
  await loads[0].answer([{ id: 1, v: 1 }]);
  assert.deepEqual([items(), hybrid.state().isLoading], [[[1, 1, 'real']], false]);
  connect();
  live.status = 'reconnecting';
  connect();
  assert.equal(loads.length, 2, 'events that were missed are repeated after a reconnect');
  await loads[1].answer([{ id: 1, v: 2 }]);
  emit('sse.gap', { reason: 'reset' });
  assert.equal(loads.length, 3);
  // A second gap: the response to the first request may be too old.
  emit('sse.gap', { reason: 'reset' });
  assert.ok(loads[2].signal.aborted);
  await loads[3].answer([{ id: 1, v: 3 }]);
  await loads[2].answer([]);
  await advance(100);
  assert.deepEqual(items(), [[1, 3, 'real']]);
});

test('events during a load are applied to its result', async (t) => {
  const { loads, emit, advance, items } = await open(t);
  emit('item', { id: 2, v: 2 });
  await loads[0].answer([{ id: 1, v: 1 }, { id: 2, v: 1 }]);
  assert.deepEqual(items(), [[1, 1, 'real'], [2, 2, 'real']]);
  emit('item', { id: 1, v: 3 });
  await advance(20);
  assert.deepEqual(items(), [[2, 2, 'real'], [1, 3, 'real']]);
});

test('failed load is repeated with increasing delay', async (t) => {
  const { loads, hybrid, advance } = await open(t);
  await loads[0].fail(new Error('500'));
  assert.match(hybrid.state().error.message, /500/);
  await advance(1000);
  await loads[1].fail(new Error('500'));
  await advance(1000);
  assert.equal(loads.length, 2);
  await advance(1000);
  await loads[2].answer([]);
  assert.deepEqual([hybrid.state().error, hybrid.state().data], [undefined, []]);
  await advance(60_000);
  assert.equal(loads.length, 3);
});

test('load that hangs is aborted after 45 s, and repeated', async (t) => {
  const { loads, hybrid, advance } = await open(t);
  await advance(44_999);
  assert.ok(!loads[0].signal.aborted);
  await advance(1);
  assert.ok(loads[0].signal.aborted);
  assert.match(hybrid.state().error.message, /timed out/);
  await advance(1000);
  await loads[1].answer([]);
  assert.deepEqual([hybrid.state().error, hybrid.state().data], [undefined, []]);
});

test('expected result is shown until the event of the command arrives', async (t) => {
  const { loads, commands, hybrid, emit, advance, items } = await open(t);
  await loads[0].answer([]);
  const sent = hybrid.send({ id: 1, v: 1 });
  assert.deepEqual(items(), [[1, 1, 'expected']]);
  await commands[0].answer('accepted');
  assert.equal(await sent, 'accepted');
  emit('item', { id: 2, v: 1, commandId: 'of another tab' });
  await advance(20);
  assert.deepEqual(items(), [[2, 1, 'real'], [1, 1, 'expected']]);
  emit('item', { id: 1, v: 9, commandId: commands[0].id });
  await advance(20);
  assert.deepEqual(items(), [[2, 1, 'real'], [1, 9, 'real']]);
  assert.deepEqual(hybrid.state().pending, []);
  await advance(60_000);
  assert.equal(loads.length, 1, 'the event arrived');
});

test('expected result of a failed command is withdrawn', async (t) => {
  const { loads, commands, hybrid, items } = await open(t);
  await loads[0].answer([]);
  const failed = hybrid.send({ id: 1, v: 1 });
  hybrid.send({ id: 2, v: 1 });
  await commands[0].fail(new Error('refused'));
  await assert.rejects(failed, /refused/);
  assert.match(hybrid.state().commandError.message, /refused/);
  assert.deepEqual(items(), [[2, 1, 'expected']]);
  hybrid.send({ id: 3, v: 1 });
  assert.equal(hybrid.state().commandError, undefined);
});

test('state is loaded again if the event of a command does not arrive', async (t) => {
  const { loads, commands, hybrid, advance, items } = await open(t, { confirmTimeout: 5000 });
  await loads[0].answer([]);
  hybrid.send({ id: 1, v: 1 });
  hybrid.send({ id: 2, v: 1 });
  await commands[0].answer();
  await advance(5000);
  assert.equal(loads.length, 2);
  // The second command was not accepted before this request.
  await commands[1].answer();
  await loads[1].answer([{ id: 1, v: 1 }]);
  assert.deepEqual(items(), [[1, 1, 'real'], [2, 1, 'expected']]);
  await advance(5000);
  await loads[2].answer([{ id: 1, v: 1 }, { id: 2, v: 1 }]);
  assert.deepEqual(items(), [[1, 1, 'real'], [2, 1, 'real']]);
});

test('strict mode and unmounting cause no further loads', async (t) => {
  const { hybrid, loads, live, detach, advance } = await open(t);
  detach();
  assert.ok(loads[0].signal.aborted);
  hybrid.attach(live)();
  hybrid.attach(live)();
  await settled();
  assert.equal(loads.length, 1);
  await loads[0].fail(new Error('aborted'));
  await advance(60_000);
  assert.equal(loads.length, 1);
});
