import assert from 'node:assert/strict';
import { test } from 'node:test';
import { handlers } from '../src/handlers.js';
import { listeners } from '../src/listeners.js';

test('JSON is parsed; what is none is handed on as text', () => {
  const registry = handlers();
  const seen = [];
  registry.on('a', (data, event) => seen.push([data, event.text, event.id]));
  for (const text of ['{"n":1}', '7', '"x"', 'null', 'plain', '{"n":', '']) registry.call({ type: 'a', id: '1-0', text });
  assert.deepEqual(seen.map(([data]) => data), [{ n: 1 }, 7, 'x', null, 'plain', '{"n":', '']);
  assert.deepEqual(seen[0].slice(1), ['{"n":1}', '1-0']);
});

test('by name; `*` has all known names but the gateway\'s own; an unknown name has nobody', () => {
  const registry = handlers(['known']);
  const seen = [];
  registry.on('*', (data, { type }) => seen.push(`* ${type}`));
  registry.on('a', () => seen.push('a'));
  registry.on('sse.gap', () => seen.push('gap'));
  for (const type of ['a', 'known', 'unknown', 'sse.gap', 'sse.closing', 'constructor', '__proto__']) registry.call({ type, id: '', text: '1' });
  assert.deepEqual(seen, ['a', '* a', '* known', 'gap']);
  assert.deepEqual(registry.types(), ['known', '*', 'a', 'sse.gap']);
  seen.length = 0;
  registry.call({ type: '*', id: '', text: '1' });
  assert.deepEqual(seen, ['* *'], 'an event that has this name comes once');
});

test('in the order of registration; off() ends one registration, also in the midst of a call; one that comes meanwhile waits', () => {
  const all = listeners();
  const seen = [];
  const twice = () => seen.push('twice');
  const off = all.add(twice);
  all.add(twice);
  all.add(() => { last(); all.add(() => seen.push('new')); });
  const last = all.add(() => seen.push('last'));
  assert.equal(all.call(), true);
  assert.deepEqual(seen.splice(0), ['twice', 'twice']);
  off();
  off();
  all.call();
  assert.deepEqual(seen, ['twice', 'new']);
  assert.equal(listeners().call(), false);
});
