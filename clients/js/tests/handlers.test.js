import assert from 'node:assert/strict';
import { test } from 'node:test';
import { handlers } from '../src/handlers.js';
import { listeners } from '../src/listeners.js';

test('JSON is parsed, other text is passed through', () => {
  const registry = handlers();
  const seen = [];
  registry.on('a', (data, event) => seen.push([data, event.text, event.id]));
  for (const text of ['{"n":1}', '7', '"x"', 'null', 'plain', '{"n":', ''])
    registry.call({ type: 'a', id: '1-0.a', text });
  assert.deepEqual(seen.map(([data]) => data), [{ n: 1 }, 7, 'x', null, 'plain', '{"n":', '']);
  assert.deepEqual(seen[0].slice(1), ['{"n":1}', '1-0.a']);
});

test('star handler receives known names except system events', () => {
  const registry = handlers(['known']);
  const seen = [];
  registry.on('*', (data, { type }) => seen.push(`* ${type}`));
  registry.on('a', () => seen.push('a'));
  registry.on('sse.gap', () => seen.push('gap'));
  for (const type of [
    'a',
    'known',
    'unknown',
    'sse.gap',
    'sse.closing',
    'constructor',
    '__proto__',
  ])
    registry.call({ type, id: '', text: '1' });
  assert.deepEqual(seen, ['a', '* a', '* known', 'gap']);
  assert.deepEqual(registry.types(), ['known', '*', 'a', 'sse.gap']);
  seen.length = 0;
  registry.call({ type: '*', id: '', text: '1' });
  assert.deepEqual(seen, ['* *'], 'an event named * is delivered once');
});

test('listeners added or removed during a call', () => {
  const registry = listeners();
  const seen = [];
  const twice = () => seen.push('twice');
  const off = registry.add(twice);
  registry.add(twice);
  registry.add(() => { last(); registry.add(() => seen.push('new')); });
  const last = registry.add(() => seen.push('last'));
  assert.equal(registry.call(), true);
  assert.deepEqual(seen.splice(0), ['twice', 'twice']);
  off();
  off();
  registry.call();
  assert.deepEqual(seen, ['twice', 'new']);
  assert.equal(listeners().call(), false);
});

test('schema decides what handlers get, other events are reported', () => {
  const errors = [];
  const schema = (validate) => ({ '~standard': { version: 1, vendor: 'test', validate } });
  const schemas = {
    order: schema((value) =>
      (typeof value?.id === 'number'
        ? { value: { id: value.id, checked: true } }
        : { issues: [{ message: 'must be a number', path: ['lines', { key: 0 }, 'id'] }] })),
    slow: schema(async (value) => ({ value })),
    broken: schema(() => { throw new Error('broken'); }),
  };
  const registry = handlers(['order'], schemas, (error) => errors.push(error));
  const seen = [];
  for (const type of ['order', 'other', 'constructor', '*', 'slow', 'broken'])
    registry.on(type, (data, { text }) => seen.push([type, data, text]));
  const call = (type, text) => registry.call({ type, id: '', text });
  call('order', '{"id":7,"more":1}');
  call('order', '{"id":"7"}');
  for (const type of ['slow', 'broken', 'constructor', 'other']) call(type, '1');
  assert.deepEqual(seen, [
    ['order', { id: 7, checked: true }, '{"id":7,"more":1}'],
    ['*', { id: 7, checked: true }, '{"id":7,"more":1}'],
    ['constructor', 1, '1'],
    ['*', 1, '1'],
    ['other', 1, '1'],
    ['*', 1, '1'],
  ]);
  assert.deepEqual(errors.map(({ message }) => message), [
    'event order does not match its schema: lines.0.id: must be a number',
    'the schema of slow is asynchronous',
    'broken',
  ]);
  assert.equal(errors[0].issues.length, 1);
});
