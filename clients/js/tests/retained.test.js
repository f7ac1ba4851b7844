// The values of useLatest, with a fake stream.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { RetainedValues } from '../react/retainedValues.js';

const symbol = (data) => data.symbol;

/** Values that follow a stream: { values, emit(type, data), change() }. */
function follow(retained, url = '/events') {
  const handlers = new Map();
  const live = {
    on(type, handler) {
      handlers.set(type, handler);
      return () => handlers.delete(type);
    },
  };
  const values = new RetainedValues({ current: retained });
  return {
    values,
    handlers,
    attach: (other = url) => values.attach(live, other),
    emit: (type, data) => handlers.get(type)(data, { type, data }),
    /** Resolves when watchers are notified. */
    change: () => new Promise((resolve) => { const off = values.watch(() => resolve(off())); }),
  };
}

test('values follow events by key, and watchers are notified once per frame', async () => {
  const { values, attach, emit, change } = follow({
    eu: { events: ['price'], forgets: ['gone'], key: (data) => (data.eu ? data.symbol : null) },
    us: { events: ['price'], key: (data) => (data.eu ? undefined : data.symbol) },
  });
  attach();
  const before = values.of('eu');
  assert.equal(before.size, 0);
  let calls = 0;
  values.watch(() => { calls += 1; });
  const changed = change();
  for (let n = 0; n < 100; n += 1) emit('price', { symbol: 'a', eu: true, n });
  emit('price', { symbol: 7, n: 1 });
  await changed;
  assert.equal(calls, 1);
  assert.deepEqual([...values.of('eu')], [['a', { symbol: 'a', eu: true, n: 99 }]]);
  assert.deepEqual([...values.of('us').keys()], ['7']);

  // A map that was read does not change.
  const read = values.of('eu');
  emit('gone', { symbol: 'a', eu: true });
  assert.deepEqual([read.size, values.of('eu').size, before.size], [1, 0, 0]);
  await change();
});

test('snapshot discards keys of the channels that it covers', () => {
  const { values, attach, emit } = follow({
    'broadcast:a': { events: ['a'], key: symbol },
    'broadcast:b.x': { events: ['b'], key: symbol },
    'user:1:events': { events: ['u'], key: symbol },
  });
  const stop = attach();
  for (const type of ['a', 'b', 'u'])
    for (const key of ['one', 'two']) emit(type, { symbol: key });
  const keys = () => ['broadcast:a', 'broadcast:b.x', 'user:1:events'].map((channel) =>
    [...values.of(channel).keys()].join());
  emit('sse.snapshot', { covers: ['broadcast:a'], channels: { 'broadcast:a': ['two'] } });
  assert.deepEqual(keys(), ['two', 'one,two', 'one,two']);
  emit('sse.snapshot', { covers: ['broadcast:b.*', 'user:2:events'], channels: {} });
  assert.deepEqual(keys(), ['two', '', 'one,two']);

  // Also after an effect was repeated; another URL starts over.
  stop();
  const stopAgain = attach();
  assert.deepEqual(keys(), ['two', '', 'one,two']);
  stopAgain();
  attach('/other')();
  assert.deepEqual(keys(), ['', '', '']);
});
